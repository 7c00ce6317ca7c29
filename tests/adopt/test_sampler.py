"""Looks at a container that runs: when they are made, a little at a time, and what they find."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import Logger

from chanproxy.adopt import slices
from chanproxy.adopt.deadlines import NotYet, Timed
from chanproxy.adopt.foresight import Foresight
from chanproxy.adopt.observer import Observer
from chanproxy.adopt.reading import Reading
from chanproxy.adopt.restarted import Call, Restarted
from chanproxy.adopt.sampler import INTERVAL, SHARE, Sampler
from chanproxy.adopt.slices import SLICE, Sliced
from chanproxy.adopt.socketlimits import RECEIVING, limitIn, limitOf
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.watchdogs import shortestWatchdog
from chanproxy.interfaces import FreezerError
from support.live import until
from tests.adopt.clocks import OneCallATurn

# Slices.


def steps(count: int, error: BaseException | None = None) -> Generator[None, None, int]:
    """Some work."""
    for _ in range(count):
        yield None
    if error is not None:
        raise error
    return count


def ended(sliced: Sliced[int], clock: Clock) -> object:
    """What it fired with, after as many turns as it takes."""
    found: list[object] = []
    sliced.result.addCallbacks(found.append, lambda failure: found.append(failure.value))
    while not found:
        clock.advance(0)
    assert clock.getDelayedCalls() == []
    return found[0]


def test_slicesShort(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done within a slice is done at once."""
    # Whatever else runs here meanwhile, it is within.
    monkeypatch.setattr(slices, "SLICE", 60.0)
    clock = Clock()
    found: list[int] = []
    Sliced(clock, steps(3)).result.addCallback(found.append)
    assert found == [3]
    assert clock.getDelayedCalls() == []


def test_slicesLong() -> None:
    """What takes longer lets others have their turn; no slice takes much longer than it may."""
    clock = Clock()
    turns = []

    def long() -> Generator[None, None, int]:
        for _ in range(20):
            time.sleep(SLICE / 4)
            turns.append(clock.seconds())
            yield None
        return 7

    sliced = Sliced(clock, long())
    assert 1 <= len(turns) <= 5
    assert len(clock.getDelayedCalls()) == 1
    assert ended(sliced, clock) == 7
    assert len(turns) == 20


def test_slicesOfMany() -> None:
    """However many there are, a turn is not longer; what somebody is held for comes first."""
    clock = OneCallATurn()
    turns: list[tuple[str, float]] = []

    def work(name: str) -> Generator[None, None, str]:
        for _ in range(3):
            time.sleep(SLICE / 2)
            turns.append((name, clock.seconds()))
            yield None
        return name

    names = [f"{number}" for number in range(8)]
    ended: list[str] = []
    for name in names:
        Sliced(clock, work(name)).result.addCallback(ended.append)
    Sliced(clock, work("held"), held=True).result.addCallback(ended.append)
    now = 0
    while clock.getDelayedCalls():
        now += 1
        clock.advance(1)
    assert sorted(ended) == sorted([*names, "held"])
    assert max(Counter(at for _, at in turns).values()) <= 3
    # It had to wait for the one that had begun before it, at most.
    assert "held" in ended[:2]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StillBusy("busy: a"), "busy: a"),
        (NotYet("a is over in 1 s", 1.0), "a is over in 1 s"),
        (OSError(errno.EMFILE, "Too many open files"), "it cannot be looked into: .*Too many"),
        (FreezerError("no such cgroup"), "it cannot be looked into: no such cgroup"),
    ],
)
def test_slicesFail(error: Exception, text: str) -> None:
    """Whatever goes wrong outside is a reason to stay awake."""
    clock = Clock()
    found = ended(Sliced(clock, steps(2, error)), clock)
    assert isinstance(found, StillBusy | NotYet)
    with pytest.raises(type(found), match=text):
        raise found


def test_slicesBug(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in here is logged, and no reason to sleep either."""
    heard: list[object] = []
    monkeypatch.setattr(Sliced, "_log", Logger(observer=heard.append))  # type: ignore[arg-type]  # a plain one
    clock = Clock()
    assert isinstance(ended(Sliced(clock, steps(2, KeyError("x"))), clock), KeyError)
    assert len(heard) == 1


def test_slicesCancelled() -> None:
    """Cancelled in between, it gives back what it has."""
    clock = Clock()
    closed: list[bool] = []

    def held() -> Generator[None, None, int]:
        try:
            while True:
                time.sleep(SLICE / 2)
                yield None
        finally:
            closed.append(True)

    result = Sliced(clock, held()).result
    told: list[object] = []
    result.addErrback(lambda failure: told.append(failure.type))
    assert closed == []
    result.cancel()
    assert (closed, told) == ([True], [CancelledError])
    assert clock.getDelayedCalls() == []


# The sampler.


class Looks:
    """In place of what it looks with."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.used: int | Exception = 0
        self.rounds = self.quiet = self.closed = 0
        self.work: Callable[[], bool] = lambda: False
        self.sampler = Sampler(
            self.clock,
            cast(Observer, self),
            cast(Foresight, self),
            self._cpuTime,
        )

    def start(self) -> None:
        """Start the sampler, and let it do what is due."""
        self.sampler.start()
        self.advance(0)

    def advance(self, seconds: float) -> None:
        """
        Let time pass, and let it do what is due.

        A slice is of the machine's time: what is short may take several turns, if somebody else
        had the processor in between.
        """
        self.clock.advance(seconds)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def _cpuTime(self) -> int:
        if isinstance(self.used, Exception):
            raise self.used
        return self.used

    def roundDone(self, now: int) -> None:
        """As the observer's."""
        assert now <= time.monotonic_ns()
        self.quiet += 1

    def round(self, refuse: bool) -> Generator[None, None, list[Timed]]:
        """As the foresight's."""
        assert not refuse
        self.rounds += 1
        try:
            while self.work():
                yield None
        finally:
            self.closed += 1
        return []


@pytest.fixture
def looks() -> Iterator[Looks]:
    """Stopped at the end, with nothing left."""
    looks = Looks()
    yield looks
    looks.sampler.stop()
    looks.sampler.stop()
    assert looks.clock.getDelayedCalls() == []
    assert looks.closed == looks.rounds


def test_sampling(looks: Looks) -> None:
    """A round whenever anything has run, and only then."""
    looks.start()
    looks.start()
    assert (looks.rounds, looks.quiet) == (1, 0)
    for _ in range(5):
        looks.advance(INTERVAL)
    assert (looks.rounds, looks.quiet) == (1, 5)
    looks.used = 10
    for _ in range(5):
        looks.advance(INTERVAL)
    assert (looks.rounds, looks.quiet) == (2, 9)


def test_samplingAgain(looks: Looks) -> None:
    """Stopped it looks no more; started again, at once."""
    looks.start()
    looks.sampler.stop()
    assert looks.clock.getDelayedCalls() == []
    looks.advance(10)
    assert looks.rounds == 1
    looks.start()
    assert looks.rounds == 2


@pytest.mark.parametrize("error", [FreezerError("gone"), OSError(2, "gone")])
def test_samplingUnknown(looks: Looks, error: Exception) -> None:
    """Where it is not known how much it has used, each time."""
    looks.used = error
    looks.start()
    for _ in range(3):
        looks.advance(INTERVAL)
    assert (looks.rounds, looks.quiet) == (4, 0)


def test_samplingDear(looks: Looks) -> None:
    """What costs much is done seldom."""

    def work() -> bool:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return False

    looks.work = work
    looks.start()
    (call,) = looks.clock.getDelayedCalls()
    assert call.getTime() - looks.clock.seconds() >= 0.02 / SHARE


def test_samplingStopped(looks: Looks) -> None:
    """Stopped within a round, which takes several turns."""
    looks.work = lambda: True
    looks.sampler.start()
    assert (looks.rounds, looks.closed) == (1, 0)
    assert len(looks.clock.getDelayedCalls()) == 1
    looks.sampler.stop()
    assert looks.closed == 1


def test_samplingFails(looks: Looks) -> None:
    """A round that fails is one; it goes on."""

    def fail() -> bool:
        raise OSError(errno.EACCES, "Permission denied")

    looks.work = fail
    looks.start()
    looks.used = 1
    looks.advance(INTERVAL)
    assert looks.rounds == 2


# Watchdogs.


class _Member:
    """As much of a subject as is asked for."""

    def __init__(self, value: str | None) -> None:
        environment = {"PATH": os.environ["PATH"]}
        if value is not None:
            environment["WATCHDOG_USEC"] = value
        self.process = subprocess.Popen(["sleep", "1000"], env=environment)
        self.pid = self.process.pid
        # For a moment it has none yet.
        until("environment", Path(f"/proc/{self.pid}/environ").read_bytes)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize(
    ("values", "shortest"),
    [
        ([None], None),
        (["4000000"], 4.0),
        ([None, "4000000", "250000"], 0.25),
        (["0", "", "soon", "-5", "1e6"], None),
    ],
)
def test_watchdogs(values: list[str | None], shortest: float | None) -> None:
    """The shortest time of all members; what is none is passed over."""
    members = [_Member(value) for value in values]
    for _ in range(2):
        assert shortestWatchdog(cast(list[Subject], members), Reading()) == shortest
    for member in members:
        member.close()
    # Gone, they ask for nothing.
    assert shortestWatchdog(cast(list[Subject], members), Reading()) is None
    assert shortestWatchdog([], Reading()) is None


# Limits of sockets.


@pytest.mark.parametrize("call", [*sorted(RECEIVING), "connect"])
def test_socketLimits(call: str) -> None:
    """For receiving and for connecting there is one each; of our own and of another process."""
    option = socket.SO_SNDTIMEO if call == "connect" else socket.SO_RCVTIMEO
    ours, theirs = socket.socketpair()
    pidfd = os.pidfd_open(os.getpid())
    with ours, theirs:
        assert limitOf(ours.fileno(), call) is None
        ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("qq", 12, 500_000))
        found = limitOf(ours.fileno(), call)
        assert found is not None
        # The kernel counts in ticks, up to 10 ms.
        assert 12_500_000_000 <= found <= 12_510_000_000
        assert limitIn(pidfd, ours.fileno(), call) == found
        assert limitOf(theirs.fileno(), call) is None
        assert limitOf(ours.fileno(), "sendto") is None
        assert limitIn(pidfd, ours.fileno(), "sendto") is None
        number = theirs.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        limitIn(pidfd, number, call)
    assert limitOf(pidfd, call) is None
    os.close(pidfd)


# Calls that are restarted.


def test_restarted() -> None:
    """Known by thread and arguments, until the thread is in another call, or its process gone."""
    restarted = Restarted()
    call = Call((1, 2, 3), "poll", 5)
    restarted.remember(7, 8, call)
    assert restarted.of(7, 8, [1, 2, 3]) is call
    assert restarted.of(7, 8, [1, 2, 4]) is None
    assert restarted.of(7, 9, [1, 2, 3]) is None
    restarted.keepOnly({7})
    assert restarted.of(7, 8, (1, 2, 3)) is call
    restarted.forget(7, 8)
    restarted.forget(7, 8)
    assert restarted.of(7, 8, (1, 2, 3)) is None
    restarted.remember(7, 8, call)
    restarted.keepOnly({8})
    assert restarted.of(7, 8, (1, 2, 3)) is None
