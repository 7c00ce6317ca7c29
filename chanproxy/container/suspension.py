"""
Suspension: one container's life cycle, for those who ask for it.

What follows from what is the table's, L{chanproxy.container.lifecycle}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chanproxy.container.core import HIDDEN, Core, Pause, Sleeper, namesOf
from chanproxy.container.lifecycle import machine
from chanproxy.container.outcomes import (
    AlreadySuspended,
    IStateWatcher,
    NotIdle,
    Resumed,
    SuspendFailure,
    WakeLocksExist,
)
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import IFreezer
from chanproxy.wake.sources import WakeSources
from chanproxy.wake.statistics import SuspendStatistics


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
        sleeper: Sleeper | None = None,
        onState: IStateWatcher = lambda state, reasons: None,
    ) -> None:
        """
        @param record: written before each freeze and cleared after each thaw; its owner's.
        @param sleeper: how it sleeps; without, until it is woken.
        @param onState: the owner's: told of each state before all watchers, and never dropped.
        """
        self._core = Core(name, clock, freezer, sources, record, sleeper or Sleeper(), onState)
        self._machine = machine(self._core)

    @property
    def state(self) -> str:
        """C{awake}, C{suspending}, C{asleep} or C{resuming}: what was told last."""
        return HIDDEN.get(self._core.shown, self._core.shown)

    @property
    def breathing(self) -> bool:
        """Whether it runs for a moment in its sleep, and it is not known what wakes it."""
        return self._core.shown in ("breathing", "refreezing")

    def sleepBy(self, sleeper: Sleeper) -> None:
        """Sleep in another way, from the next sleep on; to be called while it is awake."""
        self._core.sleeper = sleeper

    @property
    def since(self) -> int:
        """
        Nanoseconds (C{CLOCK_BOOTTIME}) since when it is awake, or asleep.

        As watchers are told: on its way to sleep it is still awake, and what fails on it changes
        nothing.
        """
        return self._core.since

    @property
    def times(self) -> list[tuple[int, str, bool]]:
        """
        Until when it sleeps at the most: nanoseconds (C{CLOCK_BOOTTIME}), why, and whether it is
        woken then, or merely breathes.  In order; none, while it is not asleep.
        """
        core = self._core
        if core.sleep is None:
            return []
        passed = core.sleeper.nanoseconds() - round(core.clock.seconds() * 1e9)
        return [
            (round(at * 1e9) + passed, reason, wakes)
            for at, reason, wakes in sorted(core.sleep.times)
        ]

    @property
    def statistics(self) -> SuspendStatistics:
        """How suspends went so far."""
        return self._core.statistics

    def addWatcher(self, watcher: IStateWatcher) -> None:
        """Tell it the present state at once, then each change; one that raises is dropped."""
        self._core.watchers.append(watcher)
        watcher(self.state, self._core.reasons)

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
        if core.stopped or self._isOnItsWay:
            state = "stopped" if core.stopped else self.state
            # Called from inside a transition, the machine takes it up only after that.
            shown = "suspending" if state == "awake" else state
            paused = "" if core.pause is None else f", and paused by {core.pause.by}"
            result.errback(AlreadySuspended(f"{core.name} is {shown}{paused}"))
            return result
        core.statistics.attempted(core.sleeper.nanoseconds())
        signalled = core.sources.signalled()
        if signalled:
            error = WakeLocksExist(namesOf(signalled))
            core.statistics.failed(core.sleeper.nanoseconds(), str(error), error.names)
            result.errback(error)
            return result
        core.timeout = timeout
        core.waiting.append(result)
        self._machine.suspend()
        return result

    @property
    def _isOnItsWay(self) -> bool:
        """Whether it is not awake, or will not be as soon as the machine hears of it."""
        core = self._core
        return self.state != "awake" or bool(core.waiting) or core.pause is not None

    def resume(self, *reasons: str) -> None:
        """Wake the container now, if it is not awake."""
        self._machine.resume(reasons)

    @property
    def paused(self) -> Pause | None:
        """Who wants that nothing wakes it; L{None}: nobody does."""
        return self._core.pause

    def pause(self, by: str) -> Deferred[None]:
        """
        Stop it as it is, whatever it has to do; nothing but L{unpause} wakes it then.

        What comes for it waits.  What has been paused before stays so, in the name of who did it.

        @param by: whoever wants that, for those who look later.
        @return: fires when it is stopped.  Fails with L{SuspendFailure}; it is awake then.
        """
        core = self._core
        done: Deferred[None] = Deferred(core.pausers.remove)
        if core.stopped:
            done.errback(SuspendFailure(f"{core.name} is stopped"))
            return done
        if core.shown == "paused":
            done.callback(None)
            return done
        core.pausers.append(done)
        if core.pause is None:
            core.pause = Pause(by, core.sleeper.nanoseconds())
            self._machine.pause(by)
        return done

    def unpause(self, *reasons: str) -> None:
        """Wake it, if it is paused; what came meanwhile is carried and answered now."""
        if self._core.pause is not None:
            self._core.pause = None
            self._machine.unpause(reasons)

    def giveUp(self, why: str) -> None:
        """The freeze takes too long: thaw, and let the suspend fail."""
        looks = self._core.sleeper.look is not None
        self._machine.interrupted(NotIdle(why) if looks else SuspendFailure(why))

    def stop(self) -> None:
        """
        Thaw for good, at once and blocking; no suspend follows.  Idempotent.

        @raise FreezerError: it could not be thawed; the record stays for whoever comes next.
        """
        core = self._core
        if core.stopped:
            return
        core.stopped = True
        wasAwake = not self._isOnItsWay
        self.unpause("the service stopped")
        self.resume("the service stopped")
        if core.retry is not None:
            core.retry.cancel()
            core.retry = None
        if not wasAwake:
            core.freezer.thawNow()
            self._machine.thawed()
