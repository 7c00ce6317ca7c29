"""What the log says of a container's changes; time and the freezer are in the test's hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.changes import AFTER, GRACE, REASONS, Changes, shown
from chanproxy.container.core import Sleeper
from chanproxy.container.suspension import Suspension
from chanproxy.kernel.fewlines import PERIOD
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.sources import WakeSources
from tests.container.test_breaths import World as Breathing

LINGER = 0.5


@pytest.fixture
def events() -> Iterator[Sequence[LogEvent]]:
    """What is logged."""
    with capturedLogs() as found:
        yield found


class World:
    """A container, C{web}, without a container; its sleep is as long as the test says."""

    def __init__(self, bounds: Bounds, dryRun: bool = False) -> None:
        self.reactor, self.freezer = FakeReactor(), FakeFreezer()
        self.sources = WakeSources(self.reactor)
        sleeper = Sleeper(nanoseconds=lambda: round(self.reactor.seconds() * 1e9))
        self.suspension = Suspension("web", self.reactor, self.freezer, self.sources, None, sleeper)
        self.why = ""
        self.changes = Changes(
            "web", self.reactor, self.suspension, lambda: self.why, bounds, dryRun
        )

    def sleep(self, seconds: float, *reasons: str) -> None:
        """It falls asleep and is woken."""
        self.suspension.suspend().addErrback(lambda failure: None)
        self.reactor.run(seconds)
        self.suspension.resume(*reasons)

    def stays(self, why: str) -> None:
        """A look finds a reason."""
        self.why = why
        self.changes.stays(why)

    def close(self) -> None:
        """End all of it; nothing is left to come."""
        self.suspension.stop()
        self.changes.close()
        self.changes.close()
        self.sources.close()
        assert self.reactor.getDelayedCalls() == []


@pytest.fixture
def world() -> Iterator[World]:
    """Ended at the end."""
    world = World(Bounds(linger=LINGER))
    yield world
    world.close()


def texts(events: Sequence[LogEvent]) -> list[str]:
    """In words."""
    return [formatEvent(event) or "" for event in events]


def fields(event: LogEvent) -> dict[str, Any]:
    """Those that are about the container, and have a value of their own."""
    names = ("container", "state", "asked", "quiet_seconds", "asleep_seconds", "reasons", "why")
    return {name: event[name] for name in names if name in event}


def test_slept(world: World, events: Sequence[LogEvent]) -> None:
    """A line when it sleeps, one when it wakes, with what there is to know."""
    world.changes.stays("")
    world.sleep(41.26, "10.0.0.7:5123 on tcp :80")
    world.changes.stays("web/http#1")
    world.sleep(0.25, "a", "b")
    world.reactor.run(AFTER)
    assert texts(events) == [
        "web asleep after 0.5 s of quiet",
        "web awake: 10.0.0.7:5123 on tcp :80; slept 41 s",
        "web asleep, as asked",
        "web awake: a,b; slept 0.25 s",
    ]
    assert [fields(event) for event in events] == [
        {"container": "web", "state": "asleep", "asked": False, "quiet_seconds": 0.5},
        {
            "container": "web",
            "state": "awake",
            "asleep_seconds": 41.26,
            "reasons": ["10.0.0.7:5123 on tcp :80"],
        },
        {"container": "web", "state": "asleep", "asked": True},
        {"container": "web", "state": "awake", "asleep_seconds": 0.25, "reasons": ["a", "b"]},
    ]
    assert {event["log_level"] for event in events} == {LogLevel.info}


def test_afterTheWake(world: World, events: Sequence[LogEvent]) -> None:
    """Nothing is said before the thaw, nor in its turn, nor in those that follow at once."""
    heard: list[tuple[str, int]] = []
    world.suspension.addWatcher(lambda state, reasons: heard.append((state, len(events))))
    world.suspension.suspend().addErrback(lambda failure: None)
    world.reactor.run(1)
    assert len(events) == 1
    world.suspension.resume("bell")
    world.reactor.turn()
    world.reactor.advance(AFTER / 2)
    assert world.freezer.calls[-1] == "thaw"
    assert heard[-1] == ("awake", 1)
    assert len(events) == 1
    world.reactor.run(AFTER)
    assert texts(events)[1:] == ["web awake: bell; slept 1 s"]


def test_attempts(world: World, events: Sequence[LogEvent]) -> None:
    """What does not come to a sleep is no change."""
    world.freezer.manual = True
    world.suspension.suspend().addErrback(lambda failure: None)
    world.freezer.failFreeze("it is stuck")
    world.suspension.suspend().addErrback(lambda failure: None)
    world.suspension.resume("bell")
    world.reactor.run(1)
    assert world.suspension.state == "awake"
    assert events == []


def test_breaths(tmp_path: Path, events: Sequence[LogEvent]) -> None:
    """A breath is none either."""
    breathing = Breathing(tmp_path)
    changes = Changes(
        "web", breathing.reactor, breathing.suspension, lambda: "", Bounds(linger=LINGER)
    )
    try:
        breathing.suspension.suspend().addErrback(lambda failure: None)
        breathing.reactor.run(60)
        assert breathing.suspension.statistics.breaths > 3
        breathing.suspension.resume("bell")
        breathing.reactor.run(1)
        assert texts(events) == ["web asleep, as asked", "web awake: bell; slept 60 s"]
    finally:
        changes.close()
        breathing.close()


def test_stays(world: World, events: Sequence[LogEvent]) -> None:
    """Why it stays awake: after a while, and again less and less often, whatever the numbers."""
    said: list[int] = []
    for number in range(1000):
        world.stays(f"node[12] uses {number} % of a processor")
        world.reactor.run(1)
        said += [number] * (len(events) - len(said))
    first = LINGER + GRACE
    assert [abs(at - first - after) < 1 for at, after in zip(said, (0, 60, 180, 420), strict=False)]
    assert len(said) == 5
    line = f"web stays awake: node[12] uses {said[1]} % of a processor"
    assert texts(events)[1] == line
    assert fields(events[1]) == {
        "container": "web",
        "state": "awake",
        "why": f"node[12] uses {said[1]} % of a processor",
    }


def test_staysForMoreThanOne(world: World, events: Sequence[LogEvent]) -> None:
    """Each reason has its own time; short ones are not told, and none while it sleeps."""
    world.stays("bell")
    world.reactor.run(LINGER + GRACE / 2)
    world.changes.stays("")
    world.sleep(10, "bell")
    world.stays("bell")
    world.reactor.run(LINGER + GRACE / 2)
    world.why = "backup"
    world.reactor.run(GRACE)
    world.stays("bell")
    world.stays("it has been quiet for less than the linger time")
    world.stays("")
    assert texts(events)[2:] == ["web stays awake: backup", "web stays awake: bell"]


def test_manyReasons(world: World, events: Sequence[LogEvent]) -> None:
    """No more of them are remembered than is useful."""
    world.reactor.run(10)
    for first in "abcdefghij":
        for second in "abcdefghijk":
            world.stays(f"{first}{second}")
    assert len(world.changes._said) == REASONS
    assert len(events) == 60


def test_again(world: World, events: Sequence[LogEvent]) -> None:
    """After a sleep a reason is told within a minute again, and not sooner."""
    world.reactor.run(10)
    for _ in range(200):
        world.stays("bell")
        world.reactor.run(1)
    assert len(events) == 3
    world.changes.stays("")
    world.sleep(1, "bell")
    said: list[int] = []
    for second in range(200):
        world.stays("bell")
        world.reactor.run(1)
        said += [second] * (len(events) - 5 - len(said))
    # 20 s before the sleep was the last one, and not again within a minute.
    assert [abs(at - after) < 2 for at, after in zip(said, (39, 99), strict=True)]


@pytest.mark.parametrize("most", [0, 3])
def test_limit(most: int, events: Sequence[LogEvent]) -> None:
    """So many lines in a minute, and how many there were beside them."""
    world = World(Bounds(linger=LINGER, logLines=most))
    try:
        for _ in range(5):
            world.sleep(1, "bell")
        world.reactor.run(PERIOD)
        assert len(events) == most + 1
        assert texts(events)[-1].startswith(f"web: {10 - most} more lines were left out")
    finally:
        world.close()


def test_dryRun(events: Sequence[LogEvent]) -> None:
    """What would be is said as such."""
    world = World(Bounds(linger=LINGER), dryRun=True)
    try:
        world.sleep(2, "bell")
        world.reactor.run(1)
        assert texts(events) == [
            "web: dry run: it would be asleep now",
            "web: dry run: it would be awake now, by bell; asleep for 2.000 s",
        ]
        assert [event["state"] for event in events] == ["asleep", "awake"]
    finally:
        world.close()


def test_close(events: Sequence[LogEvent]) -> None:
    """What has happened is said at the end at last, and nothing after it."""
    world = World(Bounds(linger=LINGER))
    world.stays("bell")
    world.suspension.suspend().addErrback(lambda failure: None)
    world.close()
    lines = ["web asleep, as asked", "web awake: the service stopped; slept 0 s"]
    assert texts(events) == lines
    world.reactor.run(100)
    assert texts(events) == lines


def test_forged(world: World, events: Sequence[LogEvent]) -> None:
    """Names that others chose do not end a line."""
    world.sleep(1, "a\nweb awake: me")
    world.reactor.run(10)
    world.stays("b\x1b[2J")
    assert texts(events)[1:] == [
        "web awake: a\\nweb awake: me; slept 1 s",
        "web stays awake: b\\x1b[2J",
    ]
    assert events[1]["reasons"] == ["a\\nweb awake: me"]
    assert events[2]["why"] == "b\\x1b[2J"


def test_shown() -> None:
    """Two digits, and no fraction of many seconds."""
    seconds = (0, 0.00123, 0.5, 1, 1.26, 9.4, 9.96, 10.4, 41.2, 86400)
    assert [shown(each) for each in seconds] == [
        *("0 s", "0.0012 s", "0.5 s", "1 s", "1.3 s", "9.4 s", "10 s", "10 s", "41 s", "86400 s")
    ]


class TestContainer:
    """By a whole container."""

    @pytest.fixture
    def freezer(self) -> FakeFreezer:
        """Does what the test says."""
        return FakeFreezer()

    @pytest.fixture
    def reactor(self) -> FakeReactor:
        """Likewise."""
        return FakeReactor()

    @pytest.fixture
    def container(self, reactor: FakeReactor, freezer: FakeFreezer) -> Iterator[Container]:
        """Suspended when idle; stopped at the end."""
        bounds = evolve(Bounds(), linger=LINGER, signalInterval=0)
        made = Container(
            reactor,
            "web",
            freezer,
            bounds=bounds,
            around=Surroundings(recorded=False),
        )
        yield made
        made.stop()
        assert reactor.getDelayedCalls() == []

    def test_idle(
        self, container: Container, reactor: FakeReactor, events: Sequence[LogEvent]
    ) -> None:
        """It is idle, then something keeps it awake, then it is asked for."""
        container.start()
        reactor.run(2)
        assert texts(events) == ["web asleep after 0.5 s of quiet"]
        bell = MessageCounter(reactor)
        container.sources.add("bell", bell)
        bell.add(1)
        reactor.run(1)
        assert texts(events)[1].startswith("web awake: bell; slept ")
        reactor.run(LINGER + GRACE)
        assert texts(events)[2:] == ["web stays awake: bell"]
        bell.handled()
        reactor.run(0.1)
        container.suspend().addErrback(lambda failure: None)
        reactor.run(1)
        assert texts(events)[3:] == ["web asleep, as asked"]
        bell.close()

    def test_notThere(
        self,
        container: Container,
        reactor: FakeReactor,
        freezer: FakeFreezer,
        events: Sequence[LogEvent],
    ) -> None:
        """It waits for what is not there yet, and says so once."""
        freezer.ready = False
        container.start()
        reactor.run(100)
        assert texts(events) == ["web stays awake: it has no process yet"]

    def test_fails(
        self,
        container: Container,
        reactor: FakeReactor,
        freezer: FakeFreezer,
        events: Sequence[LogEvent],
    ) -> None:
        """A freezer that fails is told of by itself, and not twice."""
        freezer.manual = True
        container.start()
        for _ in range(4):
            while not freezer.freezing:
                reactor.run(0.1)
            freezer.failFreeze("it is stuck")
        assert [text.partition(", ")[0] for text in texts(events)] == ["web: stays awake"] * 4


def test_change(world: World, events: Sequence[LogEvent]) -> None:
    """By other bounds it goes on: a reason that waits to be said waits for the linger time now."""
    world.stays("a")
    world.changes.change(Bounds(linger=LINGER + 4))
    world.reactor.run(LINGER + GRACE + 3.9)
    assert texts(events) == []
    world.reactor.run(0.1)
    assert texts(events) == ["web stays awake: a"]
    world.sleep(1, "x")
    world.stays("b")
    world.reactor.run(GRACE)
    world.changes.change(Bounds(linger=0))
    world.reactor.run(0)
    assert texts(events)[-1] == "web stays awake: b"
    world.changes.change(Bounds(linger=0, logLines=0))
    world.sleep(1, "x")
    world.reactor.run(AFTER)
    assert len(events) == 4, texts(events)
