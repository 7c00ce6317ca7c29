"""A container that is paused: nothing wakes it until it is unpaused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.outcomes import AlreadySuspended, Paused, Resumed, SuspendFailure
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from tests.container.test_suspension import outcome

LINGER, LIMIT = 1.0, 8.0


class World:
    """A container whose freezer does what it is told, and a channel's counter."""

    def __init__(self, mode: str) -> None:
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer(manual=True)
        self.container = Container(
            cast(ChanproxyReactor, self.reactor),
            "web",
            self.freezer,
            mode,
            around=Surroundings(recorded=False),
            bounds=Bounds(linger=LINGER, freezeLimit=LIMIT),
        )
        self.counter = MessageCounter(self.reactor)
        self.container.sources.add("messages", self.counter)
        self.container.start()
        self.states: list[str] = []
        self.container.suspension.addWatcher(lambda state, reasons: self.states.append(state))

    @property
    def state(self) -> str:
        return self.container.suspension.state

    def pause(self) -> None:
        result = outcome(self.container.pause("root"))
        if self.freezer.freezing:
            assert result == []
            self.freezer.finishFreeze()
        assert result == [None]
        assert self.state == "asleep"
        assert self.container.suspension.paused is not None

    def sleep(self) -> list[Resumed | BaseException]:
        result = outcome(self.container.suspend())
        self.freezer.finishFreeze()
        assert self.state == "asleep"
        return result

    def close(self) -> None:
        self.freezer.thawError = None
        self.container.stop()
        self.counter.close()
        assert not self.freezer.frozen
        assert self.reactor.getDelayedCalls() == []


@pytest.fixture(params=["manual", "auto", "off"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param)
    yield made
    made.close()


@pytest.fixture
def manual() -> Iterator[World]:
    made = World("manual")
    yield made
    made.close()


def test_nothingWakes(world: World) -> None:
    """Neither messages, nor locks, nor alarms, nor who asks; and all are there afterwards."""
    world.pause()
    world.counter.add(3)
    world.container.alarms.set("alarm", 1.0)
    world.container.sources.locks.acquire("lock", None, world)
    (refused,) = outcome(world.container.resume("me"))
    assert isinstance(refused, Paused)
    assert str(refused) == "it is paused by root"
    world.container.suspension.resume("me")
    world.reactor.run(1000)
    assert world.state == "asleep"
    assert world.freezer.frozen
    result = outcome(world.container.unpause("chanproxy unpause (root)"))
    world.reactor.run(0)
    assert result == [None]
    assert world.state == "awake"
    assert world.container.suspension.paused is None
    assert world.counter.value() == 3
    assert world.container.suspension.statistics.wokenBy == "chanproxy unpause (root)"
    # All of this keeps it awake still.
    world.reactor.run(1000)
    assert world.state == "awake"


def test_works(world: World) -> None:
    """With work in its hands, it is stopped as it is."""
    world.counter.add(1)
    world.pause()
    assert world.counter.value() == 1


def test_sleepsOn(manual: World) -> None:
    """One that sleeps is not woken for it; who has asked for its sleep is answered at the end."""
    slept = manual.sleep()
    calls = list(manual.freezer.calls)
    manual.pause()
    assert manual.freezer.calls == calls
    manual.counter.add(1)
    manual.reactor.run(60)
    assert slept == []
    manual.container.unpause("dawn")
    manual.reactor.run(0)
    (result,) = slept
    assert isinstance(result, Resumed)
    assert result.reasons == ("dawn",)


def test_timesDoNotWake(manual: World) -> None:
    """Nor does the time limit of its sleep."""
    outcome(manual.container.suspend(5))
    manual.freezer.finishFreeze()
    manual.pause()
    assert manual.container.suspension.times == []
    manual.reactor.run(60)
    assert manual.state == "asleep"


def test_onItsWayToSleep(manual: World) -> None:
    """It is stopped all the same, and who wanted it to sleep hears why it does not."""
    slept = outcome(manual.container.suspend())
    paused = outcome(manual.container.pause("root"))
    (error,) = slept
    assert isinstance(error, SuspendFailure)
    manual.reactor.run(0)
    manual.freezer.finishFreeze()
    assert paused == [None]


def test_sleepsAgainAfterwards() -> None:
    """Unpaused and idle, it falls asleep as ever."""
    world = World("auto")
    try:
        world.pause()
        world.reactor.run(60)
        outcome(world.container.unpause("dawn"))
        world.reactor.run(LINGER * 2)
        assert world.freezer.freezing
        world.freezer.finishFreeze()
        assert world.state == "asleep"
        world.counter.add(1)
        world.reactor.turn()
        assert world.state == "awake"
    finally:
        world.close()


def test_looksNoMore() -> None:
    """While it is paused nothing is looked at again and again."""
    world = World("auto")
    try:
        world.pause()
        world.reactor.run(1)
        assert world.reactor.getDelayedCalls() == []
    finally:
        world.close()


def test_pausedOnce(world: World) -> None:
    """Who comes second changes nothing; and unpaused, nobody has to do that."""
    world.pause()
    assert outcome(world.container.pause("somebody")) == [None]
    paused = world.container.suspension.paused
    assert paused is not None
    assert paused.by == "root"
    outcome(world.container.unpause("x"))
    assert outcome(world.container.unpause("x")) == [None]


def test_suspendIsRefused(manual: World) -> None:
    """It sleeps already, and nothing would wake it."""
    manual.pause()
    (error,) = outcome(manual.container.suspend())
    assert isinstance(error, Paused)
    (error,) = outcome(manual.container.suspension.suspend())
    assert isinstance(error, AlreadySuspended)
    assert str(error) == "web is asleep, and paused by root"


@pytest.mark.parametrize("second", [False, True])
def test_cannotBeFrozen(world: World, second: bool) -> None:
    """Whoever wants it is told why, and it runs; also within the time that a freeze may take."""
    results = [outcome(world.container.pause("root")) for _ in range(1 + second)]
    if second:
        world.reactor.run(LIMIT)
    else:
        world.freezer.failFreeze("no luck")
    world.reactor.run(0.1)
    for (error,) in results:
        assert isinstance(error, SuspendFailure)
        assert ("no luck" in str(error)) != second
    assert world.container.suspension.paused is None
    assert world.state == "awake"


def test_unpausedMeanwhile(world: World) -> None:
    """Not stopped yet, and not to be any more."""
    paused = outcome(world.container.pause("root"))
    unpaused = outcome(world.container.unpause("me"))
    world.reactor.run(0.1)
    assert unpaused == [None]
    (error,) = paused
    assert isinstance(error, SuspendFailure)
    assert str(error) == "me"
    assert world.state == "awake"


def test_thawedBySomebodyElse(world: World) -> None:
    """Then it runs, and is paused no more."""
    world.pause()
    world.freezer.disturb("thawed by somebody else")
    world.reactor.run(0)
    assert world.state == "awake"
    assert world.container.suspension.paused is None
    assert world.container.suspension.statistics.wokenBy == "thawed by somebody else"


def test_notThawedAtOnce(world: World) -> None:
    """What is unpaused is thawed as soon as that can be."""
    world.pause()
    world.freezer.thawError = FreezerError("not now")
    result = outcome(world.container.unpause("me"))
    world.reactor.run(1)
    assert result == []
    world.freezer.thawError = None
    world.reactor.run(5)
    assert result == [None]


def test_changedMeanwhile(manual: World) -> None:
    """Another configuration does not wake it, and holds when it is unpaused."""
    manual.pause()
    manual.container.change("auto", Bounds(linger=LINGER, freezeLimit=LIMIT), None)
    manual.container.reconfigured()
    manual.reactor.run(60)
    assert manual.state == "asleep"
    outcome(manual.container.unpause("me"))
    manual.reactor.run(2 * LINGER)
    assert manual.freezer.freezing


def test_figures(manual: World) -> None:
    """It counts as asleep: it takes no processor time."""
    manual.pause()
    manual.reactor.run(60)
    outcome(manual.container.unpause("me"))
    statistics = manual.container.suspension.statistics
    assert (statistics.attempts, statistics.successes, statistics.failures) == (1, 1, 0)
    assert manual.states == ["awake", "suspending", "asleep", "resuming", "awake"]


def test_dryRun() -> None:
    """It stops nothing, so it pauses nothing, and that is said."""
    reactor = FakeReactor()
    container = Container(
        cast(ChanproxyReactor, reactor),
        "web",
        FakeFreezer(),
        "dry-run",
        around=Surroundings(recorded=False),
    )
    try:
        (error,) = outcome(container.pause("root"))
        assert isinstance(error, SuspendFailure)
        assert str(error) == "web: a dry run stops nothing (suspend = dry-run)"
        assert container.suspension.paused is None
    finally:
        container.stop()


def test_stopped(tmp_path: Path) -> None:
    """One that is stopped is not paused any more, and is not paused again."""
    world = World("manual")
    world.pause()
    world.counter.add(1)
    world.close()
    (error,) = outcome(world.container.suspension.pause("root"))
    assert isinstance(error, SuspendFailure)
    assert str(error) == "web is stopped"
