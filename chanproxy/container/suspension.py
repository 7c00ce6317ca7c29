"""
Suspension: drives a container's life cycle: by a freezer, the registry, looks into it, and time.

What follows from what is the machine's, L{chanproxy.container.lifecycle}.  Knows no channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.container.lifecycle import BREATH, HIDDEN, Core, machine
from chanproxy.container.outcomes import (
    AlreadySuspended,
    IStateWatcher,
    NotIdle,
    Resumed,
    SuspendFailure,
    WakeLocksExist,
    failed,
)
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import FreezerError, IFreezer
from chanproxy.wake.source import Source, SourceGroup, WakeSource
from chanproxy.wake.sources import WakeSources
from chanproxy.wake.statistics import SuspendStatistics, bootNanoseconds
from chanproxy.words import listed

BREATH_LOOKS = (0.001, 0.016)
"""Seconds between looks whether all wait again, in a breath: at first, and at the most."""

BREATH_KNOWN = 0.1
"""The same, where it is known how long something takes."""

BREATH_SECONDS = 0.25
"""Seconds after which a breath that finds no end is a wake."""

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
        settled: Callable[[], Deferred[None]] | None = None,
        onState: IStateWatcher = lambda state, reason: None,
    ) -> None:
        """
        @param record: written before each freeze and cleared after each thaw; its owner's.
        @param look: looks into the frozen container for what wakes it; its Deferred is cancelled
            when that is not wanted any more, and fails when the container is at work.
        @param longest: seconds after which it is resumed in any case; the reason is C{max-asleep}.
            With C{settled}, it merely breathes then, and before that.
        @param settled: looks at the running container; its Deferred fires when each of its threads
            waits, and fails when it is at work.
        @param onState: the owner's: told of each state before all watchers, and never dropped.
        @param nanoseconds: a clock that goes on while the host itself sleeps.
        """
        self._core = Core(
            name,
            clock,
            freezer,
            sources,
            record,
            self._frozen,
            self._freezeFailed,
            self._signalled,
            self._timeCame,
            self._breathing,
            onState,
            nanoseconds,
            longest=longest if settled is None else None,
            breaths=None if settled is None else longest,
        )
        self._look = look
        self._settled = settled
        self._breathFor = BREATH
        self._machine = machine(self._core)

    @property
    def state(self) -> str:
        """C{awake}, C{suspending}, C{asleep} or C{resuming}."""
        return HIDDEN.get(self._core.state, self._core.state)

    @property
    def statistics(self) -> SuspendStatistics:
        """How suspends went so far."""
        return self._core.statistics

    def addWatcher(self, watcher: IStateWatcher) -> None:
        """Tell it the present state at once, then each change; one that raises is dropped."""
        self._core.watchers.append(watcher)
        watcher(self.state, self._core.reason)

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
                AlreadySuspended(f"{core.name} is {'stopped' if core.stopped else self.state}")
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

    def resume(self, *reasons: str) -> None:
        """Wake the container now, if it is not awake."""
        if self._core.state in ("suspending", "asleep", "breathing", "refreezing"):
            self._machine.resume(reasons)

    def giveUp(self, why: str) -> None:
        """The freeze takes too long: thaw, and let the suspend fail."""
        if self._freezing:
            self._machine.interrupted(SuspendFailure(why) if self._look is None else NotIdle(why))

    @property
    def _freezing(self) -> bool:
        return self._core.state in ("suspending", "refreezing")

    def _timeCame(self, reason: str, wakes: bool) -> None:
        if wakes:
            self.resume(reason)
        elif self._core.state == "asleep":
            self._breathFor = reason
            self._machine.breathe(reason)

    def _breathing(self) -> None:
        """It runs, for a breath."""
        if self._core.state == "breathing":
            end = self._core.clock.seconds() + BREATH_SECONDS
            self._settleAfter(BREATH_LOOKS[0], end)

    def _settleAfter(self, pause: float, end: float) -> None:
        core = self._core
        core.timer = core.clock.callLater(pause, self._lookWhetherSettled, pause, end)

    def _lookWhetherSettled(self, pause: float, end: float) -> None:
        assert self._settled is not None
        core = self._core

        def settled(_: None) -> None:
            core.settling = None
            if core.state == "breathing":
                self._machine.settled()

        def notYet(failure: Failure) -> None:
            core.settling = None
            if core.state != "breathing" or failure.check(CancelledError):
                return
            left = end - core.clock.seconds()
            if left > 0:
                # A time that is nearly over is known; before that there is nothing to see.
                known = getattr(failure.value, "again", None)
                following = min(pause * 2, BREATH_LOOKS[1])
                if known is not None:
                    following = min(max(known, pause), BREATH_KNOWN)
                self._settleAfter(min(following, max(left, BREATH_LOOKS[0])), end)
            else:
                found = failure.getErrorMessage()
                self.resume(found if self._breathFor == BREATH else self._breathFor)

        core.settling = settling = self._settled()
        settling.addCallbacks(settled, notYet)

    def stop(self) -> None:
        """
        Thaw for good, at once and blocking; no suspend follows.  Idempotent.

        @raise FreezerError: it could not be thawed; the record stays for whoever comes next.
        """
        core = self._core
        if core.stopped:
            return
        core.stopped = True
        wasAwake = self.state == "awake"
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
        if not self._freezing:
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
        if not self._freezing:
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
        if self._freezing:
            self._machine.interrupted(notIdle(failure))

    def _fallAsleep(self) -> None:
        self._machine.frozen()
        disturbed = self._core.freezer.whenDisturbed()
        disturbed.addCallbacks(self.resume, lambda failure: failure.trap(CancelledError))
        disturbed.addErrback(lambda failure: self.resume(str(failure.value)))

    def _freezeFailed(self, failure: Failure) -> None:
        if self._freezing:
            if not failure.check(FreezerError, OSError):
                _log.failure("{name}: the freezer failed", failure, name=self._core.name)
            self._machine.interrupted(failed(failure.value))

    def _signalled(self, sources: list[Source]) -> None:
        core, found = self._core, self._core.found
        if core.state in ("asleep", "breathing", "refreezing"):
            wokenAt = time.monotonic_ns()
            if found is not None and any(source.kind == "adopted" for source in sources):
                core.explaining = partial(_explained, found, sources, wokenAt)
            self._machine.resume(tuple(_names(sources)))
        elif self._core.state == "suspending":
            self._machine.interrupted(_refused(sources))
        for source in sources:
            source.statistics.wakeupCount += 1


def notIdle(failure: Failure) -> NotIdle:
    """A look's refusal."""
    return NotIdle(str(failure.value), getattr(failure.value, "again", None))


def _refused(sources: list[Source]) -> Exception:
    names = _names(sources)
    if any(source.kind == "adopted" for source in sources):
        return NotIdle(f"busy: {listed(names)}: what it waits for is there")
    return WakeLocksExist(names)


def _explained(found: SourceGroup, sources: Sequence[Source], wokenAt: int) -> tuple[str, ...]:
    adopted = [each for each in sources if isinstance(each, WakeSource) and each.adopted]
    others = [each.name for each in sources if each not in adopted]
    return tuple(sorted([*others, *found.explain(adopted, wokenAt)]))


def _names(sources: list[Source]) -> list[str]:
    return sorted(source.name for source in sources)
