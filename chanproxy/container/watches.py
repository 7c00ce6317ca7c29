"""
Watches: all that looks at one container, made for its mode, its bounds and what it wakes by.

So what is set anew is made anew, in one place, and only while the container is awake: nothing of it
is in use then.  Knows the life cycle by its states; knows no channels and no names of keys.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from chanproxy.adopt.adopted import Place
from chanproxy.adopt.adopter import Adopter
from chanproxy.adopt.deadlines import IGNORE, NotYet
from chanproxy.adopt.drywatch import DryWatch
from chanproxy.adopt.settings import Adoption
from chanproxy.adopt.subject import StillBusy
from chanproxy.carry.ledger import Ledger
from chanproxy.container.acts import notIdle
from chanproxy.container.bounds import Bounds, Quota
from chanproxy.container.core import Sleeper
from chanproxy.container.freezing import FreezeWatch
from chanproxy.container.idle import IdleWatch, Signs
from chanproxy.container.outcomes import NotIdle, Resumed
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.sleeping import TIMERS, SleepWatch
from chanproxy.container.suspension import Suspension
from chanproxy.container.visitors import Visitors
from chanproxy.interfaces import ChanproxyReactor, IFreezer, ILocatedFreezer
from chanproxy.wake.sources import WakeSources

ADOPTED_FREEZE = 0.05
"""
Seconds that a freeze may take of a container that wakes by its own sockets: until it is frozen,
nobody knows what it waits for.  It takes some 80 microseconds.
"""

CHANGED = "reconfigured"
"""The resume reason when it is to sleep in another way than it does."""


@frozen
class Told:
    """
    Who is told of what is seen while it is awake.

    @ivar why: called with the reason why it stays awake, at each look; see L{IdleWatch}.
    @ivar quiet: called when it is idle, as it seems; see L{Signs}.
    """

    why: Callable[[str], None] = lambda why: None
    quiet: Callable[[], None] = lambda: None


@frozen
class Looked:
    """
    What is looked at.

    @ivar freezer: what it is frozen by.
    @ivar real: the same, but in a dry run, which freezes nothing.
    """

    name: str
    reactor: ChanproxyReactor
    freezer: IFreezer
    real: IFreezer
    sources: WakeSources
    ledger: Ledger
    suspension: Suspension
    quota: Quota
    signals: SignalTrace | None
    told: Told = Told()

    @property
    def dry(self) -> bool:
        """Whether nothing is stopped."""
        return self.freezer is not self.real


class Watches:
    """
    Those of one container.

    @ivar mode: C{auto}, C{manual}, C{off} or C{dry-run}.
    """

    def __init__(
        self, looked: Looked, mode: str, bounds: Bounds, adoption: Adoption | None
    ) -> None:
        self.mode = mode
        self._looked = looked
        self._bounds = bounds
        self._adoption = adoption
        self._begun = False
        self._stale = False
        self._paused = False
        self._idle: IdleWatch | None = None
        self._adopter = self._adopts()
        self._visitors = Visitors(looked.freezer, holds=adoption is None)
        self._make()

    def _adopts(self) -> Adopter | None:
        looked = self._looked
        if self._adoption is None:
            return None
        place = Place(looked.quota.roomToAdopt, looked.sources.attach)
        settings = (looked.real, self._adoption, place)
        return Adopter(looked.name, looked.reactor, *settings, stopped=not looked.dry)

    def _silenced(self) -> NotIdle | None:
        """Why one is not frozen that would be ended for its silence."""
        watched = ILocatedFreezer(self._looked.real, None)
        silence = 0.0 if watched is None else watched.watchdog()
        if not silence or self._adoption is not None:
            # Where it is looked into, it is seen when it has to say something.
            return None
        return NotIdle(
            f"busy: it has to say every {silence:g} s that it lives, for a watchdog; frozen it "
            'would do so in time with wake-on = "sockets"',
            silence,
        )

    def _make(self) -> None:
        """All but the adopter, which learns, and what may have begun."""
        looked, bounds, adopter = self._looked, self._bounds, self._adopter
        longest = bounds.maxAsleep or None
        if adopter is not None and looked.dry:
            # What runs has no need of a breath.
            longest = None
        looked.suspension.sleepBy(
            Sleeper(
                None if adopter is None else adopter.look,
                adopter.foresee if adopter is not None and not looked.dry else None,
                longest,
            )
        )
        parts = (looked.name, looked.reactor, looked.freezer, bounds)
        self._freezeWatch = FreezeWatch(
            *parts, looked.suspension.giveUp, None if adopter is None else ADOPTED_FREEZE
        )
        ignores = self._adoption is not None and self._adoption.timeouts != IGNORE
        self._sleepWatch = SleepWatch(
            *parts, looked.suspension.resume, looked.signals, 0 if ignores else TIMERS
        )
        self._dryWatch: DryWatch | None = None
        if looked.dry and adopter is not None:
            self._dryWatch = adopter.dryWatch(bounds.linger, looked.suspension.resume)

    def begin(self) -> None:
        """Begin to suspend it when idle, if it is to be suspended by itself."""
        self._begun = True
        if self._adopter is not None:
            self._adopter.stateChanged("awake")
        self._watchIdle()

    def _watchIdle(self) -> None:
        if self.mode not in ("auto", "dry-run"):
            return
        looked, adopter = self._looked, self._adopter
        self._idle = IdleWatch(
            looked.name,
            looked.reactor,
            looked.freezer,
            Signs(
                looked.sources,
                looked.ledger,
                None if adopter is None else adopter.usage(),
                looked.told.quiet,
            ),
            self.suspend,
            self._bounds.linger,
            0.0 if self._adoption is None else self._adoption.shortSleep,
        )
        self._idle.onWhy = looked.told.why
        self._idle.start()

    def suspend(self, timeout: float | None = None) -> Deferred[Resumed]:
        """
        Suspend it now, unless it is foreseen that the freeze would fail, or do harm.

        @return: see L{Suspension.suspend}.
        """
        suspension = self._looked.suspension
        refusal = None
        if suspension.state == "awake":
            refusal = self._silenced() or self._visitors.refusal()
        if refusal is not None:
            return fail(refusal)
        # What is held for it, and what has come, is said before what it does itself.
        sources = self._looked.sources
        known = suspension.state != "awake" or sources.closed or sources.signalled()
        if self._adopter is None or known:
            return suspension.suspend(timeout)
        foreseen = self._adopter.foresee().addErrback(_refused)
        return foreseen.addCallback(lambda _: suspension.suspend(timeout))

    def change(self, mode: str, bounds: Bounds, adoption: Adoption | None) -> None:
        """
        From now on it is another mode, or there are others: neither to nor from a dry run.

        Another linger time is all that changes while it sleeps.  For anything else it is woken.

        @param adoption: as it was, or with other settings.
        """
        same = (mode, adoption) == (self.mode, self._adoption) and bounds.sleepsAs(self._bounds)
        if self._idle is not None and bounds.linger != self._bounds.linger:
            self._idle.lingerFor(bounds.linger)
        self.mode, self._bounds, self._adoption = mode, bounds, adoption
        if same:
            return
        self._stale = True
        if self._looked.suspension.state == "awake":
            self._makeAnew()
        else:
            self._looked.suspension.resume(CHANGED)

    def _makeAnew(self) -> None:
        self._stale = False
        self._stopAll()
        if self._adopter is not None and self._adoption is not None:
            self._adopter.set(self._adoption)
        self._make()
        if self._begun:
            self._watchIdle()

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """The container's state, and why; see L{chanproxy.container.suspension}."""
        if self._adopter is not None:
            self._adopter.stateChanged(state, reasons)
        if state in ("suspending", "refreezing"):
            self._sleepWatch.beforeFreeze()
            self._freezeWatch.start()
        elif state == "pausing":
            # Or it would look, as long as that lasts, for nothing.
            self._paused = self._idle is not None
            self.stopIdle()
            self._freezeWatch.start(patient=True)
        else:
            self._freezeWatch.stop()
        if state == "asleep":
            waiting = () if self._adopter is None else self._adopter.signalWaiters
            # Once more: some may have come in since it was seen that there is none.
            self._sleepWatch.start(waiting, self._visitors.sent())
        else:
            self._sleepWatch.stop()
        if state == "awake":
            paused, self._paused = self._paused, False
            if self._stale:
                self._makeAnew()
            elif paused:
                self._watchIdle()

    def said(self, state: str) -> None:
        """Likewise, when all else knows of it: a dry run is looked on from now on."""
        if self._dryWatch is not None:
            self._dryWatch.stateChanged(state)

    def stopIdle(self) -> None:
        """Suspend it by itself no more.  Idempotent."""
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.stop()

    def _stopAll(self) -> None:
        self.stopIdle()
        self._freezeWatch.stop()
        self._sleepWatch.stop()
        if self._dryWatch is not None:
            self._dryWatch.stop()

    def stop(self) -> None:
        """Look no more; it is thawed.  Idempotent."""
        self._stopAll()
        if self._adopter is not None:
            self._adopter.close()

    @property
    def why(self) -> str | None:
        """Why it is awake, in words; None: nobody looks whether it is idle."""
        return None if self._idle is None else self._idle.why

    @property
    def passedOver(self) -> tuple[str, ...]:
        """The times of its own that do not wake it, in words."""
        return () if self._adopter is None else self._adopter.passedOver

    @property
    def signals(self) -> str:
        """How signals are noticed while it sleeps: C{told}, C{looked_for} or C{never}."""
        return self._sleepWatch.notices


def _refused(failure: Failure) -> None:
    failure.trap(StillBusy, NotYet)
    raise notIdle(failure) from failure.value
