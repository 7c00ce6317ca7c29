"""
Container: one container at run time, its registry, its life cycle and its channels together.

Knows everything below; knows no configuration files and no processes of its own.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import trace
from chanproxy.adopt.adopted import Place
from chanproxy.adopt.adopter import Adopter
from chanproxy.adopt.deadlines import IGNORE, NotYet
from chanproxy.adopt.drywatch import DryWatch
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.adopt.settings import Adoption
from chanproxy.adopt.subject import StillBusy
from chanproxy.carry.ledger import Ledger
from chanproxy.container.account import Account
from chanproxy.container.bounds import Bounds, Quota
from chanproxy.container.changes import Changes
from chanproxy.container.channels import Channels
from chanproxy.container.core import HIDDEN, Sleeper
from chanproxy.container.freezing import FreezeWatch
from chanproxy.container.idle import IdleWatch, Signs
from chanproxy.container.lifecycle import notIdle
from chanproxy.container.outcomes import Resumed, SuspendFailure
from chanproxy.container.ownership import Ownership
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.sleeping import TIMERS, SleepWatch
from chanproxy.container.suspension import Suspension
from chanproxy.container.watchers import WakeWatchers
from chanproxy.freezers import stops
from chanproxy.freezers.dry import DryRunFreezer
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import (
    ChanproxyReactor,
    FreezerError,
    IFreezer,
)
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.kernel.fewlines import FewLines
from chanproxy.wake.alarms import Alarms
from chanproxy.wake.history.figures import Tally
from chanproxy.wake.locks import TooManyWakeLocks
from chanproxy.wake.sources import WakeSources
from chanproxy.words import listed

ALARM_HOLD = 1.0
"""Seconds that an alarm keeps its container awake at least, so that it can act."""

ADOPTED_FREEZE = 0.05
"""
Seconds that a freeze may take of a container that wakes by its own sockets: until it is frozen,
nobody knows what it waits for.  It takes some 80 microseconds.
"""


@frozen
class Surroundings:
    """
    What a container has of the program that it is in.

    @ivar recorded: what is frozen is written down, so that a successor can thaw it.
    @ivar signals: tells of signals to processes while they are frozen; closed by its owner, after
        L{Container.stop}.  None: they are looked for.
    @ivar tally: what is written down of its sleep goes there.  None: nothing is.
    """

    recorded: bool = True
    signals: SignalTrace | None = None
    tally: Tally | None = None


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
    @ivar account: what its sleep was worth so far.
    @ivar lines: where it is said what its connections do.
    @ivar dialling: connections that were accepted for it, and are still being connected on.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        name: str,
        freezer: IFreezer,
        mode: str = "auto",
        bounds: Bounds | None = None,
        adoption: Adoption | None = None,
        around: Surroundings | None = None,
    ) -> None:
        """
        @param mode: C{auto}: suspend when idle; C{manual}: only when L{suspend} is called;
            C{off}: not even then; C{dry-run}: when idle, but nothing is stopped.
        @param adoption: wake it by what its own threads wait for, and suspend it only when each of
            them waits.
        @raise FreezerError: the freezer cannot work, or is in other hands; nothing is left behind.
        """
        freezer.check()
        bounds, around = bounds or Bounds(), around or Surroundings()
        longest = bounds.maxAsleep or None
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
        self._ownership = Ownership(name, self._real)
        self._record: FrozenRecord | None = None
        self.freezer = freezer
        try:
            self._ownership.take(stops=freezer is self._real)
            if around.recorded and stops(freezer.spec):
                self._record = FrozenRecord(freezer.spec)
        except FreezerError:
            self._ownership.release()
            raise
        self.linger = linger = bounds.linger
        self.mode = mode
        self.dialling = 0
        self.lines = FewLines(self._log, reactor, name, bounds.logLines)
        self.sources = WakeSources(reactor, bounds.wakeSources, bounds.wakeLocks)
        self.ledger = Ledger()
        self.channels = Channels(reactor, name, self.sources, self.ledger, self.lines, linger)
        self._adopter: Adopter | None = None
        if adoption is not None:
            place = Place(self._quota.roomToAdopt, self.sources.attach)
            self._adopter = Adopter(
                name, reactor, self._real, adoption, place, stopped=mode != "dry-run"
            )
        self.suspension = Suspension(
            name,
            reactor,
            freezer,
            self.sources,
            self._record,
            Sleeper(
                None if self._adopter is None else self._adopter.look,
                self._adopter.foresee if self._adopter and mode != "dry-run" else None,
                longest,
            ),
            self._stateChanged,
        )
        stall = None if adoption is None else ADOPTED_FREEZE
        self._freezeWatch = FreezeWatch(
            name, reactor, freezer, bounds, self.suspension.giveUp, stall
        )
        self._sleepWatch = SleepWatch(
            name,
            reactor,
            freezer,
            bounds,
            self.suspension.resume,
            around.signals,
            TIMERS if adoption is None or adoption.timeouts == IGNORE else 0,
        )
        dry, statistics = mode == "dry-run", self.suspension.statistics
        self._dryWatch: DryWatch | None = None
        if dry and self._adopter is not None:
            self._dryWatch = self._adopter.dryWatch(linger, self.suspension.resume)
        self._changes = Changes(name, reactor, self.suspension, lambda: self.why, bounds, dry)
        self.account = Account(name, self._real.cpuTime, dry, statistics, around.tally)
        self.watchers = WakeWatchers(self.suspension, bounds.wakeWatchers)
        self.alarms = Alarms(reactor, bounds.wakeLocks, self._alarm)
        self._idle: IdleWatch | None = None
        self._shown = "awake"

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
        if self.sources.closed:
            return "it was stopped"
        state = self.suspension.state
        if state != "awake":
            return ""
        if self._ownership.paused:
            return "paused by somebody else"
        if self._idle is not None:
            return self._idle.why
        names = ", ".join(sorted(source.name for source in self.sources.signalled()))
        return names or f"it is suspended only when asked (suspend = {self.mode})"

    def start(self) -> None:
        """Begin to suspend it when idle, if it is to be suspended by itself; not after L{stop}."""
        self.sources.expectOpen()
        if self._adopter is not None:
            self._adopter.stateChanged("awake")
        if self.mode in ("auto", "dry-run"):
            self._idle = IdleWatch(
                self.name,
                self._reactor,
                self.freezer,
                Signs(
                    self.sources,
                    self.ledger,
                    None if self._adopter is None else self._adopter.usage(),
                    self.account.quiet,
                ),
                self._suspendUnlessHarmful,
                self.linger,
                0.0 if self._adoption is None else self._adoption.shortSleep,
            )
            self._idle.onWhy = self._changes.stays
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
        self.account.close()
        if self._dryWatch is not None:
            self._dryWatch.stop()
        if self._adopter is not None:
            self._adopter.close()
        self.alarms.close()
        self.watchers.close()
        self.channels.close()
        self.sources.close()
        self._ownership.release()
        self._changes.close()
        self.lines.close()
        if failed is not None:
            raise failed
        if self._record is not None:
            self._record.close()
            self._record = None

    def _stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        if self._adopter is not None:
            self._adopter.stateChanged(state, reasons)
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
            trace.active.stateChanged(self.name, state, listed(reasons))
        if self._dryWatch is not None:
            self._dryWatch.stateChanged(state)
        self.account.stateChanged(state, reasons)

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
        foreseen = self._adopter.foresee().addErrback(_refused)
        return foreseen.addCallback(lambda _: self.suspension.suspend(timeout))

    def resume(self, reason: str) -> Deferred[None]:
        """Wake it, if it is not awake; fires when it is."""
        if self.suspension.state == "awake":
            return succeed(None)
        awake = _whenAwake(self.suspension)
        self.suspension.resume(reason)
        return awake

    def _alarm(self, name: str) -> None:
        try:
            self.sources.locks.acquire(name, max(self.linger, ALARM_HOLD), self.alarms)
        except TooManyWakeLocks:
            self.suspension.resume(name)


def _refused(failure: Failure) -> None:
    failure.trap(StillBusy, NotYet)
    raise notIdle(failure) from failure.value


def _whenAwake(suspension: Suspension) -> Deferred[None]:
    awake: Deferred[None] = Deferred(lambda _: suspension.removeWatcher(changed))

    def changed(state: str, reasons: tuple[str, ...]) -> None:
        if state == "awake":
            suspension.removeWatcher(changed)
            awake.callback(None)

    suspension.addWatcher(changed)
    return awake


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
