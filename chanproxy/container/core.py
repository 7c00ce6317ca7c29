"""
What a container's life cycle acts upon: its freezer, its record, its times, and who is told.

Does what it is told to; what follows from what is the table's, L{chanproxy.container.lifecycle}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.container.breath import BREATH, Breath
from chanproxy.container.outcomes import IStateWatcher, Resumed, SuspendFailure
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import IFreezer
from chanproxy.wake.source import Source, SourceGroup, WakeSource
from chanproxy.wake.sources import WakeSources
from chanproxy.wake.statistics import SuspendStatistics, bootNanoseconds

TIMEOUT = "timeout"
"""The resume reason when the time that was asked for is over."""

LONGEST = "max-asleep"
"""The resume reason when it has slept as long as it may."""

FIRST_BREATH = 1.0
"""Seconds asleep until the first breath; each of the following comes after twice the time."""

HIDDEN = {
    "breathing": "asleep",
    "refreezing": "asleep",
    "pausing": "suspending",
    "paused": "asleep",
}
"""What others are told of states that are none of their business: a breath is no wake."""

_log = Logger()


@define(eq=False)
class Sleep:
    """
    From when it falls asleep until it is woken, breaths included.

    @ivar since: nanoseconds, when it fell asleep.
    @ivar until: by the reactor's clock, when it is to be woken in any case, and why.
    @ivar interval: seconds until the next breath.
    @ivar timer: for the first of all these times.
    @ivar times: all of them, by the reactor's clock: when, why, and whether it is woken then.
    @ivar breath: the one that it takes, or took last and is not asleep again since.
    """

    since: int
    until: list[tuple[float, str]]
    interval: float = FIRST_BREATH
    timer: IDelayedCall | None = None
    times: list[tuple[float, str, bool]] = field(factory=list)
    breath: Breath | None = None

    def stopTimers(self) -> None:
        """No time of its own wakes it any more.  Idempotent."""
        timer, self.timer = self.timer, None
        self.times = []
        if timer is not None and timer.active():
            timer.cancel()
        if self.breath is not None:
            self.breath.stop()


@frozen
class Sleeper:
    """
    How a container sleeps.

    @ivar look: looks into it when it is frozen, for what wakes it; its Deferred is cancelled when
        that is not wanted any more, and fails when it is at work.  None: nobody looks.
    @ivar settle: looks at it when it runs; its Deferred fires when each of its threads waits, and
        fails when it is at work.  None: it does not breathe.
    @ivar longest: seconds after which it is resumed in any case; the reason is L{LONGEST}.  If it
        breathes, it merely does that then, and before that.  None: neither.
    @ivar nanoseconds: a clock that goes on while the host itself sleeps.
    """

    look: Callable[[], Deferred[SourceGroup]] | None = None
    settle: Callable[[], Deferred[None]] | None = None
    longest: float | None = None
    nanoseconds: Callable[[], int] = bootNanoseconds


@frozen
class Pause:
    """
    It is to be asleep until it is unpaused.

    @ivar by: whoever wanted that.
    @ivar since: nanoseconds.
    """

    by: str
    since: int


@define(eq=False)
class Core:
    """
    What the transitions act upon.

    @ivar shown: the last state that the owner was told: what it is, for whoever asks.
    @ivar told: the last state that watchers were told.
    @ivar since: nanoseconds, since when it is awake, or asleep; what fails on its way to sleep
        does not count.
    @ivar waiting: those who have asked for this suspend.
    @ivar sleep: while it sleeps.
    @ivar thawedAt: nanoseconds, when it was thawed last, or that was begun.
    @ivar pause: while it is wanted; L{None} as soon as that cannot be, or is over.
    @ivar pausers: those who wait until it is paused.
    @ivar retryAfter: seconds.
    """

    name: str
    clock: IReactorTime
    freezer: IFreezer
    sources: WakeSources
    record: FrozenRecord | None
    sleeper: Sleeper
    onState: IStateWatcher
    statistics: SuspendStatistics = field()
    watchers: list[IStateWatcher] = field(factory=list)
    shown: str = "awake"
    told: str = "awake"
    since: int = field(init=False)
    outcome: Resumed | Exception = field(factory=lambda: Resumed(0, ()))
    reasons: tuple[str, ...] = ()
    stopped: bool = False
    retry: IDelayedCall | None = None
    retryAfter: float = 0.0
    pause: Pause | None = None
    pausers: list[Deferred[None]] = field(factory=list)
    waiting: list[Deferred[Resumed]] = field(factory=list)
    timeout: float | None = None
    sleep: Sleep | None = None
    looking: Deferred[SourceGroup] | None = None
    found: SourceGroup | None = None
    explaining: Callable[[], tuple[str, ...]] | None = None
    thawedAt: int = 0
    _asleep: bool = False

    @statistics.default
    def _fromNow(self) -> SuspendStatistics:
        return SuspendStatistics(self.sleeper.nanoseconds())

    @since.default
    def _awakeFromNow(self) -> int:
        return self.statistics.since

    def thaw(self, breathes: bool = False) -> Deferred[None]:
        """Thaw it, first of all, and forget what was found in it."""
        found, self.found = self.found, None
        looking, self.looking = self.looking, None
        if looking is not None:
            looking.cancel()
        if found is not None:
            found.beforeThaw(breathes)
        thawing = self.freezer.thaw()
        self.thawedAt = self.sleeper.nanoseconds()
        self.sources.detach()
        if found is not None:
            found.close()
        return thawing

    def fallAsleep(self) -> Sleep:
        """It begins to sleep, after having been awake."""
        longest = None if self.sleeper.settle else self.sleeper.longest
        times = [(self.timeout, TIMEOUT), (longest, LONGEST)]
        now = self.clock.seconds()
        until = [(now + after, reason) for after, reason in times if after is not None]
        self.sleep = Sleep(self.sleeper.nanoseconds(), until)
        return self.sleep

    def nextTime(self, sleep: Sleep) -> tuple[float, str, bool] | None:
        """
        The first of the times at which it is woken, or breathes; keeps them all for who asks.

        @return: after how many seconds, why, and whether it is woken; L{None}: there is none.
        """
        now = self.clock.seconds()
        times = [(max(at - now, 0.0), reason, True) for at, reason in sleep.until]
        found = self.found
        longest = self.sleeper.longest if self.sleeper.settle else None
        if found is not None:
            within = found.within()
            if within is not None:
                times.append((within, found.label, longest is None))
        if longest is not None:
            pause = min(sleep.interval, longest)
            if found is not None and found.watchdog is not None:
                pause = min(pause, found.watchdog / 2)
            times.append((pause, BREATH, False))
        sleep.times = [(now + after, reason, wakes) for after, reason, wakes in times]
        return min(times, default=None)

    def explainLater(self, sources: Sequence[Source], wokenAt: int) -> None:
        """
        Have it said better what woke it, if that was in it; before L{thaw} forgets what was.

        @param wokenAt: nanoseconds (C{CLOCK_MONOTONIC}).
        """
        found = self.found
        if found is not None and any(source.kind == "adopted" for source in sources):
            self.explaining = partial(_explained, found, sources, wokenAt)

    def explain(self) -> None:
        """Say better what woke it, now that the container has had its turn."""
        explaining, self.explaining = self.explaining, None
        outcome = self.outcome
        if explaining is not None and isinstance(outcome, Resumed):
            self.reasons = explaining()
            self.outcome = Resumed(outcome.asleep, self.reasons)
            self.statistics.explained(self.outcome.reason)

    def breathed(self) -> None:
        """A breath is over, if there was one."""
        sleep = self.sleep
        if sleep is not None and sleep.breath is not None:
            breath, sleep.breath = sleep.breath, None
            self.statistics.breathed(self.sleeper.nanoseconds() - breath.since)
            breath.stop()

    def failed(self, why: Exception, names: Sequence[str] = ()) -> None:
        """The suspend has failed; that is its outcome."""
        self.statistics.failed(self.sleeper.nanoseconds(), str(why), names)
        self.outcome = why

    def answer(self, waiting: Sequence[Deferred[Resumed]]) -> None:
        """Tell those who asked for the suspend how it ended."""
        outcome = self.outcome
        for waiter in waiting:
            if isinstance(outcome, Resumed):
                waiter.callback(outcome)
            else:
                waiter.errback(outcome)

    def notPaused(self) -> None:
        """It is awake, and stays so: tell those who wait until it is paused."""
        pausers, self.pausers = self.pausers, []
        why = "unpaused meanwhile" if isinstance(self.outcome, Resumed) else str(self.outcome)
        for pauser in pausers:
            pauser.errback(SuspendFailure(why))

    def tell(self, state: str, reasons: tuple[str, ...] = ()) -> None:
        """The owner hears of each state; the watchers only of what concerns them."""
        self.shown = state
        try:
            self.onState(state, reasons)
        except Exception:
            _log.failure("{name}: what follows a change of state failed", name=self.name)
        shown = HIDDEN.get(state, state)
        if shown == self.told and state != "paused":
            return
        self.told = shown
        if shown in ("awake", "asleep") and self._asleep != (shown == "asleep"):
            self._asleep, self.since = not self._asleep, self.sleeper.nanoseconds()
        for watcher in list(self.watchers):
            try:
                watcher(shown, reasons)
            except Exception:
                _log.failure("{name}: a watcher failed and is dropped", name=self.name)
                self.watchers.remove(watcher)


def _explained(found: SourceGroup, sources: Sequence[Source], wokenAt: int) -> tuple[str, ...]:
    adopted = [each for each in sources if isinstance(each, WakeSource) and each.adopted]
    others = [each.name for each in sources if each not in adopted]
    return tuple(sorted([*others, *found.explain(adopted, wokenAt)]))


def namesOf(sources: Sequence[Source]) -> list[str]:
    """The names of some sources, in order."""
    return sorted(source.name for source in sources)
