"""Breaths of a sleeper, and what woke it said better afterwards; time is in the test's hands."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from attrs import define
from twisted.internet.defer import Deferred, succeed

from chanproxy.adopt.adopted import Adopted, Room
from chanproxy.adopt.deadlines import NotYet
from chanproxy.adopt.subject import StillBusy
from chanproxy.container.acts import EXPLAIN_AFTER
from chanproxy.container.breath import BREATH, BREATH_LOOKS, BREATH_SECONDS
from chanproxy.container.core import Sleeper
from chanproxy.container.outcomes import AlreadySuspended, Resumed
from chanproxy.container.suspension import Suspension
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import FreezerError
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.source import SourceGroup, WakeSource
from chanproxy.wake.sources import WakeSources
from chanproxy.words import listed
from tests.container.test_suspension import outcome

TURN = BREATH_LOOKS[0]
"""Seconds that the shortest breath takes."""


class Found(Adopted):
    """What a look found: a pipe, and what the test says."""

    def __init__(self, world: World) -> None:
        super().__init__(Room(10))
        self._world = world
        self.watchdog = world.watchdog
        self.thaws = 0
        if world.own is not None:
            self.label = "own"
        self.add("web/pipe", os.dup(world.reading), select.EPOLLIN, True)

    def inside(self, source: WakeSource, until: float) -> tuple[list[str], int]:
        return [], 0

    def within(self) -> float | None:
        """As the test says."""
        return self._world.own

    def beforeThaw(self, breath: bool = False) -> None:
        """Counted."""
        self._world.freezer.calls.append("beforeThaw")
        super().beforeThaw(breath)

    def explain(self, signalled: Sequence[WakeSource], wokenAt: int) -> list[str]:
        """With a peer."""
        self._world.explained += 1
        return [f"{source.name} from the test" for source in signalled]


@define
class Heard:
    """One state, as it was told, and when."""

    at: float
    state: str
    reason: str


class World:
    """
    One container without a container, that breathes.

    @ivar owners: what the owner was told; C{heard}: what a watcher was told.
    @ivar error: why it does not settle; None: it does, at once.
    @ivar refusal: why a look into it is refused.
    @ivar settling: set it to answer such looks later.
    """

    def __init__(self, directory: Path, longest: float | None = 15.0) -> None:
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer()
        self.sources = WakeSources(self.reactor)
        self.counter = MessageCounter(self.reactor)
        self.sources.add("a", self.counter)
        self.record = FrozenRecord(self.freezer.spec, str(directory))
        self.reading, self.writing = os.pipe()
        self.watchdog: float | None = None
        self.own: float | None = None
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.settling: Deferred[None] | None = None
        self.looking: Deferred[SourceGroup] | None = None
        self.settles = self.explained = 0
        self.owners: list[Heard] = []
        self.heard: list[tuple[str, str]] = []
        self.suspension = Suspension(
            "test",
            self.reactor,
            self.freezer,
            self.sources,
            self.record,
            Sleeper(
                self._look,
                self._settled,
                longest,
                lambda: round(self.reactor.seconds() * 1e9),
            ),
            self._told,
        )
        self.suspension.addWatcher(
            lambda state, reasons: self.heard.append((state, listed(reasons)))
        )

    def _look(self) -> Deferred[SourceGroup]:
        looking, self.looking = self.looking, None
        if looking is not None:
            return looking
        if self.refusal is not None:
            failed: Deferred[SourceGroup] = Deferred()
            failed.errback(self.refusal)
            return failed
        found = Found(self)
        self.sources.attach(found)
        return succeed(found)

    def _settled(self) -> Deferred[None]:
        self.settles += 1
        if self.settling is not None:
            return self.settling
        result: Deferred[None] = Deferred()
        if self.error is None:
            result.callback(None)
        else:
            result.errback(self.error)
        return result

    def _told(self, state: str, reasons: tuple[str, ...]) -> None:
        self.owners.append(Heard(self.reactor.seconds(), state, listed(reasons)))

    @property
    def state(self) -> str:
        """What others are told."""
        return self.suspension.state

    @property
    def inner(self) -> str:
        """What it really is."""
        return self.suspension._core.shown

    def sleep(self, timeout: float | None = None) -> list[Resumed | BaseException]:
        """Suspend, successfully."""
        result = outcome(self.suspension.suspend(timeout))
        assert self.inner == "asleep"
        self.owners.clear()
        self.heard.clear()
        return result

    def breathe(self) -> None:
        """Until it runs for a moment, the first time."""
        self.reactor.advance(1)
        assert self.inner == "breathing"

    def pauses(self, seconds: float) -> list[float]:
        """How long it slept until each breath of so many seconds."""
        self.reactor.run(seconds)
        slept, since = [], 0.0
        for each in self.owners:
            if each.state == "asleep":
                since = each.at
            elif each.state == "breathing":
                slept.append(round(each.at - since, 6))
        return slept

    def close(self) -> None:
        """Stop it, and see that nothing is left."""
        self.freezer.thawError = None
        self.suspension.stop()
        assert self.reactor.getDelayedCalls() == []
        self.sources.close()
        self.counter.close()
        assert self.reactor.getReaders() == []
        self.record.close()
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world that breathes with the defaults."""
    world = World(tmp_path / "records")
    yield world
    world.close()


class TestBreaths:
    """It runs for a moment, and sleeps on."""

    def test_one(self, world: World) -> None:
        """Thawed, looked at, frozen again; no watcher hears of it, and it has figures."""
        result = world.sleep()
        before = len(world.freezer.calls)
        world.reactor.run(1 - 1e-6)
        assert world.owners == []
        world.reactor.run(2e-6)
        assert (world.inner, world.state) == ("breathing", "asleep")
        assert world.suspension.breathing
        assert not world.freezer.frozen
        world.reactor.run(TURN)
        assert (world.inner, world.state) == ("asleep", "asleep")
        assert not world.suspension.breathing
        assert world.freezer.frozen
        assert [each.state for each in world.owners] == ["breathing", "refreezing", "asleep"]
        assert world.owners[0].reason == BREATH
        assert world.freezer.calls[before:] == ["beforeThaw", "thaw", "freeze", "whenDisturbed"]
        assert world.heard == []
        statistics = world.suspension.statistics
        assert statistics.breaths == 1
        assert statistics.breathTime == pytest.approx(TURN * 1e9, rel=0.01)
        assert (statistics.attempts, statistics.successes, statistics.failures) == (1, 0, 0)
        # The time asleep includes it.
        world.suspension.resume("test")
        assert isinstance(result[0], Resumed)
        assert result[0].asleep == pytest.approx((1 + TURN) * 1e9, rel=0.001)
        assert result[0].reason == "test"

    def test_intervals(self, world: World) -> None:
        """After 1 s first, then after twice as long, up to the longest; a wake begins anew."""
        world.sleep()
        assert world.pauses(61) == [1, 2, 4, 8, 15, 15, 15]
        assert world.suspension.statistics.breaths == 7
        world.suspension.resume("test")
        world.reactor.run(5)
        began = world.reactor.seconds()
        world.sleep()
        assert world.pauses(3.5)[0] == pytest.approx(began + 1)
        assert len(world.owners) == 6

    def test_shortLongest(self, tmp_path: Path) -> None:
        """As the configuration says, also when that is less than the first."""
        world = World(tmp_path / "records", 0.5)
        world.sleep()
        assert world.pauses(2.1) == [0.5, 0.5, 0.5, 0.5]
        world.close()

    def test_never(self, tmp_path: Path) -> None:
        """Without any, its own time is a wake, and nothing else happens."""
        world = World(tmp_path / "records", None)
        world.sleep()
        world.reactor.run(1000)
        assert world.owners == []
        world.suspension.resume("test")
        world.own = 3.0
        world.sleep()
        world.reactor.run(3.1)
        assert world.heard == [("resuming", "own"), ("awake", "own")]
        world.close()

    @pytest.mark.parametrize(("seconds", "pauses"), [(4.0, [1, 2, 2, 2, 2]), (0.6, [0.3] * 5)])
    def test_watchdog(self, world: World, seconds: float, pauses: list[float]) -> None:
        """Who has to report breathes at half of the time at the latest."""
        world.watchdog = seconds
        world.sleep()
        assert world.pauses(sum(pauses) + 0.1)[: len(pauses)] == pauses

    def test_own(self, world: World) -> None:
        """A time of its own is a breath, and no reason for longer pauses after it."""
        world.own = 0.5
        world.sleep()
        assert world.pauses(2.1) == [0.5, 0.5, 0.5, 0.5]
        assert {each.reason for each in world.owners if each.state == "breathing"} == {"own"}
        assert world.heard == []
        world.own = None
        world.reactor.run(0.6)
        world.owners.clear()
        assert world.inner == "asleep"
        world.reactor.run(2.1)
        assert [each.reason for each in world.owners if each.state == "breathing"] == [BREATH]

    def test_timeout(self, world: World) -> None:
        """The time that was asked for counts from the beginning, through breaths."""
        result = world.sleep(5.0)
        world.reactor.run(5.1)
        assert result == [Resumed(5_000_000_000, ("timeout",))]
        assert world.suspension.statistics.breaths == 2

    def test_settles(self, world: World) -> None:
        """It is looked at again and again, less and less often, until each thread waits."""
        world.sleep()
        world.error = StillBusy("busy: web[1]")
        world.breathe()
        world.reactor.run(0.2)
        assert world.inner == "breathing"
        # After 1, 3, 7, 15 and 31 ms, and then each 16 ms.
        assert world.settles == 5 + int((0.2 - 0.031) / 0.016)
        world.error = None
        world.reactor.run(0.02)
        assert (world.inner, world.heard) == ("asleep", [])

    @pytest.mark.parametrize(
        "error", [StillBusy("busy: web[1]"), NotYet("web[1] poll timeout is over in 0.3 s", 0.3)]
    )
    def test_findsWork(self, world: World, error: Exception) -> None:
        """What does not settle is a wake like any, and its reason says why."""
        result = world.sleep()
        world.error = error
        world.breathe()
        world.reactor.run(BREATH_SECONDS + BREATH_LOOKS[1] + 0.001)
        assert world.heard == [("resuming", str(error)), ("awake", str(error))]
        assert isinstance(result[0], Resumed)
        assert result[0].reason == str(error)
        assert not world.freezer.frozen
        statistics = world.suspension.statistics
        assert (statistics.breaths, statistics.successes) == (1, 1)
        assert statistics.lastReason == str(error)

    def test_ownWork(self, world: World) -> None:
        """Work after a time of its own: that is the reason."""
        result = world.sleep()
        world.suspension.resume("test")
        result = []
        world.own = 0.7
        result = world.sleep()
        world.error = StillBusy("busy: web[1]")
        world.reactor.run(0.7 + 2 * BREATH_SECONDS)
        assert isinstance(result[0], Resumed)
        assert result[0].reason == "own"


class TestWakes:
    """What comes while it breathes."""

    def test_signalled(self, world: World) -> None:
        """A source wakes it at once, also before it has settled."""
        result = world.sleep()
        world.error = StillBusy("busy")
        world.breathe()
        world.counter.add(1)
        world.reactor.turn()
        assert result == [Resumed(1_000_000_000, ("a",))]
        assert world.heard == [("resuming", "a"), ("awake", "a")]
        assert world.reactor.getDelayedCalls() == []
        assert [source.statistics.wakeupCount for source in world.sources] == [1]
        world.counter.handled()

    @pytest.mark.parametrize("turn", [True, False])
    def test_signalledRefreezing(self, world: World, turn: bool) -> None:
        """While it is frozen again, whether the reactor or the second look finds it."""
        result = world.sleep()
        world.freezer.manual = True
        world.breathe()
        world.reactor.advance(TURN)
        assert world.inner == "refreezing"
        world.counter.add(1)
        if turn:
            world.reactor.turn()
        else:
            world.freezer.finishFreeze()
        assert result == [Resumed(1_001_000_000, ("a",))]
        assert world.state == "awake"
        assert not world.freezer.frozen
        world.counter.handled()

    def test_foundRefreezing(self, world: World) -> None:
        """What its own threads wait for has come: found by the look, and explained."""
        result = world.sleep()
        world.breathe()
        os.write(world.writing, b"x")
        # The pipe is no source at this moment.
        world.reactor.turn()
        assert world.inner == "breathing"
        world.reactor.advance(TURN)
        assert world.inner == "resuming"
        world.reactor.advance(EXPLAIN_AFTER)
        assert isinstance(result[0], Resumed)
        assert result[0].reason == "web/pipe from the test"

    @pytest.mark.parametrize("how", ["freeze", "look", "giveUp", "resume", "disturbed"])
    def test_notFrozenAgain(self, world: World, how: str) -> None:
        """Whatever fails in between is a wake; nothing counts as a failed suspend."""
        result = world.sleep()
        world.breathe()
        world.freezer.manual = how != "look"
        if how == "look":
            world.refusal = StillBusy("no luck")
        world.reactor.advance(TURN)
        if how == "freeze":
            world.freezer.failFreeze("no luck")
        elif how == "giveUp":
            world.suspension.giveUp("no luck")
        elif how == "resume":
            world.suspension.resume("no luck")
        elif how == "disturbed":
            world.freezer.finishFreeze()
            assert world.inner == "asleep"
            world.freezer.disturb("no luck")
        assert world.heard == [("resuming", "no luck"), ("awake", "no luck")]
        assert [type(each) for each in result] == [Resumed]
        statistics = world.suspension.statistics
        assert (statistics.failures, statistics.successes, statistics.breaths) == (0, 1, 1)
        assert world.reactor.getDelayedCalls() == []

    def test_giveUpOnlyWhileFreezing(self, world: World) -> None:
        """A freeze that is over already is not given up."""
        world.sleep()
        world.suspension.giveUp("too late")
        world.breathe()
        world.suspension.giveUp("too late")
        assert world.inner == "breathing"

    def test_resumeBreathing(self, world: World) -> None:
        """On request; a look that is under way is ended."""
        result = world.sleep()
        ended: list[object] = []
        world.settling = Deferred(ended.append)
        world.breathe()
        world.reactor.advance(TURN)
        world.suspension.resume("asked")
        assert len(ended) == 1
        assert result == [Resumed(1_001_000_000, ("asked",))]
        assert world.reactor.getDelayedCalls() == []

    def test_suspendBreathing(self, world: World) -> None:
        """A second suspend is refused as at any other time asleep."""
        world.sleep()
        world.breathe()
        (error,) = outcome(world.suspension.suspend())
        assert isinstance(error, AlreadySuspended)
        assert str(error) == "test is asleep"
        assert world.inner == "breathing"

    def test_notThawed(self, world: World) -> None:
        """A breath that cannot be taken is a wake, which is tried again."""
        result = world.sleep()
        world.freezer.thawError = FreezerError("not now")
        world.reactor.run(1.05)
        assert world.state == "resuming"
        assert result == []
        world.freezer.thawError = None
        world.reactor.run(0.2)
        assert world.heard == [("resuming", "not now"), ("awake", "not now")]
        assert isinstance(result[0], Resumed)
        assert result[0].reason == "not now"

    def test_thawedLate(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A thaw takes its time, and something wakes it meanwhile: nothing is looked at twice."""
        result = world.sleep()
        thawing: Deferred[None] = Deferred()
        with monkeypatch.context() as patch:
            patch.setattr(world.freezer, "thaw", lambda: thawing)
            world.reactor.advance(1)
        assert world.inner == "breathing"
        world.suspension.resume("test")
        thawing.callback(None)
        assert [type(each) for each in result] == [Resumed]
        assert world.settles == 0
        assert world.reactor.getDelayedCalls() == []


def _asleep(world: World) -> None:
    world.reactor.run(0.5)


def _breathing(world: World) -> None:
    world.error = StillBusy("busy")
    world.breathe()


def _settling(world: World) -> None:
    world.settling = Deferred()
    world.breathe()
    world.reactor.advance(TURN)


def _refreezing(world: World) -> None:
    world.freezer.manual = True
    world.breathe()
    world.reactor.advance(TURN)
    assert world.freezer.freezing


def _looking(world: World) -> None:
    world.looking = Deferred()
    world.breathe()
    world.reactor.advance(TURN)
    assert world.inner == "refreezing"


def _explaining(world: World) -> None:
    os.write(world.writing, b"x")
    world.reactor.turn()
    assert world.inner == "resuming"


@pytest.mark.parametrize(
    "reach", [_asleep, _breathing, _settling, _refreezing, _looking, _explaining]
)
def test_stop(world: World, reach: Callable[[World], None]) -> None:
    """Stopped in each state: it runs at once, for good, and whoever waits hears of it."""
    result = world.sleep()
    reach(world)
    explaining = world.inner == "resuming"
    world.suspension.stop()
    assert world.inner == "awake"
    assert not world.freezer.frozen
    assert not world.freezer.freezing
    assert isinstance(result[0], Resumed)
    assert result[0].reason == ("web/pipe" if explaining else "the service stopped")
    assert world.reactor.getDelayedCalls() == []
    assert world.explained == 0
    world.reactor.run(100)
    assert "freeze" not in world.freezer.calls[world.freezer.calls.index("thawNow") :]


class TestExplanation:
    """Who woke it is looked for when it runs again."""

    def test_better(self, world: World) -> None:
        """Watchers are told at once that it wakes, and then better why; so are all figures."""
        result = world.sleep()
        os.write(world.writing, b"x")
        world.reactor.turn()
        assert world.heard == [("resuming", "web/pipe")]
        assert not world.freezer.frozen
        assert world.explained == 0
        world.reactor.advance(EXPLAIN_AFTER)
        better = "web/pipe from the test"
        assert world.heard == [("resuming", "web/pipe"), ("awake", better)]
        assert result == [Resumed(0, (better,))]
        statistics = world.suspension.statistics
        assert statistics.lastReason == better
        assert statistics.events[-1].reason == better
        assert statistics.successes == 1
        # A watcher that comes later hears the same.
        late: list[str] = []
        world.suspension.addWatcher(lambda state, reasons: late.append(listed(reasons)))
        assert late == [better]

    def test_beside(self, world: World) -> None:
        """What else was signalled is named as it was, in order."""
        result = world.sleep()
        os.write(world.writing, b"x")
        world.counter.add(1)
        world.reactor.turn()
        world.reactor.advance(EXPLAIN_AFTER)
        assert result == [
            Resumed(
                0,
                (
                    "a",
                    "web/pipe from the test",
                ),
            )
        ]
        world.counter.handled()

    def test_notNeeded(self, world: World) -> None:
        """Other sources are what they are: no delay."""
        result = world.sleep()
        world.counter.add(1)
        world.reactor.turn()
        assert result == [Resumed(0, ("a",))]
        assert world.explained == 0
        world.counter.handled()

    def test_afterARetry(self, world: World) -> None:
        """A thaw that has to be tried again is explained when it has worked; the time stays."""
        result = world.sleep()
        world.freezer.thawError = FreezerError("not now")
        os.write(world.writing, b"x")
        world.reactor.turn()
        world.reactor.run(0.05)
        assert world.explained == 0
        world.freezer.thawError = None
        world.reactor.run(0.1)
        assert result == [Resumed(0, ("web/pipe from the test",))]

    def test_onlyOnce(self, world: World) -> None:
        """The next wake has its own reason."""
        world.sleep()
        os.write(world.writing, b"x")
        world.reactor.turn()
        world.reactor.advance(EXPLAIN_AFTER)
        os.read(world.reading, 1)
        result = world.sleep()
        world.suspension.resume("test")
        assert result == [Resumed(0, ("test",))]
        assert world.explained == 1
