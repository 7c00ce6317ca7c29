"""
The container's life cycle: awake, suspending, asleep, resuming; and never asleep with work to do.

One machine owns it; the table of transitions at the end of the file is the whole truth, and the
diagram in the docs is drawn from it.  Knows a freezer and the registry; where the inputs come from
is L{chanproxy.container.suspension}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.container import outcomes
from chanproxy.container.outcomes import Resumed, SuspendFailure, WakeLocksExist, failed
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import IFreezer
from chanproxy.wake.source import Source, SourceGroup
from chanproxy.wake.sources import WakeSources
from chanproxy.wake.statistics import SuspendStatistics
from chanproxy.words import listed, safe

TIMEOUT = "timeout"
"""The resume reason when the time that was asked for is over."""

LONGEST = "max-asleep"
"""The resume reason when it has slept as long as it may."""

BREATH = "breath"
"""Why it breathes when there is no time of its own that has come."""

FIRST_BREATH = 1.0
"""Seconds asleep until the first breath; each of the following comes after twice the time."""

EXPLAIN_AFTER = 0.003
"""Seconds from the thaw until it is looked for who woke it: the container has its turn first."""

THAW_RETRY = (0.1, 5.0)
"""Seconds between tries to thaw: the first pause, and the longest."""

HIDDEN = {"breathing": "asleep", "refreezing": "asleep"}
"""What others are told of states that are none of their business: a breath is no wake."""


class LifeCycle(Protocol):
    """What can happen to a container."""

    def suspend(self) -> None:
        """Everything is quiet: stop it."""

    def frozen(self) -> None:
        """The freezer is done, and nothing was signalled when we looked again."""

    def interrupted(self, error: Exception) -> None:
        """Something became positive, or the freezer failed, before it was asleep."""

    def breathe(self, reason: str) -> None:
        """Let it run for a moment."""

    def settled(self) -> None:
        """Each of its threads waits again."""

    def resume(self, reasons: tuple[str, ...]) -> None:
        """Wake it."""

    def thawed(self) -> None:
        """It runs."""

    def thawFailed(self, why: Failure) -> None:
        """It does not run yet."""


@define(eq=False)
class Core:
    """
    What the transitions act upon.

    @ivar told: the last state that watchers were told.
    @ivar longest: seconds asleep after which it is woken; None: never.
    @ivar breaths: the longest time asleep without a breath, in seconds; None: it does not breathe.
    @ivar until: by the reactor's clock, when it is to be woken in any case.
    @ivar interval: seconds until the next breath.
    @ivar breathSince: nanoseconds, when it began to breathe; 0: it does not.
    """

    name: str
    clock: IReactorTime
    freezer: IFreezer
    sources: WakeSources
    record: FrozenRecord | None
    onFrozen: Callable[[], None]
    onFreezeFailed: Callable[[Failure], None]
    onSources: Callable[[list[Source]], None]
    onTimer: Callable[[str, bool], None]
    onBreathing: Callable[[], None]
    onState: outcomes.IStateWatcher
    nanoseconds: Callable[[], int]
    longest: float | None = None
    breaths: float | None = None
    statistics: SuspendStatistics = field(factory=SuspendStatistics)
    watchers: list[outcomes.IStateWatcher] = field(factory=list)
    state: str = "awake"
    told: str = "awake"
    outcome: Resumed | Exception = field(factory=lambda: Resumed(0, ()))
    reasons: tuple[str, ...] = ()
    asleepSince: int = 0
    stopped: bool = False
    retry: IDelayedCall | None = None
    pause: float = THAW_RETRY[0]
    waiting: list[Deferred[Resumed]] = field(factory=list)
    timeout: float | None = None
    until: list[tuple[float, str]] = field(factory=list)
    interval: float = FIRST_BREATH
    breathSince: int = 0
    timer: IDelayedCall | None = None
    looking: Deferred[SourceGroup] | None = None
    settling: Deferred[None] | None = None
    found: SourceGroup | None = None
    explaining: Callable[[], tuple[str, ...]] | None = None

    @property
    def reason(self) -> str:
        """Why it was resumed, for people."""
        return listed(self.reasons)

    def thaw(self, state: str = "resuming") -> Deferred[None]:
        """Thaw it, first of all, and forget what was found in it."""
        # The thaw ends a freeze that is pending, and whoever hears of that has to find us here.
        self.state = state
        found, self.found = self.found, None
        looking, self.looking = self.looking, None
        if looking is not None:
            looking.cancel()
        if found is None:
            thawing = self.freezer.thaw()
            self.sources.detach()
            return thawing
        found.beforeThaw(state == "breathing")
        thawing = self.freezer.thaw()
        self.sources.detach()
        found.close()
        return thawing

    def fellAsleep(self) -> None:
        """It begins to sleep, after having been awake."""
        self.asleepSince = self.nanoseconds()
        self.interval = FIRST_BREATH
        times = [(self.timeout, TIMEOUT), (self.longest, LONGEST)]
        now = self.clock.seconds()
        self.until = [(now + after, reason) for after, reason in times if after is not None]

    def setTimer(self) -> None:
        """For the first of the times at which it is woken, or breathes."""
        now = self.clock.seconds()
        times = [(max(at - now, 0.0), reason, True) for at, reason in self.until]
        found = self.found
        if found is not None:
            within = found.within()
            if within is not None:
                times.append((within, found.label, self.breaths is None))
        if self.breaths is not None:
            pause = min(self.interval, self.breaths)
            if found is not None and found.watchdog is not None:
                pause = min(pause, found.watchdog / 2)
            times.append((pause, BREATH, False))
        if times:
            seconds, reason, wakes = min(times)
            self.timer = self.clock.callLater(seconds, self.onTimer, reason, wakes)

    def stopTimers(self) -> None:
        """No time wakes it any more.  Idempotent."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        settling, self.settling = self.settling, None
        if settling is not None:
            settling.cancel()

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
        if self.breathSince:
            self.statistics.breathed(self.nanoseconds() - self.breathSince)
            self.breathSince = 0

    def tell(self, state: str, reason: str) -> None:
        """The owner hears of each state; the watchers only of what concerns them."""
        self.state = state
        try:
            self.onState(state, reason)
        except Exception:
            _log.failure("{name}: what follows a change of state failed", name=self.name)
        shown = HIDDEN.get(state, state)
        if shown == self.told:
            return
        self.told = shown
        for watcher in list(self.watchers):
            try:
                watcher(state, reason)
            except Exception:
                _log.failure("{name}: a watcher failed and is dropped", name=self.name)
                self.watchers.remove(watcher)


_log = Logger()


# The table.

builder = TypeMachineBuilder(LifeCycle, Core)
awake = builder.state("awake")
suspending = builder.state("suspending")
asleep = builder.state("asleep")
breathing = builder.state("breathing")
refreezing = builder.state("refreezing")
resuming = builder.state("resuming")


@awake.upon(LifeCycle.suspend).to(suspending)
def _beginFreeze(inputs: LifeCycle, core: Core) -> None:
    core.tell("suspending", "")
    _freeze(inputs, core)


def _freeze(inputs: LifeCycle, core: Core) -> None:
    try:
        if core.record is not None:
            core.record.write()
        core.sources.arm(core.onSources)
        freezing = core.freezer.freeze()
    except Exception as error:
        inputs.interrupted(failed(error))
    else:
        freezing.addCallbacks(lambda _: core.onFrozen(), core.onFreezeFailed)


@suspending.upon(LifeCycle.frozen).to(asleep)
def _fallAsleep(inputs: LifeCycle, core: Core) -> None:
    core.fellAsleep()
    core.setTimer()
    core.tell("asleep", "")


@asleep.upon(LifeCycle.breathe).to(breathing)
def _breathe(inputs: LifeCycle, core: Core, reason: str) -> None:
    thawing = core.thaw("breathing")
    if reason == BREATH:
        # So the next one comes no later than after as long as it has slept so far, and a second.
        core.interval *= 2
    core.breathSince = core.nanoseconds()
    core.stopTimers()
    core.tell("breathing", reason)
    # What is not thawed is tried again as a wake.
    thawing.addCallbacks(
        lambda _: core.onBreathing(), lambda failure: inputs.resume((str(failure.value),))
    )


@breathing.upon(LifeCycle.settled).to(refreezing)
def _freezeAgain(inputs: LifeCycle, core: Core) -> None:
    core.stopTimers()
    core.tell("refreezing", "")
    _freeze(inputs, core)


@refreezing.upon(LifeCycle.frozen).to(asleep)
def _sleepOn(inputs: LifeCycle, core: Core) -> None:
    core.breathed()
    core.setTimer()
    core.tell("asleep", "")


@suspending.upon(LifeCycle.interrupted).to(resuming)
def _abort(inputs: LifeCycle, core: Core, error: Exception) -> None:
    thawing = core.thaw()
    names = error.names if isinstance(error, WakeLocksExist) else ()
    core.statistics.failed(core.nanoseconds(), str(error), names)
    core.outcome = error
    _finish(inputs, core, thawing, (core.statistics.lastReason,))


@suspending.upon(LifeCycle.resume).to(resuming)
def _abortOnRequest(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    _abort(inputs, core, SuspendFailure(listed(reasons)))


@refreezing.upon(LifeCycle.interrupted).to(resuming)
def _wakeInstead(inputs: LifeCycle, core: Core, error: Exception) -> None:
    _wake(inputs, core, (str(error),))


@asleep.upon(LifeCycle.resume).to(resuming)
@breathing.upon(LifeCycle.resume).to(resuming)
@refreezing.upon(LifeCycle.resume).to(resuming)
def _wake(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    # Nothing comes before this line: it is the wake latency.
    thawing = core.thaw()
    core.breathed()
    slept = core.nanoseconds() - core.asleepSince
    core.outcome = Resumed(slept, reasons)
    core.statistics.succeeded(core.nanoseconds(), slept, core.outcome.reason)
    _finish(inputs, core, thawing, reasons)


def _finish(
    inputs: LifeCycle, core: Core, thawing: Deferred[None], reasons: tuple[str, ...]
) -> None:
    core.sources.disarm()
    core.stopTimers()
    core.reasons = reasons
    core.pause = THAW_RETRY[0]
    core.tell("resuming", core.reason)
    _await(inputs, core, thawing)


def _await(inputs: LifeCycle, core: Core, thawing: Deferred[None]) -> None:
    def ended(result: Failure | None) -> None:
        # Stopping may have finished the thaw by force already.
        if core.state != "resuming":
            return
        if isinstance(result, Failure):
            inputs.thawFailed(result)
        elif core.explaining is None or core.stopped:
            inputs.thawed()
        else:
            core.retry = core.clock.callLater(EXPLAIN_AFTER, explain)

    def explain() -> None:
        core.retry = None
        core.explain()
        inputs.thawed()

    thawing.addBoth(ended)


@resuming.upon(LifeCycle.thawed).to(awake)
def _awaken(inputs: LifeCycle, core: Core) -> None:
    core.explaining = None
    if core.record is not None:
        core.record.clear()
    # A watcher or a waiter may ask for the next suspend at once: that is another one.
    waiting, core.waiting = core.waiting, []
    core.tell("awake", core.reason)
    outcome = core.outcome
    for waiter in waiting:
        if isinstance(outcome, Resumed):
            waiter.callback(outcome)
        else:
            waiter.errback(outcome)


@resuming.upon(LifeCycle.thawFailed).loop()
def _tryAgain(inputs: LifeCycle, core: Core, why: Failure) -> None:
    if core.stopped:
        return
    _log.error(
        "{name}: not thawed, trying again in {pause} s: {why}",
        name=core.name,
        pause=core.pause,
        why=safe(str(why.value)),
    )

    def again() -> None:
        core.retry = None
        _await(inputs, core, core.freezer.thaw())

    core.retry = core.clock.callLater(core.pause, again)
    core.pause = min(core.pause * 2, THAW_RETRY[1])


# What was said from inside a transition arrives after it, and may have been overtaken.
for _state in (awake, resuming):
    _state.upon(LifeCycle.frozen).loop().returns(None)
    _state.upon(LifeCycle.interrupted).loop().returns(None)
    _state.upon(LifeCycle.resume).loop().returns(None)
    _state.upon(LifeCycle.settled).loop().returns(None)

machine = builder.build()
