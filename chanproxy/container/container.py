"""
Container: one container at run time, its registry, its life cycle and its channels together.

Knows everything below; knows no configuration files and no processes of its own.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from chanproxy import trace
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.adopt.settings import Adoption
from chanproxy.carry.ledger import Ledger
from chanproxy.container.account import Account
from chanproxy.container.bounds import Bounds, Quota
from chanproxy.container.changes import Changes
from chanproxy.container.channels import Channels
from chanproxy.container.core import HIDDEN
from chanproxy.container.outcomes import Paused, Resumed, SuspendFailure
from chanproxy.container.ownership import Ownership
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.suspension import Suspension
from chanproxy.container.watchers import WakeWatchers
from chanproxy.container.watches import CHANGED, Looked, Told, Watches
from chanproxy.freezers import stops
from chanproxy.freezers.dry import DryRunFreezer
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.interfaces import AnyReactor, FreezerError, IFreezer, expectReactor
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.kernel.fewlines import FewLines
from chanproxy.wake.alarms import Alarms
from chanproxy.wake.history.figures import Tally
from chanproxy.wake.locks import TooManyWakeLocks
from chanproxy.wake.sources import WakeSources
from chanproxy.words import listed

ALARM_HOLD = 1.0
"""Seconds that an alarm keeps its container awake at least, so that it can act."""


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
    @ivar linger: seconds that it must have been idle before it is suspended.
    @ivar watchers: who is told of it.
    @ivar alarms: times at which it is woken.
    @ivar account: what its sleep was worth so far.
    @ivar lines: where it is said what its connections do.
    @ivar dialling: connections that were accepted for it, and are still being connected on.
    @ivar settings: keys that were set while it runs: name, what is written, what holds.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: AnyReactor,
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
        reactor = expectReactor(reactor)
        freezer.check()
        bounds, around = bounds or Bounds(), around or Surroundings()
        self._quota = Quota(name, bounds, lambda: self.descriptors)
        real = freezer
        if adoption is not None:
            _refuseBlindly(freezer)
        if mode == "dry-run":
            freezer = DryRunFreezer(freezer)
        self.name = name
        self._ownership = Ownership(name, real)
        self._record: FrozenRecord | None = None
        self.freezer = freezer
        try:
            self._ownership.take(stops=freezer is real)
            if around.recorded and stops(freezer.spec):
                self._record = FrozenRecord(freezer.spec)
        except FreezerError:
            self._ownership.release()
            raise
        self.linger = bounds.linger
        self.dialling = 0
        self.settings: tuple[tuple[str, str, str], ...] = ()
        self.lines = FewLines(self._log, reactor, name, bounds.logLines)
        self.sources = WakeSources(reactor, bounds.wakeSources, bounds.wakeLocks)
        self.ledger = Ledger()
        self.channels = Channels(reactor, name, self.sources, self.ledger, self.lines, self.linger)
        self.suspension = Suspension(
            name, reactor, freezer, self.sources, self._record, onState=self._stateChanged
        )
        self._changes = Changes(
            name, reactor, self.suspension, lambda: self.why, bounds, mode == "dry-run"
        )
        statistics = self.suspension.statistics
        self.account = Account(name, real.cpuTime, mode == "dry-run", statistics, around.tally)
        parts = (self.sources, self.ledger, self.suspension, self._quota)
        told = Told(self._changes.stays, self.account.quiet)
        looked = Looked(name, reactor, freezer, real, *parts, around.signals, told)
        self._watches = Watches(looked, mode, bounds, adoption)
        self.watchers = WakeWatchers(self.suspension, bounds.wakeWatchers)
        self.alarms = Alarms(reactor, bounds.wakeLocks, self._alarm)
        self._shown = "awake"

    @property
    def mode(self) -> str:
        """As it was made with, or as it was changed to; see C{__init__}."""
        return self._watches.mode

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
        return self._watches.passedOver

    @property
    def signals(self) -> str:
        """How signals are noticed while it sleeps: C{told}, C{looked_for} or C{never}."""
        return self._watches.signals

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
        why = self._watches.why
        if why is not None:
            return why
        names = ", ".join(sorted(source.name for source in self.sources.signalled()))
        return names or f"it is suspended only when asked (suspend = {self.mode})"

    def start(self) -> None:
        """Begin to suspend it when idle, if it is to be suspended by itself; not after L{stop}."""
        self.sources.expectOpen()
        self._watches.begin()

    def change(self, mode: str, bounds: Bounds, adoption: Adoption | None) -> None:
        """
        Go on with other settings, at once; L{mode} is not changed to C{dry-run} or from it.

        If it is asleep, and is to sleep in another way than it does, it is woken.

        @param adoption: as it was made with, or with other settings; None if it was made with none.
        """
        self._quota.bounds = bounds
        self.linger = self.channels.linger = bounds.linger
        self.lines.most = bounds.logLines
        self._changes.change(bounds)
        self.sources.limit = bounds.wakeSources
        self.sources.locks.limit = self.alarms.limit = bounds.wakeLocks
        self.watchers.limit = bounds.wakeWatchers
        self._watches.change(mode, bounds, adoption)

    def reconfigured(self) -> None:
        """What it is connected with changes: it is to see that."""
        self.suspension.resume(CHANGED)

    def stop(self) -> None:
        """
        Thaw it for good, then end its channels: what can still be carried is carried first.

        @raise FreezerError: it could not be thawed; everything else has been done, and the record
            stays.
        """
        failed: FreezerError | None = None
        self._watches.stopIdle()
        try:
            self.suspension.stop()
        except FreezerError as error:
            failed = error
        self._watches.stop()
        self.account.close()
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
        self._watches.stateChanged(state, reasons)
        before, self._shown = self._shown, HIDDEN.get(state, state)
        paused = self.suspension.paused
        if state == "paused" and before == "asleep" and paused is not None:
            self._changes.paused(paused.by)
        if trace.active is not None and self._shown != before:
            trace.active.stateChanged(self.name, self._shown, listed(reasons))
        self._watches.said(state)
        self.account.stateChanged(state, reasons)

    def suspend(self, timeout: float | None = None) -> Deferred[Resumed]:
        """
        Suspend now; see L{Suspension.suspend}.

        Also fails when suspending is off, and with L{Paused}.
        """
        if self.mode == "off":
            return fail(SuspendFailure(f"{self.name}: suspending is off in the configuration"))
        paused = self.suspension.paused
        if paused is not None:
            return fail(Paused(paused.by))
        for settling in list(self.ledger.unsettled):
            settling.settle()
        return self._watches.suspend(timeout)

    def resume(self, reason: str) -> Deferred[None]:
        """Wake it, if it is not awake; fires when it is, and fails with L{Paused}."""
        paused = self.suspension.paused
        if paused is not None:
            return fail(Paused(paused.by))
        if self.suspension.state == "awake":
            return succeed(None)
        awake = _whenAwake(self.suspension)
        self.suspension.resume(reason)
        return awake

    def pause(self, by: str) -> Deferred[None]:
        """Stop it as it is; nothing but L{unpause} wakes it.  See L{Suspension.pause}."""
        if self.mode == "dry-run":
            return fail(SuspendFailure(f"{self.name}: a dry run stops nothing (suspend = dry-run)"))
        return self.suspension.pause(by)

    def unpause(self, reason: str) -> Deferred[None]:
        """Wake it, if it is paused; fires when it is awake, and at once if it is not paused."""
        if self.suspension.paused is None:
            return succeed(None)
        awake = _whenAwake(self.suspension)
        self.suspension.unpause(reason)
        return awake

    def _alarm(self, name: str) -> None:
        try:
            self.sources.locks.acquire(name, max(self.linger, ALARM_HOLD), self.alarms)
        except TooManyWakeLocks:
            self.suspension.resume(name)


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
