"""The container's side, against a manager on a real control socket."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from chanproxy import guest as package
from chanproxy.config import AccessEntry
from chanproxy.guest import (
    Change,
    Counter,
    CounterError,
    Guest,
    GuestError,
    OwnedCounter,
    Resumed,
    ServiceGone,
    WakeLocksExist,
)
from chanproxy.interfaces import ChanproxyReactor
from support.live import PATIENCE
from tests.shared.managing import gone
from tests.shared.sides import asynchronous, until
from tests.shared.station import Station

T = TypeVar("T")

PACKAGE = Path(package.__file__).parent


@asynccontextmanager
async def guested(
    reactor: ChanproxyReactor, directory: Path, **options: Any
) -> AsyncIterator[tuple[Station, Guest]]:
    """A station, and a guest in its editor; what the guest does belongs into L{away}."""
    station = Station(reactor, directory, **options)
    try:
        with Guest("editor", station.path) as guest:
            yield station, guest
    finally:
        await station.close()


async def away(function: Callable[..., T], *arguments: Any, **more: Any) -> T:
    """In a thread, as the reactor is in this one."""
    return await deferToThread(function, *arguments, **more)


def begun(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Begin it now; its result is for later."""
    return Deferred.fromCoroutine(coroutine)


@pytest.fixture
def outside() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A channel to a peer outside: the end to give to the service, and the peer's."""
    given, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (given, peer):
        end.settimeout(PATIENCE)
    yield given, peer
    given.close()
    peer.close()


Outside = tuple[socket.socket, socket.socket]


@asynchronous
async def test_createFromZero(reactor: ChanproxyReactor, tmp_path: Path, outside: Outside) -> None:
    """starnix: container side: create a proxy for wake events: the counter starts at 0."""
    given, peer = outside
    async with guested(reactor, tmp_path) as (station, guest):
        channel, counter = await away(guest.createProxy, "rpc", given)
        given.close()
        channel.settimeout(PATIENCE)
        with channel, counter:
            assert counter.value() == 0
            assert not station.editor.sources.signalled()
            peer.send(b"one")
            assert await away(channel.recv, 10) == b"one"
            assert counter.value() == 1
            assert [s.name for s in station.editor.sources.signalled()] == ["rpc"]
            counter.handled()
            assert not station.editor.sources.signalled()
            channel.send(b"back")
            assert await away(peer.recv, 10) == b"back"
        assert await away(peer.recv, 10) == b""
        await until(reactor, lambda: not list(station.editor.channels.proxies()))
        assert len(station.editor.sources) == 0


@asynchronous
async def test_createFromOne(reactor: ChanproxyReactor, tmp_path: Path, outside: Outside) -> None:
    """starnix: container side: create a proxy for wake events: awake until the first "handled"."""
    async with guested(reactor, tmp_path) as (station, guest):
        for kind in ("shared", "handled"):
            given, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with given:
                channel, counter = await away(guest.createProxy, kind, given, 1, kind)
            with peer, channel, counter:
                with pytest.raises(WakeLocksExist) as held:
                    await away(guest.suspend, 5)
                assert held.value.names == [kind]
                counter.handled()
                await until(reactor, lambda: not station.editor.sources.signalled())
        with pytest.raises(ValueError, match="from 0 or from 1"):
            guest.createProxy("rpc", outside[0], 2)


@asynchronous
async def test_createRefused(reactor: ChanproxyReactor, tmp_path: Path, outside: Outside) -> None:
    """What the service refuses leaves no descriptor; a shared counter is not given a start."""
    async with guested(reactor, tmp_path) as (_, guest):
        with pytest.raises(package.CallRefused, match="not known") as refused:
            await away(guest.createProxy, "rpc", outside[0], 0, "shared", "for ever")
        assert refused.value.error == "InvalidParameter"
        assert not gone(outside[1].fileno())
        with Counter.make() as counter, pytest.raises(package.CallRefused, match="with its value"):
            await away(
                guest.call,
                "ProxyWakeChannel",
                {"name": "rpc", "initial": 1},
                outside[0].fileno(),
                outside[0].fileno(),
                counter.fileno(),
            )


@pytest.mark.parametrize("kind", ["shared", "handled"])
def test_handled(kind: str) -> None:
    """starnix: container side: mark handled / mark all handled: one is taken off, or one told."""
    with Counter.make(3, kind) as counter:
        assert counter.value() == (3 if kind == "shared" else 0)
        counter.handled()
        counter.handled(2)
        # A shared one stays at zero; who reports may report too much.
        counter.handled()
        assert counter.value() == (0 if kind == "shared" else 4)
    counter.handled()
    counter.close()


def test_handledAll() -> None:
    """starnix: container side: mark handled / mark all handled: the counter is 0."""
    with Counter.make(1000) as counter:
        counter.handledAll()
        assert counter.value() == 0
        counter.handledAll()
    counter.handledAll()
    with (
        Counter.make(kind="handled") as reports,
        pytest.raises(CounterError, match="mark each as handled"),
    ):
        reports.handledAll()


def test_blockingCounter() -> None:
    """A counter that its maker made a blocking one is read without waiting all the same."""
    with Counter(os.eventfd(1, os.EFD_SEMAPHORE)) as counter:
        assert counter.kind == "shared"
        counter.handled(3)
        assert counter.value() == 0


@pytest.mark.parametrize("kind", ["shared", "handled"])
def test_closedCounter(kind: str) -> None:
    """What a closed counter cannot do any more says that; marking as handled stays harmless."""
    counter = Counter.make(0, kind)
    counter.close()
    asked: list[Callable[[], object]] = [counter.value, counter.add, counter.__enter__]
    for ask in asked:
        with pytest.raises(CounterError, match=r"^the counter is closed$"):
            ask()
    for mark in (counter.handled, counter.handledAll, counter.giveUp, counter.close):
        mark()
    assert counter.fileno() == -1


def test_noCounter() -> None:
    """What is no counter is refused, and stays the caller's."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(CounterError, match="is no eventfd"):
            Counter(reading)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(CounterError, match="is not open"):
        Counter(reading)


@asynchronous
async def test_inherited(reactor: ChanproxyReactor, tmp_path: Path, outside: Outside) -> None:
    """A child that inherits the counter's descriptor marks for its parent."""
    script = "import sys; from chanproxy.guest import Counter; Counter(int(sys.argv[1])).handled(2)"
    async with guested(reactor, tmp_path) as (_, guest):
        channel, counter = await away(guest.createProxy, "rpc", outside[0])
        with channel, counter:
            for _ in range(3):
                outside[1].send(b"x")
            await until(reactor, lambda: counter.value() == 3)
            number = counter.fileno()
            os.set_inheritable(number, True)
            argv = [sys.executable, "-c", script, str(number)]
            await away(subprocess.run, argv, pass_fds=[number], check=True, timeout=20)
            assert counter.value() == 1


@asynchronous
async def test_openCounter(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The counter of an explicit channel, for who is trusted with it and for who is not."""
    async with guested(reactor, tmp_path) as (station, guest):
        kept = station.editor.channels.keepCounter("rpc")
        kept.add(5)
        with await away(guest.openCounter, "rpc") as counter:
            assert (counter.kind, counter.value()) == ("shared", 5)
            counter.handled()
            assert kept.value() == 4
        with await away(guest.openCounter, "rpc", "handled") as reports:
            assert reports.kind == "handled"
            reports.handled(3)
            await until(reactor, lambda: kept.value() == 1)
            reports.giveUp()
            await until(reactor, lambda: kept.value() == 0)


def test_owned() -> None:
    """starnix: container side: owned counter: 0 when its last owner lets go, also by error."""
    duplicate = Counter.make(7)
    with duplicate:
        owned = OwnedCounter(Counter(os.dup(duplicate.fileno())), "rpc")
        assert owned.name == "rpc"
        with contextlib.suppress(ZeroDivisionError), owned:
            with owned:
                owned.handled()
            assert owned.value() == duplicate.value() == 6
            raise ZeroDivisionError
        assert owned.over
        assert owned.value() == duplicate.value() == 0
        owned.close()
        with pytest.raises(CounterError, match="rpc: its last owner has let go"), owned:
            pass
        with pytest.raises(CounterError, match="rpc: its last owner has let go"):
            owned.share()


def test_ownedReports() -> None:
    """The last owner of a place for reports reports more than there can be; adding is refused."""
    with Counter.make(kind="handled") as reports:
        with OwnedCounter(Counter(os.dup(reports.fileno())), "rpc") as owned:
            with pytest.raises(CounterError, match="take a wake lock"):
                owned.share(pending=True)
            owned.handled()
            assert reports.value() == 1
        assert reports.value() > 2**60


def test_shared() -> None:
    """starnix: container side: shared counter: each token handles one, wherever it ends up."""
    with Counter.make(2) as kept, OwnedCounter(Counter(os.dup(kept.fileno())), "rpc") as owned:
        token = owned.share()

        def work() -> None:
            with contextlib.suppress(ZeroDivisionError), token:
                raise ZeroDivisionError

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        assert kept.value() == 1
        token.release()
        assert kept.value() == 1
        with owned.share(pending=True):
            assert kept.value() == 2
        assert kept.value() == 1
        # One that nobody keeps.
        owned.share()
        gc.collect()
        assert kept.value() == 0


def test_sharedWithoutOwner() -> None:
    """starnix: container side: shared counter: if the owner is gone, nothing happens."""
    with Counter.make(3) as kept:
        with OwnedCounter(Counter(os.dup(kept.fileno())), "rpc") as owned:
            token = owned.share()
        kept.add(2)
        with token:
            pass
        assert kept.value() == 2


@asynchronous
async def test_wakeLocks(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """starnix: container side: wake locks: by name; active ones are known to the runner."""
    async with guested(reactor, tmp_path) as (station, guest):
        locks = station.editor.sources.locks

        def work() -> None:
            with guest.wakeLock("job"), contextlib.suppress(ZeroDivisionError):
                with guest.wakeLock("job"):
                    pass
                assert list(locks.held) == ["job"]
                with guest.wakeLock("other"):
                    raise ZeroDivisionError

        await away(work)
        assert not locks.held
        await away(guest.acquireWakeLock, "job")
        with pytest.raises(WakeLocksExist, match="job") as held:
            await away(guest.suspend, 5)
        assert held.value.names == ["job"]
        await away(guest.releaseWakeLock, "job")
        with pytest.raises(package.CallRefused, match="is not held"):
            await away(guest.releaseWakeLock, "job")
        await away(guest.acquireWakeLock, "job")
        guest.close()
        await until(reactor, lambda: not locks.held)


@asynchronous
async def test_wakeLockExpires(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """starnix: container side: wake locks: an optional timeout expires them."""
    async with guested(reactor, tmp_path) as (station, guest):
        locks = station.editor.sources.locks

        def work() -> None:
            with guest.wakeLock("job", timeout=0.5):
                assert list(locks.held) == ["job"]
                deadline = time.monotonic() + PATIENCE
                while locks.held:
                    assert time.monotonic() < deadline
                    time.sleep(0.005)

        await away(work)
        (job,) = locks.all()
        assert (job.name, job.statistics.expireCount) == ("job", 1)


@asynchronous
async def test_sourceStatistics(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """starnix: container side: wake-up sources' statistics: all eight figures of each source."""
    async with guested(reactor, tmp_path) as (_, guest):

        def work() -> dict[str, Any]:
            guest.acquireWakeLock("expired", timeout=0.01)
            for _ in range(3):
                with guest.wakeLock("job"):
                    pass
            guest.acquireWakeLock("held")
            deadline = time.monotonic() + PATIENCE
            while True:
                assert time.monotonic() < deadline
                sources = {source["name"]: source for source in guest.describe()["sources"]}
                if sources["expired"]["expire_count"]:
                    return sources

        sources = await away(work)
        job, held = sources["job"], sources["held"]
        assert (job["active_count"], job["event_count"], job["active_since"]) == (3, 3, 0)
        assert job["total_time"] >= job["max_time"] > 0
        assert (held["active"], held["active_count"], job["active"]) == (True, 1, False)
        assert held["active_since"] >= job["last_change"] > 0
        assert held["wakeup_count"] == 0


@asynchronous
async def test_suspend(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """starnix: container side: suspend statistics: counts, last reasons, time, last events."""
    async with guested(reactor, tmp_path) as (station, guest):
        reading, writing = os.pipe()
        try:
            await away(guest.addWakeSource, "pipe", reading)
            answer = begun(away(guest.suspend, 20))
            await until(reactor, lambda: station.editor.suspension.state == "asleep")
            os.write(writing, b"x")
            resumed = await answer
            assert (resumed.reason, resumed.reasons) == ("pipe", ("pipe",))
            assert resumed.asleep > 0
            with pytest.raises(WakeLocksExist):
                await away(guest.suspend, 5)
            statistics = (await away(guest.describe))["statistics"]
            assert (statistics["success_count"], statistics["fail_count"]) == (1, 1)
            assert statistics["last_failure"] == "pipe"
            assert statistics["last_resume_reason"] == "Abort: pipe"
            assert statistics["last_suspend_time"] == resumed.asleep
            events = (await away(guest.describe))["events"]
            assert [(e["kind"], e["reason"]) for e in events] == [
                ("attempt", ""),
                ("resume", "pipe"),
                ("attempt", ""),
                ("fail", "pipe"),
            ]
            await away(guest.removeWakeSource, reading)
            assert (await away(guest.suspend, 0.01)).reason == "timeout"
            with pytest.raises(package.CallRefused, match="no wake source"):
                await away(guest.removeWakeSource, reading)
        finally:
            os.close(reading)
            os.close(writing)


@asynchronous
async def test_suspendOnce(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """While somebody else suspends, and when the freezer cannot, the guest is told so."""
    async with guested(reactor, tmp_path) as (station, guest):
        freezer = station.freezers["editor"]
        freezer.manual = True
        first = begun(away(guest.suspend, 5))
        await until(reactor, lambda: freezer.freezing)
        with pytest.raises(package.AlreadySuspended, match="is suspending already"):
            await away(guest.suspend, 5)
        freezer.failFreeze("stuck")
        with pytest.raises(package.SuspendFailure, match="stuck"):
            await first


@asynchronous
async def test_wakeLocksDescriptor(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A descriptor of locks that only the guest knows keeps it from being suspended."""
    async with guested(reactor, tmp_path) as (_, guest):
        with Counter.make(1) as locks:
            with pytest.raises(WakeLocksExist) as held:
                await away(guest.suspend, 5, locks.fileno())
            assert held.value.names == ["wake locks"]
            locks.handledAll()
            assert (await away(guest.suspend, 0.01, locks.fileno())).reason == "timeout"


@asynchronous
async def test_wakeAt(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A time of day wakes it, under the alarm's name; one that was taken back does not."""
    async with guested(reactor, tmp_path) as (_, guest):
        await away(guest.wakeAt, time.time() + 1, "tea")
        resumed = await away(guest.suspend, 20)
        assert resumed.reason == "tea"
        await away(guest.wakeAt, time.time() + 20)
        assert [alarm["name"] for alarm in (await away(guest.describe))["alarms"]] == ["alarm"]
        await away(guest.cancelWakeAt)
        await away(guest.cancelWakeAt)
        assert (await away(guest.describe))["alarms"] == []


@asynchronous
async def test_watch(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The present state, then each change with its reason; and the end of the service."""
    async with guested(reactor, tmp_path) as (station, guest):
        with await away(guest.watch) as watch:
            assert await away(next, watch) == Change("awake")
            assert await away(guest.suspend, 0.01) == Resumed(
                station.editor.suspension.statistics.lastAsleep, ("timeout",)
            )
            assert await away(next, watch) == Change("asleep")
            assert await away(next, watch) == Change("awake", ("timeout",))
            station.factory.closeAll()
            with pytest.raises(ServiceGone, match="has gone or was restarted"):
                await away(next, watch)
        assert watch.fileno() == -1
        with pytest.raises(GuestError, match="the watch is closed; ask for another one"):
            next(watch)


@asynchronous
async def test_watchByPipe(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The same as lines, without a connection of its own; it ends with the container."""
    async with guested(reactor, tmp_path) as (station, guest):
        pipe = await away(guest.watchByPipe)
        try:
            assert await away(os.read, pipe, 100) == b"awake\n"
            assert guest.connected == 1
            await away(guest.suspend, 0.01)
            assert await away(os.read, pipe, 100) == b"asleep\nawake timeout\n"
            station.editor.watchers.close()
            assert await away(os.read, pipe, 100) == b""
        finally:
            os.close(pipe)


@asynchronous
async def test_serviceRestarted(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A guest whose service was restarted is told so once, and its work goes on."""
    station = Station(reactor, tmp_path)
    given, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Guest("editor", station.path) as guest, given, peer:
        channel, counter = await away(guest.createProxy, "rpc", given)
        with channel, OwnedCounter(counter, "rpc") as owned:
            lock = guest.wakeLock("job")
            await away(lock.__enter__)
            peer.send(b"last")
            await until(reactor, lambda: owned.value() == 1)
            await station.close()
            assert await away(channel.recv, 10) == b"last"
            assert await away(channel.recv, 10) == b""
            with pytest.raises(ServiceGone, match="Set CHANPROXY_CONTROL"):
                await away(guest.describe)
            with pytest.raises(ServiceGone, match="is the service running"):
                await away(guest.suspend, 5)
            owned.share().release()
            assert owned.value() == 0
            await away(lock.__exit__, None, None, None)
            station = Station(reactor, tmp_path)
            assert (await away(guest.describe))["state"] == "awake"
            assert not station.editor.sources.locks.held
    await station.close()


@asynchronous
async def test_silentService(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What does not answer, or is no service at all, is as good as gone."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen(4)
        silent = Guest("editor", path, patience=0.05)
        with pytest.raises(ServiceGone, match="does not answer"):
            await away(silent.describe)
        listening.accept()[0].close()
        for packet in (b"[]", b"\xff", b'{"parameters": 5}'):
            with Guest("editor", path, patience=5) as guest:
                waiting = begun(away(guest.describe))
                connection, _ = await away(listening.accept)
                with connection:
                    connection.send(packet)
                    with pytest.raises(ServiceGone, match="no chanproxy"):
                        await waiting


def test_whichContainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment tells the container and the socket, or the caller does."""
    monkeypatch.delenv("CHANPROXY_CONTAINER", raising=False)
    monkeypatch.delenv("CHANPROXY_CONTROL", raising=False)
    with pytest.raises(GuestError, match="set CHANPROXY_CONTAINER"):
        Guest()
    assert Guest("editor").path == "/run/chanproxy/control.sock"
    monkeypatch.setenv("CHANPROXY_CONTAINER", "shop")
    monkeypatch.setenv("CHANPROXY_CONTROL", "@abstract")
    guest = Guest()
    assert (guest.container, guest.path) == ("shop", "@abstract")
    with pytest.raises(ServiceGone, match="@abstract: "):
        guest.describe()


@asynchronous
async def test_notTrusted(reactor: ChanproxyReactor, open_: Path, outside: Outside) -> None:
    """A guest of another user, with access and without trust, reports what it has handled."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    script = """
import os, socket, sys
from chanproxy.guest import CallRefused, Guest
os.setgroups([]); os.setgid(65534); os.setuid(65534)
remote = socket.socket(fileno=int(sys.argv[2]))
with Guest("editor", sys.argv[1]) as guest:
    try:
        guest.createProxy("rpc", remote, 0, "shared")
    except CallRefused as error:
        print(error.error, flush=True)
    channel, counter = guest.createProxy("rpc", remote, 1, "handled")
    remote.close()
    counter.handled()
    print(channel.recv(10).decode(), flush=True)
    counter.handled()
    sys.stdin.read()
"""
    entry = AccessEntry("guests", users=(65534,), containers=("editor",))
    async with guested(reactor, open_, access=[entry]) as (station, _):
        os.chmod(station.path, 0o666)
        given, peer = outside
        os.set_inheritable(given.fileno(), True)
        process = subprocess.Popen(
            [sys.executable, "-c", script, station.path, str(given.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[given.fileno()],
            cwd="/",
            env=dict(os.environ, PYTHONPATH=str(PACKAGE.parent.parent)),
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert await away(process.stdout.readline) == b"PermissionDenied\n"
            peer.send(b"hello")
            assert await away(process.stdout.readline) == b"hello\n"
            await until(reactor, lambda: not station.editor.sources.signalled())
            (proxy,) = station.editor.channels.proxies()
            assert proxy.inbound.messages == 1
        finally:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            process.kill()
            process.wait()


def test_standardLibraryAlone() -> None:
    """Importing it, and its asyncio half, imports nothing from outside the standard library."""
    script = """
import sys
before = set(sys.modules)
import chanproxy.guest, chanproxy.guest.waking
for name in sorted({name.partition(".")[0] for name in set(sys.modules) - before}):
    if name not in sys.stdlib_module_names:
        print(name)
"""
    # Not from a program in this directory: -P and -S leave no other packages to find by accident.
    found = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(PACKAGE.parent.parent)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (found.stdout, found.stderr) == ("chanproxy\n", "")


def test_oldPython() -> None:
    """It runs on Python 3.9: containers are older than hosts."""
    checked = subprocess.run(
        [
            os.path.join(os.path.dirname(sys.executable), "vermin"),
            "--target=3.9-",
            "--no-tips",
            "--violations",
            str(PACKAGE),
            str(PACKAGE.parent / "__init__.py"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout
