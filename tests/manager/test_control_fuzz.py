"""Whatever is sent to the control socket: nothing breaks, nothing leaks, others are served."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread

from chanproxy.config import AccessEntry
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.calls import SCM_MAX_FD
from chanproxy.kernel.closing import closer
from chanproxy.wake.source import EVENTS
from support.processes import cannotStick
from tests.manager.fuzzing import KINDS, MESSAGE_BYTES, MUTE, Crowd, Pool, Talker, inReactor
from tests.shared.fuse import fileSystem
from tests.shared.leaks import nothingCritical, nothingLeft, openDescriptors
from tests.shared.oddities import ODDITIES
from tests.shared.sides import asynchronous, turns, until
from tests.shared.station import MANAGER, Station

pytestmark = [
    pytest.mark.lasts(40),
    # What it says of an example that failed is what is to be seen.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

EXAMPLES = int(os.environ.get("CHANPROXY_TEST_EXAMPLES", "250"))

TALKERS = 4
STRANGER = 65534
"""A user that is neither root nor we, and has an entry in the configuration."""

NOBODY = 65533
"""One that has none."""

PASSING = " of a connection"
"""How names of sources and locks end that end with their client."""

ITSELF = "the control connection itself"

ANYTHING = st.sampled_from([*KINDS, ITSELF]) | st.just(ITSELF)
SEQPACKETS = st.sampled_from(["seqpacket", "another seqpacket", "third seqpacket"])
COUNTERS = {
    "shared": st.sampled_from(["semaphore", "another semaphore", "semaphore, positive"]),
    "handled": st.just("eventfd"),
}

PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "container": st.sampled_from(["editor"] * 8 + ["shop", "no-such"]),
    "name": st.sampled_from(["a"] * 8 + ["ü", "x" * 1000]),
    "counter": st.sampled_from(["shared", "handled"]),
    "lifetime": st.sampled_from(["service", "connection"]),
    "events": st.lists(st.sampled_from(list(EVENTS)), min_size=1, max_size=3),
    "pipe": st.booleans(),
    "timeout": st.sampled_from([0, 0.001, 60]),
    "reason": st.text(min_size=1, max_size=3),
    "by": st.text(min_size=1, max_size=3),
    "kind": st.sampled_from(["shared", "handled"]),
    "at": st.sampled_from([0, 1.5, 2**32]),
    "first_source": st.integers(0, 3),
}

METHODS: dict[str, tuple[str, str, st.SearchStrategy[Sequence[str]]]] = {
    "ListContainers": ("", "", st.just(())),
    "Describe": ("container", "first_source", st.just(())),
    "ProxyWakeChannel": ("container name", "counter lifetime", st.tuples(SEQPACKETS, SEQPACKETS)),
    "AddWakeSource": ("container name events", "lifetime", st.tuples(ANYTHING)),
    "RemoveWakeSource": ("container", "", st.tuples(ANYTHING)),
    "RegisterWakeWatcher": ("container", "pipe", st.just(())),
    "SuspendContainer": ("container", "timeout", st.just(()) | st.tuples(ANYTHING)),
    "ResumeContainer": ("container", "reason", st.just(())),
    "PauseContainer": ("container", "by", st.just(())),
    "UnpauseContainer": ("container", "reason", st.just(())),
    "AcquireWakeLock": ("container name", "timeout lifetime", st.just(())),
    "ReleaseWakeLock": ("container name", "lifetime", st.just(())),
    "OpenCounter": ("container name", "kind", st.just(())),
    "WakeAt": ("container", "name at", st.just(())),
}
"""The methods; what has to be there, what may be, and the descriptors."""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@frozen
class Packet:
    """To be sent."""

    data: bytes
    kinds: Sequence[str] = ()

    def __repr__(self) -> str:
        # What a failure shows has to be readable.
        data = self.data if len(self.data) < 500 else self.data[:50] + b"... and more"
        kinds = self.kinds if len(self.kinds) < 5 else f"{len(self.kinds)} times {set(self.kinds)}"
        return f"Packet({data!r}, {kinds!r})"


def _nested(depth: int, shape: str) -> bytes:
    before, after = {
        "list": ("[", "]"),
        "object": ('{"method":', "}"),
        "parameter": ('{"method":"x","parameters":{"a":' + "[", "]" + "}}"),
        "open": ("[", ""),
    }[shape]
    return (before * depth + "1" + after * depth).encode()


def _tree(tree: Any, encoding: str) -> bytes:
    return json.dumps(tree).encode(encoding)


def _call(method: str, parameters: Any, flags: dict[str, Any]) -> bytes:
    return json.dumps({"method": method, "parameters": parameters, **flags}).encode()


FLAGS: list[dict[str, bool]] = [
    {},
    {},
    {"more": True},
    {"more": True},
    {"oneway": True},
    {"more": True, "oneway": True},
]
ATTACHED = st.one_of(
    st.just(()),
    st.lists(ANYTHING, max_size=4),
    st.builds(lambda kind, count: [kind] * count, ANYTHING, st.integers(0, SCM_MAX_FD)),
)

BYTES = st.one_of(
    st.binary(max_size=100),
    st.integers(MESSAGE_BYTES - 2, MESSAGE_BYTES + 2).map(lambda size: b"[" * size),
    st.just(b" " * 150_000),
    st.builds(
        _nested,
        st.integers(1, 3000),
        st.sampled_from(["list", "object", "parameter", "open"]),
    ),
    st.builds(_tree, JSON, st.sampled_from(["utf-8", "utf-16", "utf-32", "utf-8-sig"])),
    st.builds(
        _call, st.text(max_size=8) | st.just(f"{MANAGER}.Describe"), JSON, st.sampled_from(FLAGS)
    ),
    st.just(b'{"method":"%s.ListContainers"}\0' % MANAGER.encode()),
    st.just(b'{"method":"x","parameters":{"a":%s}}' % (b"9" * 5000)),
    st.just(b'{"method":"\\ud800","parameters":{"container":"\\udfff"}}'),
)


@st.composite
def wellMeant(draw: st.DrawFn) -> Packet:
    """A call of a real method, with what it takes; or with one thing wrong."""
    method = draw(st.sampled_from([*METHODS, "ProxyWakeChannel", "ProxyWakeChannel"]))
    required, optional, descriptors = METHODS[method]
    parameters = draw(
        st.fixed_dictionaries(
            {name: PARAMETERS[name] for name in required.split()},
            optional={name: PARAMETERS[name] for name in optional.split()},
        )
    )
    kinds = draw(descriptors)
    if method == "ProxyWakeChannel":
        kinds = (*kinds, draw(COUNTERS[parameters.get("counter", "shared")]))
    flags = draw(st.sampled_from(FLAGS))
    wrong = draw(st.sampled_from(["nothing"] * 9 + ["descriptors", "value", "missing"]))
    if wrong == "descriptors":
        kinds = draw(ATTACHED)
    elif wrong == "value":
        parameters[draw(st.sampled_from([*parameters, "surplus"]))] = draw(JSON)
    elif parameters and wrong == "missing":
        del parameters[draw(st.sampled_from(list(parameters)))]
    if parameters.get("lifetime") == "connection" and isinstance(parameters.get("name"), str):
        parameters["name"] += PASSING
    return Packet(_call(f"{MANAGER}.{method}", parameters, flags), kinds)


PACKETS = st.one_of(
    wellMeant(), wellMeant(), st.tuples(BYTES, ATTACHED).map(lambda both: Packet(*both))
)
Step = tuple[int, "Packet | str", bool]
"""Who does what, and whether the service may work before the next step."""


def steps(packets: st.SearchStrategy[Packet]) -> st.SearchStrategy[list[Step]]:
    """What happens to a service."""
    doing = st.one_of(packets, packets, packets, st.sampled_from(["poke", "finish", "close"]))
    return st.lists(st.tuples(st.integers(0, TALKERS - 1), doing, st.booleans()), max_size=20)


class Fuzzed(Crowd):
    """A service, a client of it that behaves, and some that may not."""

    async def answered(self) -> None:
        """All that was asked for comes, as soon as no suspend is in its way."""

        def done() -> bool:
            self._wake()
            return not any(talker.owed for talker in self.talkers)

        await self.until(done)

    def newcomer(self, number: int) -> Talker:
        """A client; the last two are strangers', if we may be one; the last one has no access."""
        if number < TALKERS - 2 or os.geteuid() != 0:
            return Talker(self.station.path)
        access = number == TALKERS - 2
        return Talker(self.station.path, STRANGER if access else NOBODY, access)

    def take(self, number: int, step: Packet | str, pool: Pool) -> None:
        """Do one thing."""
        talker = self.talkers[number]
        if isinstance(step, Packet):
            talker.send(step.data, *(self._given(talker, kind, pool) for kind in step.kinds))
        elif step == "poke":
            pool.poke()
        elif step == "finish":
            talker.finish()
        else:
            talker.close()
        if talker.finished:
            # It is answered what it is owed, even if somebody else has taken its place.
            self.talkers.append(talker)
            self.talkers[number] = self.newcomer(number)

    def _given(self, talker: Talker, kind: str, pool: Pool) -> int:
        if kind is ITSELF:
            return talker.socket.fileno()
        if kind == MUTE and talker.user is None:
            # Whoever is trusted can make the service wait: what we poll for them we ask.
            return pool.get("file in user space")
        return pool.get(kind)

    async def disconnect(self) -> None:
        """All go but the witness."""
        for talker in self.talkers:
            talker.close()
        await turns(self.reactor, 10)
        self._wake()

    def _wake(self) -> None:
        for container in self.station.containers.values():
            container.unpause("the end")
            container.suspension.resume("the end")

    async def onlyLasting(self) -> None:
        """
        What was made for a connection's time has gone with it.

        As soon as its end is seen: those who came last may still have to be accepted.
        """

        def passing() -> list[str]:
            found: list[str] = []
            for container in self.station.containers.values():
                found += (source.name for source in container.sources)
                found += container.sources.locks.held
            return [name for name in found if name.endswith(PASSING) or name == "wake locks"]

        await self.until(lambda: not passing())

    async def removeAll(self, pool: Pool) -> None:
        """What was made for the service's time goes the way it came."""
        for name, container in self.station.containers.items():
            for fd in pool.made:
                await self.call("RemoveWakeSource", fd, container=name)
            for lock in list(container.sources.locks.held):
                await self.call("ReleaseWakeLock", container=name, name=lock)
            for alarm in list(container.alarms.all()):
                await self.call("WakeAt", container=name, name=alarm)
            # Of alarms that went off: for a second, and nobody can end them.
            container.sources.locks.releaseAll(container.alarms)


@asynccontextmanager
async def fuzzed(
    reactor: ChanproxyReactor, places: Sequence[str]
) -> AsyncIterator[tuple[Fuzzed, Pool]]:
    """A service, under watch: what comes to it has to go again, while it runs and at its end."""
    with tempfile.TemporaryDirectory() as directory, nothingCritical(), nothingLeft(reactor):
        entry = AccessEntry("stranger", users=(STRANGER,), containers=("editor",))
        station = Station(reactor, Path(directory), [entry], messageBytes=MESSAGE_BYTES)
        os.chmod(directory, 0o711)
        os.chmod(station.path, 0o666)
        all_ = Fuzzed(reactor, station)
        try:
            for name in station.containers:
                # What they need to sleep they keep.
                await all_.call("SuspendContainer", container=name, timeout=0)
            await until(reactor, lambda: closer.drain(0))
            before, calls = set(openDescriptors()), set(reactor.getDelayedCalls())

            def settled() -> bool:
                more = set(reactor.getDelayedCalls()) - calls
                return not more and set(openDescriptors()) <= before

            with nothingLeft(reactor):
                with Pool(*places) as pool:
                    all_.talkers += map(all_.newcomer, range(TALKERS))
                    yield all_, pool
                    await all_.answered()
                    await all_.served()
                    await all_.disconnect()
                    await all_.onlyLasting()
                    await all_.removeAll(pool)
                # Proxies end with the pool's ends of their channels.
                await turns(reactor, 10)
                await all_.served()
                # Whoever had taken more than its share is seen to have gone when it has its turn.
                # The closer's own look, half a second later, is none of theirs.
                closer.watchedBy(None)
                await until(reactor, settled)
        finally:
            all_.close()
            await station.close()


async def fuzz(reactor: ChanproxyReactor, packets: st.SearchStrategy[Packet]) -> None:
    """Send packets, from clients that come and go."""

    async def example(happening: list[Step]) -> None:
        async with fuzzed(reactor, places) as (all_, pool):
            for number, step, settle in happening:
                all_.take(number, step, pool)
                if settle:
                    await all_.served()

    # In a thread, because hypothesis waits for each example.
    @settings(database=None, max_examples=EXAMPLES)
    @given(steps(packets))
    def examples(happening: list[Step]) -> None:
        inReactor(reactor, example(happening))

    with ExitStack() as stack:
        places: list[str] = []
        if not cannotStick():
            for mute in ((), ("getattr", "statfs", "poll")):
                places.append(stack.enter_context(fileSystem(mute)).file)
        await deferToThread(examples)


@pytest.mark.skipif(os.geteuid() != 0, reason="some kinds of descriptors take root")
@pytest.mark.parametrize("kind", list(ODDITIES))
def test_oddity(kind: str) -> None:
    """Each kind of descriptor can be made, or the others show less than they say."""
    try:
        made = ODDITIES[kind]()
    except OSError as error:
        # A kernel that has none, as before memfd_secret(2) was for everybody.
        if error.errno not in (errno.ENOSYS, errno.EAFNOSUPPORT):
            raise
    else:
        os.close(made)


@asynchronous
async def test_anything(reactor: ChanproxyReactor) -> None:
    """Bytes and JSON of all kinds, with descriptors of all kinds, and a call here and there."""
    await fuzz(reactor, PACKETS)


@asynchronous
async def test_calls(reactor: ChanproxyReactor) -> None:
    """Calls that are right, or nearly so."""
    await fuzz(reactor, wellMeant())


def _packet(method: str, *kinds: str, **flags: bool) -> Packet:
    return Packet(_call(f"{MANAGER}.{method}", {"container": "editor"}, flags), kinds)


@asynchronous
async def test_watcherSendsItself(reactor: ChanproxyReactor) -> None:
    """A watcher's own end, waiting in the service's queue, does not keep its connection open."""
    async with fuzzed(reactor, ()) as (all_, pool):
        all_.take(0, _packet("RegisterWakeWatcher", more=True), pool)
        await all_.served()
        all_.take(0, _packet("Describe", ITSELF), pool)
        all_.take(0, Packet(b" " * 2 * MESSAGE_BYTES, [ITSELF]), pool)
        await all_.served()


@asynchronous
async def test_watcherListensOnly(reactor: ChanproxyReactor) -> None:
    """A watcher that has shut down its sending is told as ever."""
    async with fuzzed(reactor, ()) as (all_, pool):
        watcher = all_.talkers[0]
        all_.take(0, _packet("RegisterWakeWatcher", more=True), pool)
        all_.take(0, "finish", pool)
        await all_.until(lambda: watcher.watching)
        before = list(watcher.changes)
        await all_.call("SuspendContainer", container="editor", timeout=0)
        await all_.until(lambda: len(watcher.changes) == len(before) + 2)
        assert watcher.changes[len(before) :] == [("asleep", ""), ("awake", "timeout")]
