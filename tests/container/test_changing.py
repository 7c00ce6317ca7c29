"""A container whose settings change in each of its states, in a time that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import attrs
import pytest
from twisted.logger import capturedLogs, formatEvent

from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.changes import AFTER, GRACE
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.testing.fakefreezer import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.locks import TooManyWakeLocks

LINGER = 1.0

BOUNDS = Bounds(linger=LINGER, signalInterval=0, freezeWarning=5, freezeLimit=20)


class World:
    """One container, which is suspended by itself."""

    def __init__(self, manual: bool) -> None:
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer("fake:a", manual=manual)
        self.container = Container(
            cast(ChanproxyReactor, self.reactor),
            "a",
            self.freezer,
            bounds=BOUNDS,
            around=Surroundings(recorded=False),
        )
        self.container.start()
        self.heard: list[tuple[str, ...]] = []
        self.container.suspension.addWatcher(lambda *told: self.heard.append((told[0], *told[1])))
        del self.heard[:]

    @property
    def state(self) -> str:
        return self.container.suspension.state

    def change(self, mode: str = "auto", **bounds: Any) -> None:
        """Other settings."""
        self.container.change(mode, attrs.evolve(BOUNDS, **bounds), None)

    def close(self) -> None:
        self.freezer.thawError = None
        self.container.stop()
        assert self.reactor.getDelayedCalls() == []


@pytest.fixture
def world() -> Iterator[World]:
    """One whose freezer is quick."""
    world = World(manual=False)
    yield world
    world.close()


@pytest.fixture
def slow() -> Iterator[World]:
    """One whose freezer waits for the test."""
    world = World(manual=True)
    yield world
    world.close()


def test_nothing(world: World) -> None:
    """The same settings change nothing, in whatever state."""
    world.change()
    world.reactor.run(LINGER / 2)
    world.change()
    world.reactor.run(LINGER / 2 + 0.001)
    assert world.state == "asleep"
    world.change()
    assert (world.heard, world.freezer.calls.count("thaw")) == ([("suspending",), ("asleep",)], 0)


def test_lingerAwake(world: World) -> None:
    """A shorter time begins at once, and so does a longer one."""
    world.change(linger=0.1)
    assert world.container.linger == 0.1
    world.reactor.run(0.1 - 1e-6)
    assert world.state == "awake"
    world.reactor.run(1e-5)
    assert world.state == "asleep"
    world.container.resume("test")
    world.change(linger=50)
    world.reactor.run(50 - 1e-6)
    assert world.state == "awake"
    world.reactor.run(1e-5)
    assert world.state == "asleep"


def test_lingerAsleep(world: World) -> None:
    """It sleeps on, and lingers so after that."""
    world.reactor.run(LINGER + 0.001)
    world.change(linger=5)
    assert (world.state, world.freezer.frozen) == ("asleep", True)
    world.container.resume("test")
    world.reactor.run(5 - 1e-6)
    assert world.state == "awake"
    world.reactor.run(1e-5)
    assert world.state == "asleep"


def test_lingerWhileSomethingCounts(world: World) -> None:
    """What counts for the linger time counts for the new one, if that is shorter."""
    world.change(linger=50)
    noticed = world.container.channels.notices("a/c")
    noticed.happened()
    noticed.roomMade()
    world.reactor.run(1)
    assert world.container.sources.signalled()
    world.change(linger=0.5)
    world.reactor.run(0.5 - 1e-6)
    assert world.container.sources.signalled()
    world.reactor.run(1e-5)
    assert not world.container.sources.signalled()
    noticed.happened()
    world.change(linger=50)
    world.reactor.run(0.6)
    assert not world.container.sources.signalled()


def test_boundsAsleep(world: World) -> None:
    """For what is about its sleep it is woken, and falls asleep again after the linger time."""
    world.reactor.run(LINGER + 0.001)
    del world.heard[:]
    world.change(maxAsleep=7)
    assert world.heard == [("resuming", "reconfigured"), ("awake", "reconfigured")]
    world.reactor.run(LINGER + 0.001)
    assert world.state == "asleep"
    world.reactor.run(7 - 0.01)
    assert world.state == "asleep"
    world.reactor.run(0.01)
    assert world.heard[-1] == ("awake", "max-asleep")


def test_whileItFallsAsleep(slow: World) -> None:
    """The freeze is given up, and the next one is by the new settings."""
    slow.reactor.run(LINGER + 0.001)
    assert slow.state == "suspending"
    slow.change(freezeLimit=2)
    assert (slow.state, slow.freezer.freezing) == ("awake", False)
    slow.reactor.run(LINGER + 0.001)
    assert slow.state == "suspending"
    slow.reactor.run(2 + 0.1)
    assert slow.state == "awake"
    assert "not frozen within 2 s" in slow.container.suspension.statistics.lastFailure


def test_whileItWakes(world: World) -> None:
    """A thaw that fails is tried again; what is new holds when it is awake."""
    world.reactor.run(LINGER + 0.001)
    world.freezer.thawError = FreezerError("no")
    world.container.resume("test")
    assert world.state == "resuming"
    world.change(mode="off", maxAsleep=3)
    world.change(mode="auto", maxAsleep=4)
    assert world.state == "resuming"
    world.freezer.thawError = None
    world.reactor.run(1)
    assert world.state == "awake"
    world.reactor.run(LINGER)
    assert world.state == "asleep"
    world.reactor.run(4)
    assert world.heard[-1] == ("awake", "max-asleep")


@pytest.mark.parametrize("asleep", [False, True])
def test_modes(world: World, asleep: bool) -> None:
    """It is suspended by itself, when asked, or not at all: from then on."""
    if asleep:
        world.reactor.run(LINGER + 0.001)
    for mode, able in (("manual", True), ("off", False), ("manual", True)):
        world.change(mode=mode)
        assert (world.container.mode, world.state) == (mode, "awake")
        world.reactor.run(10 * LINGER)
        assert world.state == "awake"
        results: list[object] = []
        world.container.suspend().addBoth(results.append)
        assert (world.state == "asleep", results == []) == (able, able)
    world.change(mode="auto")
    assert world.state == "awake"
    world.reactor.run(LINGER + 0.001)
    assert world.state == "asleep"


def test_fromWithinAChange(world: World) -> None:
    """A watcher that has it changed, in the middle of a transition."""
    changes = iter([3, 4, 5])

    def changed(state: str, reasons: tuple[str, ...]) -> None:
        seconds = next(changes, None)
        if seconds is not None:
            world.change(maxAsleep=seconds)

    world.container.suspension.addWatcher(changed)
    world.reactor.run(20 * LINGER)
    assert next(changes, None) is None
    assert "max-asleep" in {told[-1] for told in world.heard}


def test_stopped(world: World) -> None:
    """One that has just been changed, and is stopped: it is not suspended again."""
    world.reactor.run(LINGER + 0.001)
    world.freezer.thawError = FreezerError("no")
    world.change(maxAsleep=3)
    world.freezer.thawError = None
    world.container.suspension.stop()
    world.reactor.run(10)
    assert (world.state, world.freezer.frozen) == ("awake", False)


def test_limits(world: World) -> None:
    """They hold from then on; what is there is not taken away."""
    sources = world.container.sources
    for name in ("a", "b", "c"):
        sources.locks.acquire(name)
    world.change(wakeLocks=2, descriptors=1)
    assert len(sources.locks.held) == 3
    with pytest.raises(TooManyWakeLocks):
        sources.locks.acquire("d")
    assert isinstance(world.container.whyNoRoom(5), TooManyDescriptors)
    for name in ("a", "b", "c"):
        sources.locks.release(name)
    # Of those that were, as many are forgotten as have no room any more.
    sources.locks.acquire("d")
    assert len(sources.locks.all()) == 2
    sources.locks.release("d")
    world.change()
    assert world.container.whyNoRoom(5) is None


def test_sleepsAs() -> None:
    """Which bounds are about a sleep: not what it may have, nor when it falls asleep."""
    others = {
        *("linger", "wakeSources", "wakeLocks", "wakeWatchers"),
        *("descriptors", "logLines"),
    }
    for field in attrs.fields(Bounds):
        other = attrs.evolve(BOUNDS, **{field.name: 77})
        assert BOUNDS.sleepsAs(other) == (field.name in others), field.name


def test_goesOn(world: World) -> None:
    """What was counted of its sleep goes on; the log says how long it was quiet as it is now."""
    account = world.container.account
    with capturedLogs() as events:
        for number, linger in enumerate((LINGER, 0.25, 0.5)):
            world.change(linger=linger)
            world.reactor.run(linger + 0.001)
            assert world.state == "asleep"
            world.container.resume("test")
            world.reactor.run(AFTER)
            assert account.today().figures.sleeps == number + 1
            assert world.container.account is account
        # What is made anew looks, and tells, as what was there before.
        world.change(maxAsleep=3)
        world.container.sources.locks.acquire("busy", None, holder := object())
        world.reactor.run(LINGER + GRACE + 1)
        world.container.sources.locks.releaseAll(holder)
        world.reactor.run(LINGER + 1)
        assert world.state == "asleep"
        world.reactor.run(3)
        assert account.today().figures.sleeps == 4
    said = [formatEvent(event) or "" for event in events]
    assert [line for line in said if "quiet" in line] == [
        f"a asleep after {linger:g} s of quiet" for linger in (1, 0.25, 0.5, 1)
    ]
    assert "a stays awake: busy" in said
    assert any(line.startswith("a awake: max-asleep; slept ") for line in said)
