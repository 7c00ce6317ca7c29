"""The life cycle and the idle watch, with time and the freezer in the test's hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from chanproxy.carry.ledger import Ledger
from chanproxy.container.core import Sleeper
from chanproxy.container.idle import IdleWatch, Signs
from chanproxy.container.outcomes import AlreadySuspended, Resumed, SuspendFailure, WakeLocksExist
from chanproxy.container.suspension import Suspension
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import FreezerError, FreezerNotReady
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.sources import WakeSources
from chanproxy.words import listed

T = TypeVar("T")

LINGER = 1.0

LEGAL = {
    ("awake", "suspending"),
    ("suspending", "asleep"),
    ("suspending", "resuming"),
    ("asleep", "resuming"),
    ("resuming", "awake"),
}


def outcome(deferred: Deferred[T]) -> list[T | BaseException]:
    """What it fired with, as soon as it has: the result, or the exception."""
    found: list[T | BaseException] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


class Recorder(FrozenRecord):
    """A record that tells the freezer's list of calls what happens to it."""

    calls: list[str] | None = None
    error: OSError | None = None

    def write(self) -> None:
        if self.error is not None:
            raise self.error
        if self.calls is not None:
            self.calls.append("write")
        super().write()

    def clear(self) -> None:
        if self.calls is not None:
            self.calls.append("clear")
        super().clear()


class World:
    """
    One container without a container: everything that decides is real.

    @ivar changes: the states that a watcher was told, with their reasons.
    """

    def __init__(self, directory: str, manual: bool = True) -> None:
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer(manual=manual)
        self.sources = WakeSources(self.reactor)
        self.counters = [MessageCounter(self.reactor) for _ in range(3)]
        for name, counter in zip("abc", self.counters, strict=True):
            self.sources.add(name, counter)
        self.directory = Path(directory)
        self.record = Recorder(self.freezer.spec, directory)
        self.record.calls = self.freezer.calls
        self.suspension = Suspension(
            "test",
            self.reactor,
            self.freezer,
            self.sources,
            self.record,
            Sleeper(nanoseconds=lambda: int(self.reactor.seconds() * 1000)),
        )
        self.changes: list[tuple[str, str]] = []
        self.suspension.addWatcher(
            lambda state, reasons: self.changes.append((state, listed(reasons)))
        )
        self.ledger = Ledger()
        self.watch = IdleWatch(
            "test",
            self.reactor,
            self.freezer,
            Signs(self.sources, self.ledger),
            self.suspension.suspend,
            LINGER,
        )

    @property
    def state(self) -> str:
        return self.suspension.state

    def states(self) -> list[str]:
        return [state for state, _ in self.changes]

    def recorded(self) -> str:
        (path,) = self.directory.glob("*.frozen")
        return path.read_text()

    def sleep(self) -> list[Resumed | BaseException]:
        """Suspend, successfully."""
        result = outcome(self.suspension.suspend())
        if self.freezer.freezing:
            self.freezer.finishFreeze()
        assert self.state == "asleep"
        return result

    def send(self, number: int = 0, count: int = 1) -> None:
        """Something arrives."""
        self.counters[number].add(count)
        self.ledger.activity += count

    def close(self) -> None:
        self.watch.stop()
        self.freezer.thawError = None
        self.suspension.stop()
        assert self.reactor.getDelayedCalls() == []
        self.sources.close()
        for counter in self.counters:
            counter.close()
        assert self.reactor.getReaders() == []
        self.record.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world whose freezer waits to be told."""
    world = World(str(tmp_path / "records"))
    yield world
    world.close()


def test_wholeCycle(world: World) -> None:
    """Awake, suspending, asleep, resuming, awake; watchers hear each, and why it woke."""
    result = outcome(world.suspension.suspend())
    assert world.state == "suspending"
    world.freezer.finishFreeze()
    assert world.state == "asleep"
    world.reactor.advance(2)
    world.counters[0].add(1)
    assert world.state == "asleep"
    world.reactor.turn()
    assert world.state == "awake"
    assert world.changes == [
        ("awake", ""),
        ("suspending", ""),
        ("asleep", ""),
        ("resuming", "a"),
        ("awake", "a"),
    ]
    assert result == [Resumed(2000, ("a",))]
    assert not world.freezer.frozen


def test_reasonNamesAll(world: World) -> None:
    """All that were signalled are named, sorted, and each counts a wake-up."""
    result = world.sleep()
    world.counters[2].add(1)
    world.counters[0].add(5)
    world.reactor.turn()
    assert result == [
        Resumed(
            0,
            (
                "a",
                "c",
            ),
        )
    ]
    assert [source.statistics.wakeupCount for source in world.sources] == [1, 0, 1]


def test_wakeLocks(world: World) -> None:
    """While something is positive nothing is tried."""
    world.counters[1].add(1)
    world.counters[2].add(1)
    (error,) = outcome(world.suspension.suspend())
    assert isinstance(error, WakeLocksExist)
    assert str(error) == "b,c"
    assert world.changes == [("awake", "")]
    assert world.freezer.calls == []
    statistics = world.suspension.statistics
    assert (statistics.attempts, statistics.failures) == (1, 1)


def test_secondLook(world: World) -> None:
    """What comes between the first look and the end of the freeze is found without the reactor."""
    result = outcome(world.suspension.suspend())
    world.counters[1].add(1)
    world.freezer.finishFreeze()
    assert world.states() == ["awake", "suspending", "resuming", "awake"]
    assert world.changes[-1] == ("awake", "Abort: b")
    assert isinstance(result[0], WakeLocksExist)
    assert str(result[0]) == "b"
    assert not world.freezer.frozen
    assert [source.statistics.wakeupCount for source in world.sources] == [0, 1, 0]
    assert world.suspension.statistics.failures == 1


def test_signalledWhileFreezing(world: World) -> None:
    """A freeze that takes its time is given up as soon as something is positive."""
    result = outcome(world.suspension.suspend())
    world.counters[0].add(1)
    assert world.state == "suspending"
    world.reactor.turn()
    assert world.state == "awake"
    assert not world.freezer.freezing
    assert isinstance(result[0], WakeLocksExist)
    world.counters[0].handled()
    world.sleep()


def test_overWhileFreezing(world: World) -> None:
    """What came and was handled while it was freezing keeps nothing awake."""
    world.suspension.suspend()
    world.counters[0].add(1)
    world.counters[0].handled()
    world.freezer.finishFreeze()
    world.reactor.turn()
    assert world.state == "asleep"


def test_freezeFails(world: World) -> None:
    """A freezer that fails: thawed, awake, and the error names the freezer's as its cause."""
    result = outcome(world.suspension.suspend())
    world.freezer.failFreeze("no luck")
    (error,) = result
    assert isinstance(error, SuspendFailure)
    assert str(error) == "no luck"
    assert isinstance(error.__cause__, FreezerError)
    assert world.freezer.calls == ["write", "freeze", "thaw", "clear"]
    assert world.states() == ["awake", "suspending", "resuming", "awake"]
    assert world.suspension.statistics.lastReason == "Abort: no luck"
    world.sleep()


def test_freezeRefused(world: World) -> None:
    """A freezer that fails within the call is no different."""
    world.freezer.ready = False
    (error,) = outcome(world.suspension.suspend())
    assert isinstance(error, SuspendFailure)
    assert isinstance(error.__cause__, FreezerNotReady)
    assert world.state == "awake"
    assert world.recorded() == ""


def test_recordFails(world: World) -> None:
    """What cannot be written down is not frozen."""
    world.record.error = OSError(28, "No space left on device")
    (error,) = outcome(world.suspension.suspend())
    assert isinstance(error, SuspendFailure)
    assert "No space left" in str(error)
    assert "freeze" not in world.freezer.calls
    assert world.state == "awake"


def test_record(world: World) -> None:
    """Written before the freeze, and cleared after the thaw."""
    result = outcome(world.suspension.suspend())
    assert world.recorded() == "fake\n"
    world.freezer.finishFreeze()
    world.freezer.thawError = FreezerError("not now")
    world.suspension.resume("test")
    world.reactor.run(1)
    assert world.recorded() == "fake\n"
    world.freezer.thawError = None
    world.reactor.run(5)
    assert result == [Resumed(0, ("test",))]
    assert world.recorded() == ""
    calls = [call for call in world.freezer.calls if call not in ("thaw", "whenDisturbed")]
    assert calls == ["write", "freeze", "clear"]
    assert world.freezer.calls[-2:] == ["thaw", "clear"]


def test_thawRetried(world: World) -> None:
    """A thaw that fails is tried again after 0.1 s, then twice as long, up to 5 s."""
    result = world.sleep()
    world.freezer.thawError = FreezerError("not now")
    world.counters[0].add(1)
    world.reactor.turn()
    assert world.state == "resuming"
    pauses = []
    for _ in range(9):
        (call,) = world.reactor.getDelayedCalls()
        pauses.append(round(call.getTime() - world.reactor.seconds(), 6))
        assert result == []
        world.reactor.advance(call.getTime() - world.reactor.seconds())
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    world.freezer.thawError = None
    world.reactor.run(5)
    assert world.state == "awake"
    # What it slept is known by the first try, not by the last.
    assert result == [Resumed(0, ("a",))]
    assert world.states() == ["awake", "suspending", "asleep", "resuming", "awake"]
    # The next time starts over.
    world.counters[0].handled()
    world.sleep()
    world.freezer.thawError = FreezerError("not now")
    world.suspension.resume("test")
    (call,) = world.reactor.getDelayedCalls()
    assert call.getTime() - world.reactor.seconds() == pytest.approx(0.1)


def test_disturbed(world: World) -> None:
    """Thawed by somebody else: awake, for the freezer's reason."""
    result = world.sleep()
    world.freezer.disturb("somebody else thawed it")
    assert world.state == "awake"
    assert result == [Resumed(0, ("somebody else thawed it",))]
    assert world.freezer.calls[-2:] == ["thaw", "clear"]


def test_resume(world: World) -> None:
    """On request it wakes from sleep, gives up a freeze, and does nothing when awake."""
    world.suspension.resume("nothing to do")
    assert world.changes == [("awake", "")]
    result = world.sleep()
    world.suspension.resume("asked")
    assert result == [Resumed(0, ("asked",))]
    result = outcome(world.suspension.suspend())
    world.suspension.resume("asked again")
    assert isinstance(result[0], SuspendFailure)
    assert str(result[0]) == "asked again"
    assert world.state == "awake"
    assert not world.freezer.freezing


def test_oneAtATime(world: World) -> None:
    """A second suspend is refused in every state but awake, and disturbs nothing."""
    first = outcome(world.suspension.suspend())

    def refused(state: str) -> None:
        assert world.state == state
        (error,) = outcome(world.suspension.suspend())
        assert isinstance(error, AlreadySuspended)
        assert str(error) == f"test is {state}"
        assert world.state == state

    refused("suspending")
    world.freezer.finishFreeze()
    refused("asleep")
    world.freezer.thawError = FreezerError("not now")
    world.suspension.resume("test")
    refused("resuming")
    assert first == []
    world.freezer.thawError = None
    world.reactor.run(1)
    assert first == [Resumed(0, ("test",))]
    assert world.suspension.statistics.attempts == 1
    world.sleep()


def test_suspendFromACallback(world: World) -> None:
    """Whoever hears of a resume may suspend again at once, and that is carried out like any."""
    world.freezer.manual = False
    second: list[Deferred[Resumed]] = []
    first = world.suspension.suspend()
    first.addCallback(lambda _: second.append(world.suspension.suspend()))
    world.suspension.resume("one")
    assert world.state == "asleep"
    world.suspension.resume("two")
    assert [result.reason for result in outcome(second[0]) if isinstance(result, Resumed)] == [
        "two"
    ]


def test_suspendFromAWatcher(world: World) -> None:
    """The same for a watcher; the first attempt's answer is its own."""
    world.freezer.manual = False
    second: list[Deferred[Resumed]] = []

    def again(state: str, reasons: tuple[str, ...]) -> None:
        if state == "awake" and reasons == ("one",):
            second.append(world.suspension.suspend())

    world.suspension.addWatcher(again)
    first = world.suspension.suspend()
    world.suspension.resume("one")
    assert [result.reason for result in outcome(first) if isinstance(result, Resumed)] == ["one"]
    assert world.state == "asleep"
    world.suspension.resume("two")
    assert [result.reason for result in outcome(second[0]) if isinstance(result, Resumed)] == [
        "two"
    ]


@pytest.mark.parametrize("manual", [True, False])
def test_resumeFromAWatcher(world: World, manual: bool) -> None:
    """A watcher that does not want the suspend ends it, however far the freezer is."""
    world.freezer.manual = manual

    def refuse(state: str, reasons: tuple[str, ...]) -> None:
        if state == "suspending":
            world.suspension.resume("no")

    world.suspension.addWatcher(refuse)
    [result] = outcome(world.suspension.suspend())
    assert isinstance(result, SuspendFailure | Resumed)
    assert world.state == "awake"
    assert not world.freezer.frozen


def test_cancel(world: World) -> None:
    """Who does not want to know gives up waiting; the container goes on sleeping."""
    waiting = world.suspension.suspend()
    result = outcome(waiting)
    world.freezer.finishFreeze()
    waiting.cancel()
    assert len(result) == 1
    assert world.state == "asleep"
    world.suspension.resume("test")
    assert world.state == "awake"


def test_stopAwake(world: World) -> None:
    """Nothing to thaw; no suspend follows; stopping again is harmless."""
    world.suspension.stop()
    world.suspension.stop()
    assert world.freezer.calls == []
    (error,) = outcome(world.suspension.suspend())
    assert isinstance(error, AlreadySuspended)
    assert str(error) == "test is stopped"


def test_stopSuspending(world: World) -> None:
    """The freeze is given up."""
    result = outcome(world.suspension.suspend())
    world.suspension.stop()
    assert isinstance(result[0], SuspendFailure)
    assert str(result[0]) == "the service stopped"
    assert world.state == "awake"
    assert "thawNow" in world.freezer.calls
    assert world.recorded() == ""


def test_stopAsleep(world: World) -> None:
    """It is woken, within the call."""
    result = world.sleep()
    world.suspension.stop()
    assert result == [Resumed(0, ("the service stopped",))]
    assert world.state == "awake"
    assert not world.freezer.frozen
    assert world.recorded() == ""


def test_stopResuming(world: World) -> None:
    """The blocking thaw ends what the other one could not; no try follows."""
    result = world.sleep()
    world.freezer.thawError = FreezerError("not now")
    world.suspension.resume("test")
    world.freezer.thawError = None
    world.suspension.stop()
    assert result == [Resumed(0, ("test",))]
    assert world.state == "awake"
    assert world.reactor.getDelayedCalls() == []


def test_stopThawPending(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thaw that is still under way when it is stopped may end later, well or not."""
    result = world.sleep()
    thawing: Deferred[None] = Deferred()
    monkeypatch.setattr(world.freezer, "thaw", lambda: thawing)
    world.suspension.resume("test")
    assert world.state == "resuming"
    world.suspension.stop()
    assert result == [Resumed(0, ("test",))]
    thawing.errback(FreezerError("too late"))
    assert world.reactor.getDelayedCalls() == []
    assert world.states()[-2:] == ["resuming", "awake"]


def test_stopFails(world: World) -> None:
    """What cannot be thawed is said, and stays recorded for whoever comes next."""
    world.sleep()
    world.freezer.thawError = FreezerError("never")
    with pytest.raises(FreezerError, match="never"):
        world.suspension.stop()
    assert world.state == "resuming"
    assert world.recorded() == "fake\n"
    assert world.reactor.getDelayedCalls() == []


def test_watchers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order they came; one that raises is dropped and logged; the others go on."""
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    class Observer:
        def __call__(self, event: LogEvent) -> None:
            events.append(event)

    monkeypatch.setattr("chanproxy.container.core._log", Logger(observer=Observer()))
    heard: list[str] = []

    def bad(state: str, reasons: tuple[str, ...]) -> None:
        heard.append(f"bad {state}")
        if state == "asleep":
            raise RuntimeError("a bad watcher")

    def good(state: str, reasons: tuple[str, ...]) -> None:
        heard.append(f"good {state}")

    world.suspension.addWatcher(bad)
    world.suspension.addWatcher(good)
    world.sleep()
    assert len(events) == 1
    world.suspension.resume("test")
    assert heard == [
        "bad awake",
        "good awake",
        "bad suspending",
        "good suspending",
        "bad asleep",
        "good asleep",
        "good resuming",
        "good awake",
    ]
    assert len(events) == 1
    world.suspension.removeWatcher(good)
    world.suspension.removeWatcher(good)
    world.sleep()
    assert len(heard) == 8


def test_lateWatcher(world: World) -> None:
    """It is told the present state at once, with the reason for it."""
    world.sleep()
    world.suspension.resume("test")
    heard: list[tuple[str, str]] = []
    world.suspension.addWatcher(lambda state, reasons: heard.append((state, listed(reasons))))
    assert heard == [("awake", "test")]


def test_statistics(world: World) -> None:
    """Attempts, how they ended, and how long it slept."""
    for seconds in (2, 3):
        world.sleep()
        world.reactor.advance(seconds)
        world.counters[0].add(1)
        world.reactor.turn()
        world.counters[0].handled()
    outcome(world.suspension.suspend())
    world.freezer.failFreeze("no luck")
    statistics = world.suspension.statistics
    assert (statistics.attempts, statistics.successes, statistics.failures) == (3, 2, 1)
    assert (statistics.lastAsleep, statistics.totalAsleep) == (3000, 5000)
    assert statistics.lastReason == "Abort: no luck"


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[World]:
    """A world whose freezer is quick, watched."""
    world = World(str(tmp_path / "records"), manual=False)
    world.watch.start()
    yield world
    world.close()


def test_linger(idle: World) -> None:
    """Quiet from the start: asleep after exactly the linger time, and again after each wake."""
    idle.reactor.run(LINGER - 1e-6)
    assert idle.state == "awake"
    idle.reactor.run(1e-6)
    assert idle.state == "asleep"
    assert idle.reactor.getDelayedCalls() == []
    idle.send()
    idle.reactor.turn()
    assert idle.state == "awake"
    idle.counters[0].handled()


def test_lingerAfterZero(idle: World) -> None:
    """Quiet since the last counter became zero: asleep exactly the linger time after that."""
    idle.send(0, 2)
    idle.send(1)
    idle.reactor.run(10)
    idle.counters[0].handled(2)
    idle.reactor.run(10)
    assert idle.state == "awake"
    idle.counters[1].handled()
    idle.reactor.run(LINGER - 1e-6)
    assert idle.state == "awake"
    idle.reactor.run(2e-6)
    assert idle.state == "asleep"


@pytest.mark.parametrize("period", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
def test_neverEarly(idle: World, period: float) -> None:
    """Messages that are handled at once start the linger time anew, whenever they come."""
    for _ in range(20):
        idle.send()
        idle.counters[0].handled()
        idle.reactor.run(period)
        assert idle.state == "awake"
    idle.reactor.run(LINGER - period - 1e-6)
    assert idle.state == "awake"
    idle.reactor.run(2 * LINGER)
    assert idle.state == "asleep"


def test_waitsForZero(idle: World) -> None:
    """While something stays positive, and nothing else happens, nothing is looked at."""
    idle.send()
    idle.reactor.run(2 * LINGER)
    assert idle.reactor.getDelayedCalls() == []
    idle.reactor.run(1000)
    assert idle.freezer.calls == ["whenReady"]
    idle.counters[0].handled()
    idle.reactor.run(LINGER)
    assert idle.state == "asleep"


def test_zeroThenPositive(idle: World) -> None:
    """Not all zero at one time is not quiet."""
    idle.send(0)
    idle.send(1)
    idle.reactor.run(10)
    idle.counters[0].handled()
    idle.reactor.turn()
    idle.counters[0].add(1)
    idle.counters[1].handled()
    idle.reactor.run(100)
    assert idle.state == "awake"
    assert idle.reactor.getDelayedCalls() == []
    idle.counters[0].handled()
    idle.reactor.run(LINGER)
    assert idle.state == "asleep"


def test_counterGoesWhileWaiting(idle: World) -> None:
    """A counter that leaves while it is positive keeps nothing awake any more."""
    idle.send()
    idle.reactor.run(10)
    idle.sources.remove(idle.counters[0])
    idle.counters[0].close()
    idle.reactor.run(LINGER)
    assert idle.state == "asleep"


@pytest.mark.parametrize("positive", [False, True])
def test_stopWatching(idle: World, positive: bool) -> None:
    """Stopped while it waits, for time or for zero, it leaves nothing behind."""
    if positive:
        idle.send()
        idle.reactor.run(10)
    idle.watch.stop()
    idle.watch.stop()
    assert idle.reactor.getDelayedCalls() == []
    idle.counters[0].handled()
    idle.reactor.run(100)
    assert idle.state == "awake"


def test_stopWatchingAsleep(idle: World) -> None:
    """Stopped while it sleeps, it does not begin anew after the wake."""
    idle.reactor.run(LINGER)
    idle.watch.stop()
    idle.suspension.resume("test")
    idle.reactor.run(100)
    assert idle.state == "awake"


def test_waitsUntilReady(world: World) -> None:
    """Without a container it costs nothing; the linger time starts when there is one."""
    world.freezer.ready = False
    world.freezer.manual = False
    world.watch.start()
    world.reactor.run(100)
    assert world.reactor.getDelayedCalls() == []
    world.freezer.becomeReady()
    world.reactor.run(LINGER - 1e-6)
    assert world.state == "awake"
    world.reactor.run(2e-6)
    assert world.state == "asleep"


def test_containerGoes(idle: World) -> None:
    """A container without processes is waited for again."""
    idle.freezer.ready = False
    idle.reactor.run(LINGER)
    assert idle.state == "awake"
    assert idle.reactor.getDelayedCalls() == []
    idle.reactor.run(100)
    assert idle.freezer.calls.count("freeze") == 1
    idle.freezer.becomeReady()
    idle.reactor.run(LINGER)
    assert idle.state == "asleep"


def test_stopBeforeReady(world: World) -> None:
    """Stopped before there is a container, it does not begin when there is one."""
    world.freezer.ready = False
    world.watch.start()
    world.watch.stop()
    world.freezer.becomeReady()
    assert world.reactor.getDelayedCalls() == []


def test_backsOff(world: World) -> None:
    """After a freezer's failure 1 s more, then twice as long, up to 60 s; a success resets it."""
    world.watch.start()
    pauses = []
    for _ in range(8):
        began = world.reactor.seconds()
        while not world.freezer.freezing:
            (call,) = world.reactor.getDelayedCalls()
            world.reactor.advance(call.getTime() - world.reactor.seconds())
        pauses.append(round(world.reactor.seconds() - began - LINGER, 6))
        world.freezer.failFreeze("no luck")
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60]
    world.reactor.run(60 + LINGER)
    world.freezer.finishFreeze()
    assert world.state == "asleep"
    world.suspension.resume("test")
    world.reactor.run(LINGER)
    world.freezer.failFreeze("no luck")
    world.reactor.run(1 + LINGER)
    assert world.freezer.freezing


def test_abortedIsNoFailure(world: World) -> None:
    """Something that comes while it is freezing costs no back-off: only the linger time."""
    world.watch.start()
    world.reactor.run(LINGER)
    world.send()
    world.reactor.turn()
    world.counters[0].handled()
    world.reactor.turn()
    assert world.state == "awake"
    world.reactor.run(LINGER)
    assert world.state == "suspending"
