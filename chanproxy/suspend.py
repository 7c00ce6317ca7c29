"""
The container's life cycle: awake, suspending, asleep, resuming; and never asleep with work to do.

One machine owns it; the table of transitions at the end of the file is the whole truth, and the
diagram in the docs is drawn from it.  Knows a freezer and the registry; knows no channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.interfaces import FreezerError, IFreezer
from chanproxy.recovery import FrozenRecord
from chanproxy.statistics import SuspendStatistics, bootNanoseconds
from chanproxy.wake import Source, SourceGroup, WakeSources

TIMEOUT = "timeout"
"""The resume reason when the time that was asked for is over."""

LONGEST = "max-asleep"
"""The resume reason when it has slept as long as it may."""

THAW_RETRY = (0.1, 5.0)
"""Seconds between tries to thaw: the first pause, and the longest."""


class WakeLocksExist(Exception):
    """
    Something keeps the container awake; it was not suspended.

    @ivar names: of all that was signalled.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(",".join(names))
        self.names = tuple(names)


class SuspendFailure(Exception):
    """The freezer could not suspend the container; it is awake.  The text says why."""


class NotIdle(SuspendFailure):
    """The container is at work; it was thawed at once.  The text names the thread, or its wait."""


class AlreadySuspended(Exception):
    """The container is on its way to sleep, asleep, or waking: one suspend at a time."""


@define(frozen=True)
class Resumed:
    """
    How a suspend ended.

    @ivar asleep: nanoseconds between falling asleep and waking, suspend of the host included.
    @ivar reason: the names of all that was signalled, joined by commas, or what else woke it.
    """

    asleep: int
    reason: str


class IStateWatcher(Protocol):
    """Told of each change, in order, after the fact."""

    def __call__(self, state: str, reason: str) -> None: ...


class LifeCycle(Protocol):
    """What can happen to a container."""

    def suspend(self) -> None:
        """Everything is quiet: stop it."""

    def frozen(self) -> None:
        """The freezer is done, and nothing was signalled when we looked again."""

    def interrupted(self, error: Exception) -> None:
        """Something became positive, or the freezer failed, before it was asleep."""

    def resume(self, reason: str) -> None:
        """Wake it."""

    def thawed(self) -> None:
        """It runs."""

    def thawFailed(self, why: Failure) -> None:
        """It does not run yet."""


@define(eq=False)
class _Core:
    """What the transitions act upon."""

    name: str
    clock: IReactorTime
    freezer: IFreezer
    sources: WakeSources
    record: FrozenRecord | None
    onFrozen: Callable[[], None]
    onFreezeFailed: Callable[[Failure], None]
    onSources: Callable[[list[Source]], None]
    onTimeout: Callable[[str], None]
    nanoseconds: Callable[[], int]
    statistics: SuspendStatistics = field(factory=SuspendStatistics)
    watchers: list[IStateWatcher] = field(factory=list)
    state: str = "awake"
    outcome: Resumed | Exception = field(factory=lambda: Resumed(0, ""))
    reason: str = ""
    asleepSince: int = 0
    stopped: bool = False
    retry: IDelayedCall | None = None
    pause: float = THAW_RETRY[0]
    waiting: list[Deferred[Resumed]] = field(factory=list)
    timeout: float | None = None
    longest: float | None = None
    timer: IDelayedCall | None = None
    looking: Deferred[SourceGroup] | None = None
    found: SourceGroup | None = None

    def thaw(self) -> Deferred[None]:
        # The thaw ends a freeze that is pending, and whoever hears of that has to find us here.
        self.state = "resuming"
        found, self.found = self.found, None
        looking, self.looking = self.looking, None
        if looking is not None:
            looking.cancel()
        if found is None:
            thawing = self.freezer.thaw()
            self.sources.detach()
            return thawing
        found.closeSocial()
        thawing = self.freezer.thaw()
        self.sources.detach()
        found.close()
        return thawing

    def setTimer(self) -> None:
        """For the first of the times at which it is woken."""
        times = [(self.timeout, TIMEOUT), (self.longest, LONGEST)]
        if self.found is not None:
            times.append((self.found.within(), self.found.label))
        known = [(seconds, reason) for seconds, reason in times if seconds is not None]
        if known:
            seconds, reason = min(known, key=lambda each: each[0])
            self.timer = self.clock.callLater(seconds, self.onTimeout, reason)

    def tell(self, state: str, reason: str) -> None:
        self.state = state
        for watcher in list(self.watchers):
            try:
                watcher(state, reason)
            except Exception:
                _log.failure("{name}: a watcher failed and is dropped", name=self.name)
                self.watchers.remove(watcher)


_log = Logger()


class Suspension:
    """
    One container's life cycle.

    Made awake.  Suspends when told to, and resumes by itself as soon as a source is signalled.
    """

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        freezer: IFreezer,
        sources: WakeSources,
        record: FrozenRecord | None = None,
        nanoseconds: Callable[[], int] = bootNanoseconds,
        look: Callable[[], Deferred[SourceGroup]] | None = None,
        longest: float | None = None,
    ) -> None:
        """
        @param record: written before each freeze and cleared after each thaw; its owner's.
        @param look: looks into the frozen container for what wakes it; its Deferred is cancelled
            when that is not wanted any more, and fails when the container is at work.
        @param longest: seconds after which it is resumed in any case; the reason is L{LONGEST}.
        @param nanoseconds: a clock that goes on while the host itself sleeps.
        """
        self._core = _Core(
            name,
            clock,
            freezer,
            sources,
            record,
            self._frozen,
            self._freezeFailed,
            self._signalled,
            self.resume,
            nanoseconds,
            longest=longest,
        )
        self._look = look
        self._machine = machine(self._core)

    @property
    def state(self) -> str:
        """C{awake}, C{suspending}, C{asleep} or C{resuming}."""
        return self._core.state

    @property
    def statistics(self) -> SuspendStatistics:
        """How suspends went so far."""
        return self._core.statistics

    def addWatcher(self, watcher: IStateWatcher) -> None:
        """Tell it the present state at once, then each change; one that raises is dropped."""
        self._core.watchers.append(watcher)
        watcher(self._core.state, self._core.reason)

    def removeWatcher(self, watcher: IStateWatcher) -> None:
        """Tell it no more.  Idempotent."""
        if watcher in self._core.watchers:
            self._core.watchers.remove(watcher)

    def suspend(self, timeout: float | None = None) -> Deferred[Resumed]:
        """
        Suspend the container, until something wakes it.

        @param timeout: seconds asleep after which it is resumed; the reason is L{TIMEOUT} then.
        @return: fires after the next resume.  Fails with L{WakeLocksExist}, L{SuspendFailure}, or
            L{AlreadySuspended}; the container is awake then, or as it was for the last.
        """
        core = self._core
        result: Deferred[Resumed] = Deferred(core.waiting.remove)
        if core.state != "awake" or core.stopped:
            result.errback(
                AlreadySuspended(f"{core.name} is {'stopped' if core.stopped else core.state}")
            )
            return result
        core.statistics.attempted(core.nanoseconds())
        signalled = core.sources.signalled()
        if signalled:
            error = WakeLocksExist(_names(signalled))
            core.statistics.failed(core.nanoseconds(), str(error), error.names)
            result.errback(error)
            return result
        core.timeout = timeout
        core.waiting.append(result)
        # At once: called from inside a transition, the machine takes it up only after that.
        core.state = "suspending"
        self._machine.suspend()
        return result

    def resume(self, reason: str) -> None:
        """Wake the container now, if it is not awake."""
        if self._core.state in ("suspending", "asleep"):
            self._machine.resume(reason)

    def giveUp(self, why: str) -> None:
        """The freeze takes too long: thaw, and let the suspend fail."""
        if self._core.state == "suspending":
            self._machine.interrupted(SuspendFailure(why))

    def stop(self) -> None:
        """
        Thaw for good, at once and blocking; no suspend follows.  Idempotent.

        @raise FreezerError: it could not be thawed; the record stays for whoever comes next.
        """
        core = self._core
        if core.stopped:
            return
        core.stopped = True
        wasAwake = core.state == "awake"
        self.resume("the service stopped")
        if core.retry is not None:
            core.retry.cancel()
            core.retry = None
        if not wasAwake:
            core.freezer.thawNow()
            if core.state == "resuming":
                self._machine.thawed()

    def _frozen(self) -> None:
        # The second look: what came between the first one and the freeze.
        if self._core.state != "suspending":
            return
        signalled = self._core.sources.signalled()
        if signalled:
            self._signalled(signalled)
        elif self._look is None:
            self._fallAsleep()
        else:
            # Kept only while it is pending: it may have fired by now.
            looking = self._look()
            self._core.looking = looking
            looking.addCallbacks(self._looked, self._notIdle)

    def _looked(self, found: SourceGroup) -> None:
        core = self._core
        core.looking = None
        if core.state != "suspending":
            found.close()
            return
        core.found = found
        # Nothing in it can have changed since the freeze, but what it waits for can have come.
        signalled = core.sources.signalled()
        if signalled:
            self._signalled(signalled)
        else:
            self._fallAsleep()

    def _notIdle(self, failure: Failure) -> None:
        self._core.looking = None
        if self._core.state == "suspending":
            self._machine.interrupted(NotIdle(str(failure.value)))

    def _fallAsleep(self) -> None:
        self._machine.frozen()
        disturbed = self._core.freezer.whenDisturbed()
        disturbed.addCallbacks(self.resume, lambda failure: failure.trap(CancelledError))
        disturbed.addErrback(lambda failure: self.resume(str(failure.value)))

    def _freezeFailed(self, failure: Failure) -> None:
        if self._core.state == "suspending":
            if not failure.check(FreezerError, OSError):
                _log.failure("{name}: the freezer failed", failure, name=self._core.name)
            self._machine.interrupted(_failed(failure.value))

    def _signalled(self, sources: list[Source]) -> None:
        if self._core.state == "asleep":
            self._machine.resume(",".join(_names(sources)))
        elif self._core.state == "suspending":
            self._machine.interrupted(_refused(sources))
        for source in sources:
            source.statistics.wakeupCount += 1


def _failed(cause: BaseException | None) -> SuspendFailure:
    error = SuspendFailure(str(cause))
    error.__cause__ = cause
    return error


def _refused(sources: list[Source]) -> Exception:
    names = _names(sources)
    if any(source.kind == "adopted" for source in sources):
        return NotIdle(f"busy: {','.join(names)}: what it waits for is there")
    return WakeLocksExist(names)


def _names(sources: list[Source]) -> list[str]:
    return sorted(source.name for source in sources)


# The table.

builder = TypeMachineBuilder(LifeCycle, _Core)
awake = builder.state("awake")
suspending = builder.state("suspending")
asleep = builder.state("asleep")
resuming = builder.state("resuming")


@awake.upon(LifeCycle.suspend).to(suspending)
def _beginFreeze(inputs: LifeCycle, core: _Core) -> None:
    core.tell("suspending", "")
    try:
        if core.record is not None:
            core.record.write()
        core.sources.arm(core.onSources)
        freezing = core.freezer.freeze()
    except Exception as error:
        inputs.interrupted(_failed(error))
    else:
        freezing.addCallbacks(lambda _: core.onFrozen(), core.onFreezeFailed)


@suspending.upon(LifeCycle.frozen).to(asleep)
def _fallAsleep(inputs: LifeCycle, core: _Core) -> None:
    core.asleepSince = core.nanoseconds()
    core.setTimer()
    core.tell("asleep", "")


@suspending.upon(LifeCycle.interrupted).to(resuming)
def _abort(inputs: LifeCycle, core: _Core, error: Exception) -> None:
    thawing = core.thaw()
    names = error.names if isinstance(error, WakeLocksExist) else ()
    core.statistics.failed(core.nanoseconds(), str(error), names)
    core.outcome = error
    _finish(inputs, core, thawing, core.statistics.lastReason)


@suspending.upon(LifeCycle.resume).to(resuming)
def _abortOnRequest(inputs: LifeCycle, core: _Core, reason: str) -> None:
    _abort(inputs, core, SuspendFailure(reason))


@asleep.upon(LifeCycle.resume).to(resuming)
def _wake(inputs: LifeCycle, core: _Core, reason: str) -> None:
    # Nothing comes before this line: it is the wake latency.
    thawing = core.thaw()
    slept = core.nanoseconds() - core.asleepSince
    core.statistics.succeeded(core.nanoseconds(), slept, reason)
    core.outcome = Resumed(slept, reason)
    _finish(inputs, core, thawing, reason)


def _finish(inputs: LifeCycle, core: _Core, thawing: Deferred[None], reason: str) -> None:
    core.sources.disarm()
    if core.timer is not None:
        if core.timer.active():
            core.timer.cancel()
        core.timer = None
    core.reason = reason
    core.pause = THAW_RETRY[0]
    core.tell("resuming", reason)
    _await(inputs, core, thawing)


def _await(inputs: LifeCycle, core: _Core, thawing: Deferred[None]) -> None:
    def ended(result: Failure | None) -> None:
        # Stopping may have finished the thaw by force already.
        if core.state != "resuming":
            return
        if isinstance(result, Failure):
            inputs.thawFailed(result)
        else:
            inputs.thawed()

    thawing.addBoth(ended)


@resuming.upon(LifeCycle.thawed).to(awake)
def _awaken(inputs: LifeCycle, core: _Core) -> None:
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
def _tryAgain(inputs: LifeCycle, core: _Core, why: Failure) -> None:
    if core.stopped:
        return
    _log.error(
        "{name}: not thawed, trying again in {pause} s: {why}",
        name=core.name,
        pause=core.pause,
        why=why.value,
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

machine = builder.build()
