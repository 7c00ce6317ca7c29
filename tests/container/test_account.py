"""Account: what a container's sleep was worth, by clocks that only move when they are told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import cast

import pytest

from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.account import BEGIN, Account, Clocks
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.history.figures import (
    HOUR,
    KEPT,
    SECOND,
    WOKE,
    Batch,
    Because,
    Figures,
    HourOf,
    Tally,
    bucketOf,
    together,
)
from chanproxy.wake.history.reasons import MOST, OTHERS
from chanproxy.wake.statistics import SuspendStatistics

NOON = int(time.mktime((2026, 5, 9, 12, 0, 0, 0, 0, -1)))


class Life:
    """
    An account, and the clocks that it goes by.

    @ivar cpu: microseconds that the container has used; None: nobody knows.
    @ivar wall: the time of day.
    """

    def __init__(self, dry: bool = False) -> None:
        self.now = 1000 * SECOND
        self.wall = float(NOON)
        self.cpu: int | None = 0
        self.events = 0
        self.statistics = SuspendStatistics()
        self.tally = Tally()
        self.tally.happened = self._happened
        clocks = Clocks(lambda: self.now, lambda: self.wall)
        self.account = Account("it", self._used, dry, self.statistics, self.tally, clocks)

    def _happened(self) -> None:
        self.events += 1

    def _used(self) -> int:
        if self.cpu is None:
            raise FreezerError("it is not known")
        return self.cpu

    def pass_(self, seconds: float, cpu: float = 0.0) -> None:
        """Let time pass, in which the container uses the processor for some seconds."""
        self.now += int(seconds * SECOND)
        self.wall += seconds
        if self.cpu is not None:
            self.cpu += int(cpu * 1e6)

    def sleep(self, window: float = 0.4, used: float = 0.0) -> None:
        """It becomes quiet, and falls asleep after that."""
        self.account.quiet()
        self.pass_(window, used)
        self.account.stateChanged("suspending", ())
        self.account.stateChanged("asleep", ())

    def breathe(self, used: float = 0.0) -> None:
        """For 10 ms."""
        self.account.stateChanged("breathing", ("breath",))
        self.pass_(0.01, used)
        self.account.stateChanged("refreezing", ())
        self.statistics.breathed(SECOND // 100)
        self.account.stateChanged("asleep", ())

    def wake(self, *reasons: str, latency: int | None = 200_000) -> None:
        """Something wakes it."""
        self.statistics.succeeded(0, 0, "", latency)
        self.account.stateChanged("resuming", reasons)
        self.pass_(0.003)
        self.account.stateChanged("awake", reasons)

    def figures(self, batch: Batch | None = None) -> Figures:
        """All hours together."""
        return together((batch or self.tally.take()).hours.values())


def reasonsOf(batch: Batch, kind: str = WOKE) -> dict[str, tuple[int, int]]:
    """Counts and nanoseconds."""
    return {
        because.reason: (effect.count, effect.time)
        for because, effect in batch.reasons.items()
        if because.kind == kind
    }


def test_asleepAndAwake() -> None:
    """A wake ends a sleep with the thaw, however long it takes until its reason is known."""
    life = Life()
    life.pass_(2)
    life.sleep(window=1)
    life.pass_(10)
    life.wake("it/lsp#3")
    life.pass_(4)
    life.account.accrue()
    batch = life.tally.take()
    figures = life.figures(batch)
    assert (figures.asleep, figures.awake) == (10 * SECOND, 7_003_000_000)
    assert (figures.sleeps, figures.failures) == (1, 0)
    assert reasonsOf(batch) == {BEGIN: (0, 3 * SECOND), "lsp": (1, 4_003_000_000)}
    hour = HourOf(NOON // HOUR, "it", False)
    assert batch.latencies == {(hour, bucketOf(200_000)): 1}
    assert life.events == 2


def test_longSleepIsThereBefore() -> None:
    """What is asleep now has slept until now, and is not counted twice."""
    life = Life()
    life.sleep()
    for _ in range(5):
        life.pass_(60)
        life.account.accrue()
        assert life.figures().asleep == 60 * SECOND
    life.pass_(1)
    life.wake("x")
    figures = life.figures()
    assert (figures.asleep, figures.sleeps) == (SECOND, 1)


def test_hours() -> None:
    """What passes is added to the hour in which it is seen."""
    life = Life()
    life.sleep()
    life.account.accrue()
    life.pass_(3600)
    life.account.accrue()
    batch = life.tally.take()
    assert {key.hour: each.asleep for key, each in batch.hours.items()} == {
        NOON // HOUR: 0,
        NOON // HOUR + 1: 3600 * SECOND,
    }


@pytest.mark.parametrize("jump", [-7200.0, -1e9, 7200.0, 1e9])
def test_clockIsSet(jump: float) -> None:
    """A time of day that jumps changes to which hour something goes, and not how much it is."""
    life = Life()
    life.sleep()
    life.pass_(10)
    life.account.accrue()
    life.wall += jump
    life.pass_(10)
    life.account.accrue()
    life.pass_(10)
    life.wake("x")
    batch = life.tally.take()
    assert life.figures(batch).asleep == 30 * SECOND
    assert {key.hour for key in batch.hours} == {NOON // HOUR, int(life.wall // HOUR)}
    assert life.account.today().figures.asleep <= 30 * SECOND


def test_aborted() -> None:
    """A freeze that is given up is one more, and it was awake all the time."""
    life = Life()
    life.account.quiet()
    life.account.stateChanged("suspending", ())
    life.pass_(1)
    life.account.stateChanged("resuming", ("Abort: no",))
    life.account.stateChanged("awake", ("Abort: no",))
    life.pass_(1)
    life.account.accrue()
    batch = life.tally.take()
    figures = life.figures(batch)
    assert (figures.failures, figures.sleeps, figures.asleep) == (1, 0, 0)
    assert figures.awake == 2 * SECOND
    assert reasonsOf(batch) == {BEGIN: (0, 2 * SECOND)}


def test_idleUse() -> None:
    """What it used from when it was quiet until right before the freeze; else it is awake."""
    life = Life()
    life.pass_(5, cpu=3)
    life.sleep(window=0.5, used=0.01)
    # Until then nobody knows what it had used before.
    assert life.figures().awakeCpu == 0
    life.pass_(10)
    life.wake("x")
    life.pass_(5, cpu=2)
    life.sleep(window=0.5, used=0.02)
    figures = life.figures()
    assert (figures.idleTime, figures.idleCpu) == (SECOND // 2, SECOND // 50)
    assert figures.awakeCpu == int(2.02 * SECOND)


def test_onlyBeforeSleep() -> None:
    """A quiet moment that no sleep follows says nothing about sleep."""
    life = Life()
    life.account.quiet()
    life.pass_(1, cpu=1)
    life.account.stateChanged("suspending", ())
    life.account.stateChanged("resuming", ())
    life.account.stateChanged("awake", ())
    life.account.stateChanged("suspending", ())
    life.account.stateChanged("asleep", ())
    assert life.figures().idleTime == 0


def test_breaths() -> None:
    """They are part of the sleep; what they use is not spared."""
    life = Life()
    for _ in range(20):
        life.sleep(window=0.5, used=0.005)
        life.pass_(50)
        life.breathe(used=0.001)
        life.pass_(49.99)
        life.wake("x")
    life.account.accrue()
    figures = life.figures()
    assert (figures.breaths, figures.breathTime) == (20, SECOND // 5)
    assert figures.asleep == 2000 * SECOND
    assert figures.asleepCpu == SECOND // 50
    assert figures.spared(False) == 20 * SECOND - SECOND // 50


def test_sparesNothing() -> None:
    """Who uses nothing when idle spares nothing, however long it sleeps."""
    life = Life()
    for _ in range(20):
        life.sleep(window=0.5)
        life.pass_(1e5)
        life.wake("x")
    assert life.figures().spared(False) == 0


def test_notKnown() -> None:
    """Without a figure of processor time there is no estimate, and all else goes on."""
    life = Life()
    life.cpu = None
    for _ in range(20):
        life.sleep(window=1)
        life.pass_(100)
        life.breathe()
        life.wake("x")
    figures = life.figures()
    assert figures.spared(False) is None
    assert (figures.sleeps, figures.idleTime, figures.asleepCpu) == (20, 0, 0)


def test_dryRun() -> None:
    """What it uses while it would be asleep is measured; of wakes there is no latency."""
    life = Life(dry=True)
    life.sleep(window=0.5, used=0.5)
    life.pass_(100, cpu=7)
    life.wake("x")
    life.pass_(10, cpu=1)
    life.sleep()
    batch = life.tally.take()
    assert {key.dry for key in batch.hours} == {True}
    figures = life.figures(batch)
    assert figures.spared(True) == figures.asleepCpu == 7 * SECOND
    assert figures.awakeCpu == SECOND
    assert batch.latencies == {}


def test_manyReasons() -> None:
    """Whoever wakes it under thousands of names gets no more than some rows in an hour."""
    life = Life()
    for number in range(10 * MOST):
        life.sleep()
        life.wake(f"lock {number}")
        life.account.accrue(why=f"because of {number}")
        life.pass_(0.001)
        life.account.accrue(why=f"because of {number}")
    batch = life.tally.take()
    woken, kept = reasonsOf(batch), reasonsOf(batch, KEPT)
    # Until the first one it was awake for another reason.
    assert len(woken) == MOST + 1
    assert woken[OTHERS][0] == 9 * MOST + 1
    assert len(kept) == MOST + 1
    assert sum(count for count, _ in woken.values()) == 10 * MOST


def test_keptAwake() -> None:
    """What keeps it awake is what does so when it is asked, for as long as it was awake before."""
    life = Life()
    life.account.accrue(why="it/node[12] is at work")
    life.pass_(60)
    life.account.accrue(why="it/node[12] is at work")
    life.pass_(60)
    life.account.accrue(why="it/node[13] is at work")
    life.sleep()
    life.pass_(60)
    life.account.accrue(why="")
    assert reasonsOf(life.tally.take(), KEPT) == {"node is at work": (0, 120 * SECOND)}


def test_own() -> None:
    """The service's own share."""
    life = Life()
    life.account.accrue(ownCpu=5)
    life.account.accrue(ownCpu=6)
    assert life.figures().ownCpu == 11


def test_today() -> None:
    """It begins when the container comes, and anew at midnight, with no more than there was."""
    life = Life()
    assert life.account.today().since == NOON
    life.sleep(window=1)
    life.pass_(3600)
    today = life.account.today()
    assert (today.figures.asleep, today.figures.awake) == (3600 * SECOND, SECOND)
    life.wall = NOON + 12 * 3600 + 60
    life.now += 11 * 3600 * SECOND
    today = life.account.today()
    assert today.since == NOON + 12 * 3600
    assert (today.figures.asleep, today.figures.awake) == (60 * SECOND, 0)
    assert life.figures().asleep == 12 * 3600 * SECOND


def test_withoutHistory() -> None:
    """Where nothing is kept, today is known all the same."""
    account = Account("it", lambda: 0, False, SuspendStatistics())
    account.stateChanged("suspending", ())
    account.stateChanged("asleep", ())
    account.stateChanged("resuming", ("x",))
    account.stateChanged("awake", ("x",))
    account.close()
    assert account.today().figures.sleeps == 1


@pytest.fixture
def made() -> Iterator[tuple[FakeReactor, FakeFreezer, Container, Tally]]:
    """A container whose account goes into a tally."""
    reactor, freezer, tally = FakeReactor(), FakeFreezer(), Tally()
    container = Container(
        cast(ChanproxyReactor, reactor),
        "it",
        freezer,
        around=Surroundings(recorded=False, tally=tally),
        bounds=Bounds(linger=1.0),
    )
    container.start()
    yield reactor, freezer, container, tally
    container.stop()


def test_container(made: tuple[FakeReactor, FakeFreezer, Container, Tally]) -> None:
    """A whole container: it is seen idle, sleeps, is woken; the latency is what was measured."""
    reactor, freezer, container, tally = made
    counter = MessageCounter(cast(ChanproxyReactor, reactor))
    try:
        source = container.sources.add("it/lsp#1", counter)
        # The second quiet look is that in which what has been used before is noted.
        reactor.run(0.3)
        freezer.cpu = 5000
        reactor.run(1)
        assert freezer.frozen
        counter.add(1)
        reactor.turn()
        assert not freezer.frozen
        batch = tally.take()
        figures = together(batch.hours.values())
        assert figures.sleeps == 1
        assert figures.asleep > 0
        assert figures.idleCpu == 5_000_000
        assert figures.idleTime > 0
        assert list(batch.latencies.values()) == [1]
        latency = container.suspension.statistics.lastLatency
        assert latency is not None
        assert list(batch.latencies) == [(*list(batch.hours)[:1], bucketOf(latency))]
        assert Because(next(iter(batch.hours)), WOKE, "lsp") in batch.reasons
        container.sources.remove(source)
    finally:
        counter.close()
    # Of what no source has told there is no latency.
    reactor.run(3)
    assert freezer.frozen
    container.resume("enough")
    assert container.suspension.statistics.lastLatency is None
    assert tally.take().latencies == {}


def test_latencyOfABusyFreezer(made: tuple[FakeReactor, FakeFreezer, Container, Tally]) -> None:
    """It goes from when the service sees the source until the freezer has been told."""
    reactor, freezer, container, _ = made
    readable, writable = os.pipe()
    thaw = freezer.thaw

    def slowly() -> object:
        time.sleep(0.02)
        return thaw()

    try:
        container.sources.addDescriptor("pipe", readable, 1)
        reactor.run(2)
        assert freezer.frozen
        freezer.thaw = slowly  # type: ignore[method-assign, assignment]
        os.write(writable, b"x")
        reactor.turn()
        latency = container.suspension.statistics.lastLatency
        assert latency is not None
        assert latency >= 20_000_000
    finally:
        os.close(readable)
        os.close(writable)
