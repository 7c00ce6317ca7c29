"""
Container: one container at run time, its registry, its life cycle and its channels together.

Knows everything below; knows no configuration files and no processes of its own.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import trace
from chanproxy.adopt.adopter import Adopter
from chanproxy.adopt.deadlines import IGNORE, NotYet
from chanproxy.adopt.drywatch import DryWatch
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.adopt.settings import Adoption
from chanproxy.adopt.subject import StillBusy
from chanproxy.carry.ledger import Ledger
from chanproxy.container.bounds import Bounds, Quota
from chanproxy.container.channels import Channels
from chanproxy.container.freezing import FreezeWatch
from chanproxy.container.idle import IdleWatch, Signs
from chanproxy.container.lifecycle import HIDDEN
from chanproxy.container.outcomes import Resumed, SuspendFailure
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.sleeping import TIMERS, Heed, SleepWatch
from chanproxy.container.suspension import Suspension, notIdle
from chanproxy.container.watchers import WakeWatchers
from chanproxy.freezers import stops
from chanproxy.freezers.dry import DryRunFreezer
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import (
    ChanproxyReactor,
    FreezerError,
    IExclusiveFreezer,
    IFreezer,
)
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.kernel.fewlines import FewLines
from chanproxy.wake.alarms import Alarms
from chanproxy.wake.locks import TooManyWakeLocks
from chanproxy.wake.sources import WakeSources

ALARM_HOLD = 1.0
"""Seconds that an alarm keeps its container awake at least, so that it can act."""

ADOPTED_FREEZE = 0.05
"""
Seconds that a freeze may take of a container that wakes by its own sockets: until it is frozen,
nobody knows what it waits for.  It takes some 80 microseconds.
"""


class Container:
    """
    What is suspended and resumed.

    @ivar name: what people call it.
    @ivar sources: what keeps it awake or wakes it.
    @ivar channels: those that are open, and their counters.
    @ivar suspension: its life cycle.
    @ivar mode: as it was made with.
    @ivar watchers: who is told of it.
    @ivar alarms: times at which it is woken.
    @ivar lines: where it is said what its connections do.
    @ivar dialling: connections that were accepted for it, and are still being connected on.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        name: str,
        freezer: IFreezer,
        linger: float = 0.5,
        mode: str = "auto",
        recorded: bool = True,
        bounds: Bounds | None = None,
        adoption: Adoption | None = None,
        longest: float | None = None,
        signals: SignalTrace | None = None,
    ) -> None:
        """
        @param linger: seconds that it must have been idle before suspending.
        @param mode: C{auto}: suspend when idle; C{manual}: only when L{suspend} is called;
            C{off}: not even then; C{dry-run}: when idle, but nothing is stopped.
        @param recorded: write down what is frozen, so that a successor can thaw it.
        @param adoption: wake it by what its own threads wait for, and suspend it only when each of
            them waits.
        @param longest: seconds after which it is woken in any case; with C{adoption}, the longest
            time asleep without a breath.  None: neither.
        @param signals: tells of signals to its processes while they are frozen; its owner closes it
            after L{stop}.  None: they are looked for.
        @raise FreezerError: the freezer cannot work, or is in other hands; nothing is left behind.
        """
        freezer.check()
        bounds = bounds or Bounds()
        self._quota = Quota(name, bounds, lambda: self.descriptors)
        self._adoption = adoption
        self._real = freezer
        if adoption is not None:
            _refuseBlindly(freezer)
        if mode == "dry-run":
            freezer = DryRunFreezer(freezer)
            if adoption is not None:
                # What runs has no need of a breath.
                longest = None
        self._reactor = reactor
        self.name = name
        self._exclusive: IExclusiveFreezer | None = IExclusiveFreezer(self._real, None)
        self._record: FrozenRecord | None = None
        self.freezer = freezer
        try:
            self._takeOver(stops=freezer is self._real)
            if recorded and stops(freezer.spec):
                self._record = FrozenRecord(freezer.spec)
        except FreezerError:
            self._release()
            raise
        self.linger = linger
        self.mode = mode
        self.dialling = 0
        self.lines = FewLines(self._log, reactor, name, bounds.logLines)
        self.sources = WakeSources(reactor, bounds.wakeSources, bounds.wakeLocks)
        self.ledger = Ledger()
        self.channels = Channels(reactor, name, self.sources, self.ledger, self.lines, linger)
        self._adopter = None if adoption is None else self._adopt(adoption)
        self.suspension = Suspension(
            name,
            reactor,
            freezer,
            self.sources,
            self._record,
            look=None if self._adopter is None else self._adopter.look,
            longest=longest,
            settled=self._adopter.foresee if self._adopter and mode != "dry-run" else None,
            onState=self._stateChanged,
        )
        self._freezeWatch = FreezeWatch(
            name,
            reactor,
            freezer,
            bounds.freezeWarning,
            bounds.freezeLimit,
            self.suspension.giveUp,
            None if adoption is None else ADOPTED_FREEZE,
        )
        self._sleepWatch = SleepWatch(
            name,
            reactor,
            freezer,
            Heed(
                bounds.signalInterval,
                bounds.watchedProcesses,
                TIMERS if adoption is None or adoption.timeouts == IGNORE else 0,
            ),
            self.suspension.resume,
            signals,
        )
        self._dryWatch: DryWatch | None = None
        if self._adopter is not None and mode == "dry-run":
            self._dryWatch = self._adopter.dryWatch(linger, self.suspension.resume)
        self.watchers = WakeWatchers(self.suspension, bounds.wakeWatchers)
        self.alarms = Alarms(reactor, bounds.wakeLocks, self._alarm)
        self._idle: IdleWatch | None = None
        self._shown = "awake"

    def _adopt(self, adoption: Adoption) -> Adopter:
        return Adopter(
            self.name,
            self._reactor,
            self._real,
            adoption,
            self._quota.roomToAdopt,
            self.sources.attach,
            stopped=self.mode != "dry-run",
        )

    def _release(self) -> None:
        if self._exclusive is not None:
            self._exclusive.release()

    def _takeOver(self, stops: bool) -> None:
        """
        Keep others from freezing it, and thaw what one of us has left frozen, though no record
        names it.  What others have paused stays so.

        @param stops: it is frozen by us; else others may go on to do that.
        @raise FreezerError: it is in other hands.
        """
        if self._exclusive is None:
            return
        try:
            self._exclusive.claim()
        except FreezerError:
            if stops:
                raise
            return
        self._thawLeft(self._exclusive)
        if not stops:
            self._release()

    def _thawLeft(self, exclusive: IExclusiveFreezer) -> None:
        try:
            if exclusive.thawLeft():
                self._log.warn(
                    "{name}: left frozen by a chanproxy that died, and no record named it; thawed",
                    name=self.name,
                )
            elif exclusive.paused():
                self._log.warn("{name}: paused by somebody else, and left so", name=self.name)
        except FreezerError as error:
            self._log.error("{name}: left frozen: {error}", name=self.name, error=error)

    @property
    def descriptors(self) -> int:
        """How many of this process's are for it: some, of its own, are not counted."""
        # The counter of a channel, and a wake source's duplicate, are sources.
        ends = 2 * (len(self.channels) + self.dialling)
        return self.sources.descriptors + ends + len(self.alarms) + len(self.watchers)

    def whyNoRoom(self, count: int, owner: bool = False) -> TooManyDescriptors | None:
        """See L{Quota.whyNoRoom}."""
        return self._quota.whyNoRoom(count, owner)

    @property
    def passedOver(self) -> tuple[str, ...]:
        """The times of its own that do not wake it, in words."""
        return () if self._adopter is None else self._adopter.passedOver

    @property
    def signals(self) -> str:
        """How signals are noticed while it sleeps: C{told}, C{looked_for} or C{never}."""
        return self._sleepWatch.notices

    @property
    def why(self) -> str:
        """Why it is awake, in words; empty while it is not."""
        state = self.suspension.state
        if state != "awake":
            return ""
        if self._exclusive is not None and self._exclusive.paused():
            return "paused by somebody else"
        if self._idle is not None:
            return self._idle.why
        names = ", ".join(sorted(source.name for source in self.sources.signalled()))
        return names or f"it is suspended only when asked (suspend = {self.mode})"

    def start(self) -> None:
        """Begin to suspend it when idle, if it is to be suspended by itself."""
        if self._adopter is not None:
            self._adopter.stateChanged("awake", "")
        if self.mode in ("auto", "dry-run"):
            self._idle = IdleWatch(
                self.name,
                self._reactor,
                self.freezer,
                Signs(
                    self.sources,
                    self.ledger,
                    None if self._adopter is None else self._adopter.usage(),
                ),
                self._suspendUnlessHarmful,
                self.linger,
                0.0 if self._adoption is None else self._adoption.shortSleep,
            )
            self._idle.start()

    def stop(self) -> None:
        """
        Thaw it for good, then end its channels: what can still be carried is carried first.

        @raise FreezerError: it could not be thawed; everything else has been done, and the record
            stays.
        """
        failed: FreezerError | None = None
        if self._idle is not None:
            self._idle.stop()
        try:
            self.suspension.stop()
        except FreezerError as error:
            failed = error
        self._freezeWatch.stop()
        self._sleepWatch.stop()
        if self._dryWatch is not None:
            self._dryWatch.stop()
        if self._adopter is not None:
            self._adopter.close()
        self.alarms.close()
        self.watchers.close()
        self.channels.close()
        self.sources.close()
        self._release()
        self.lines.close()
        if failed is not None:
            raise failed
        if self._record is not None:
            self._record.close()
            self._record = None

    def _stateChanged(self, state: str, reason: str) -> None:
        if self._adopter is not None:
            self._adopter.stateChanged(state, reason)
        if state in ("suspending", "refreezing"):
            self._sleepWatch.beforeFreeze()
            self._freezeWatch.start()
        else:
            self._freezeWatch.stop()
        if state == "asleep":
            self._sleepWatch.start(() if self._adopter is None else self._adopter.signalWaiters)
        else:
            self._sleepWatch.stop()
        before, self._shown = self._shown, HIDDEN.get(state, state)
        if trace.active is not None and self._shown != before:
            trace.active.stateChanged(self.name, state, reason)
        if self._dryWatch is not None:
            if state == "asleep":
                self._dryWatch.start()
            else:
                self._dryWatch.stop()
        if self.mode == "dry-run" and state == "asleep":
            self._log.info("{name}: dry run: it would be asleep now", name=self.name)
        elif self.mode == "dry-run" and state == "awake" and reason:
            self._log.info(
                "{name}: dry run: it would be awake now, by {reason}; asleep for {asleep:.3f} s",
                name=self.name,
                reason=reason,
                asleep=self.suspension.statistics.lastAsleep / 1e9,
            )

    def suspend(self, timeout: float | None = None) -> Deferred[Resumed]:
        """Suspend now; see L{Suspension.suspend}.  Also fails when suspending is off."""
        if self.mode == "off":
            return fail(SuspendFailure(f"{self.name}: suspending is off in the configuration"))
        for settling in list(self.ledger.unsettled):
            settling.settle()
        return self._suspendUnlessHarmful(timeout)

    def _suspendUnlessHarmful(self, timeout: float | None = None) -> Deferred[Resumed]:
        """A freeze that would fail, or do harm, is not tried."""
        if self._adopter is None or self.suspension.state != "awake":
            return self.suspension.suspend(timeout)

        def refused(failure: Failure) -> None:
            failure.trap(StillBusy, NotYet)
            raise notIdle(failure) from failure.value

        foreseen = self._adopter.foresee().addErrback(refused)
        return foreseen.addCallback(lambda _: self.suspension.suspend(timeout))

    def resume(self, reason: str) -> Deferred[None]:
        """Wake it, if it is not awake; fires when it is."""
        if self.suspension.state == "awake":
            return succeed(None)
        awake: Deferred[None] = Deferred(lambda _: self.suspension.removeWatcher(changed))

        def changed(state: str, reason: str) -> None:
            if state == "awake":
                self.suspension.removeWatcher(changed)
                awake.callback(None)

        self.suspension.addWatcher(changed)
        self.suspension.resume(reason)
        return awake

    def _alarm(self, name: str) -> None:
        try:
            self.sources.locks.acquire(name, max(self.linger, ALARM_HOLD), self.alarms)
        except TooManyWakeLocks:
            self.suspension.resume(name)


def _refuseBlindly(freezer: IFreezer) -> None:
    """@raise FreezerError: what it stops cannot be looked into."""
    if not stops(freezer.spec):
        raise FreezerError(
            'none: wake-on = "sockets" looks into what is frozen, and this freezes nothing; '
            "write a freezer such as cgroup:PATH"
        )
    wrong = whyNotAdopt()
    if wrong is not None:
        raise FreezerError(f"{freezer.spec}: {wrong}")
