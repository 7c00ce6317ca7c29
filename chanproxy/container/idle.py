"""
IdleWatch: suspends a container when it has been idle for the linger time, and says why it does not.

Costs a busy container four looks per linger time, and one that waits for its container nothing.
Knows the registry, the ledger and the life cycle; knows no channels, and of the container's own
work only whether there is any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.carry.ledger import Ledger
from chanproxy.container.outcomes import AlreadySuspended, NotIdle, Resumed, WakeLocksExist
from chanproxy.interfaces import FreezerNotReady, IFreezer
from chanproxy.wake.source import Source
from chanproxy.wake.sources import WakeSources
from chanproxy.words import LINGERING, safe

LOOKS = 4
"""Looks per linger time; the container sleeps at most one such part later than it could."""

SHORTEST_LOOK = 0.05
"""Seconds between looks at least, where the kernel has no event for what is waited for."""

BACKOFF = (1.0, 60.0)
"""Seconds until the next try after a freezer that failed: at first, and at the most."""

SHORT_SLEEPS = 3
"""Sleeps in a row that were too short, after which the container is left awake for a while."""

REFUSED = (0.1, 30.0)
"""Seconds until the next try when a look found the container at work: at least, and at the most."""

SHOWN = 5
"""Names of what keeps a container awake that are told; it may be thousands."""


class WorkLook(Protocol):
    """Whether the container works, without a freeze; see L{chanproxy.adopt.usage.Usage}."""

    def working(self) -> str: ...
    def begin(self) -> None: ...
    def lively(self) -> str: ...


@frozen
class Signs:
    """
    What shows that a container is not idle.

    @ivar sources: one of them is signalled.
    @ivar ledger: what it counts is not settled, or becomes more.
    @ivar work: it works, though no counter shows that; None: nobody looks.
    @ivar quiet: called when nothing has shown at two looks, one after the other.
    """

    sources: WakeSources
    ledger: Ledger
    work: WorkLook | None = None
    quiet: Callable[[], None] = lambda: None


class IdleWatch:
    """
    Decides when; L{chanproxy.container.suspension} does it.

    @ivar onWhy: called with L{why} whenever that is known anew; but for a freezer that fails.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        freezer: IFreezer,
        signs: Signs,
        suspend: Callable[[], Deferred[Resumed]],
        linger: float,
        shortSleep: float = 0.0,
    ) -> None:
        """
        @param suspend: see L{chanproxy.container.suspension.Suspension.suspend}.
        @param linger: seconds that every counter must have been zero before suspending.
        @param shortSleep: seconds; a container that is woken sooner than that again and again is
            left awake, for longer and longer.  0: it is not.
        """
        self._name = name
        self._clock = clock
        self._linger = linger
        self._freezer = freezer
        self._sources = signs.sources
        self._ledger = signs.ledger
        self._work = signs.work
        self._quietNow = signs.quiet
        self._suspendNow = suspend
        self._running = False
        self._call: IDelayedCall | None = None
        self._wait: Deferred[None] | None = None
        self._shortSleep = shortSleep
        self._shortSleeps = 0
        self._refusals = 0
        self._backoff = BACKOFF[0]
        self._seen = 0
        self._quietLooks = 0
        self._lively = ""
        self._why = ""
        self.onWhy: Callable[[str], None] = lambda why: None

    @property
    def why(self) -> str:
        """Why the container is awake, in words: of the last look, and empty before the first."""
        return self._why

    @why.setter
    def why(self, why: str) -> None:
        self._why = why
        self.onWhy(why)

    def start(self) -> None:
        """Begin to watch; waits until the freezer is ready."""
        self._running = True
        self._begin()

    def stop(self) -> None:
        """Watch no more.  Idempotent."""
        self._running = False
        if self._call is not None:
            self._call.cancel()
            self._call = None
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.cancel()

    def lingerFor(self, linger: float) -> None:
        """Have another linger time; if it is awake and quiet, that begins anew."""
        self._linger = linger
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._fromNow()

    def _begin(self) -> None:
        ready = self._freezer.whenReady()
        self._wait = ready
        if not ready.called:
            self.why = "it has no process yet"
        ready.addCallbacks(lambda _: self._fromNow(), self._failed)

    def _fromNow(self) -> None:
        """The container is awake: the linger time starts anew."""
        self._wait = None
        if self._running:
            self._seen = self._ledger.activity
            self._quietLooks = 0
            self._look()

    def _look(self) -> None:
        self._call = None
        for settling in list(self._ledger.unsettled):
            settling.settle()
        active = self._ledger.activity != self._seen
        self._seen = self._ledger.activity
        signalled = self._sources.signalled()
        working = self._work.working() if self._work is not None else ""
        if signalled:
            self._quietLooks = 0
            self.why = _names(signalled)
            if active:
                self._again(self._linger / LOOKS)
            else:
                self._waitForQuiet(signalled[0])
        elif working:
            self._quietLooks = 0
            self.why = working
            # Seldom: it goes on, as a rule.
            self._again(max(self._linger, SHORTEST_LOOK))
        elif active or not self._quietLooks:
            # What was counted came before this look, which is the first quiet one.
            self._quietLooks = 1
            self.why = self._lively or LINGERING
            if self._work is not None:
                self._work.begin()
            self._again(self._linger / LOOKS)
        elif self._quietLooks < LOOKS:
            if self._quietLooks == 1:
                self._quietNow()
            self._quietLooks += 1
            self._again(self._linger / LOOKS)
        else:
            self._suspendUnlessLively()

    def _suspendUnlessLively(self) -> None:
        self._lively = self._work.lively() if self._work is not None else ""
        if self._lively:
            self._quietLooks = 0
            self.why = self._lively
            self._again(max(self._linger, SHORTEST_LOOK))
        else:
            self._suspend()

    def _again(self, delay: float) -> None:
        self._call = self._clock.callLater(delay, self._look)

    def _waitForQuiet(self, source: Source) -> None:
        """No more looks, if there is an event for the end of what keeps the container awake."""
        try:
            for settling in self._ledger.unsettled:
                settling.arm()
            # One of them is enough: when it is quiet, a look finds the next.
            wait = source.whenQuiet()
        except OSError as error:
            # Out of descriptors: awake is the safe side, and looking is the way that needs none.
            self._log.warn("{name}: looks again: {error}", name=self._name, error=error)
            self._again(max(self._linger, BACKOFF[0]))
            return
        if wait is None:
            self._again(max(self._linger / LOOKS, SHORTEST_LOOK))
            return
        self._wait = wait
        # A counter that is closed while we wait has left the registry: no reason to stay up.
        wait.addBoth(self._quiet)

    def _quiet(self, result: object) -> None:
        self._wait = None
        if self._running:
            self._look()

    def _suspend(self) -> None:
        self.why = ""
        self._suspendNow().addCallbacks(self._resumed, self._failed)

    def _resumed(self, result: Resumed) -> None:
        self._backoff = BACKOFF[0]
        self._refusals = 0
        if result.asleep >= self._shortSleep * 1e9:
            self._shortSleeps = 0
        else:
            self._shortSleeps += 1
        over = self._shortSleeps - SHORT_SLEEPS
        if not self._running:
            return
        if over < 0:
            self._fromNow()
            return
        # Bounded before it is a power: weeks of short sleeps are a large number.
        pause = min(BACKOFF[0] * 2 ** min(over, 16), BACKOFF[1])
        self.why = (
            f"left awake for {pause:g} s: it was woken within {self._shortSleep:g} s "
            f"{self._shortSleeps} times in a row, the last time by {result.reason}"
        )
        self._call = self._clock.callLater(pause, self._fromNow)

    def _failed(self, failure: Failure) -> None:
        self._wait = None
        if not self._running or failure.check(CancelledError):
            return
        why = self._why = failure.getErrorMessage()
        again = getattr(failure.value, "again", None)
        if again is not None:
            # It is known what for, and how long.
            self.why = why
            self._call = self._clock.callLater(max(again, REFUSED[0]), self._fromNow)
        elif failure.check(NotIdle):
            # A try may make its event loops turn: seldom, and less and less often.
            self.why = why
            pause = min(max(self._linger, REFUSED[0]) * 2**self._refusals, REFUSED[1])
            self._refusals = min(self._refusals + 1, 16)
            self._call = self._clock.callLater(pause, self._fromNow)
        elif failure.check(WakeLocksExist, AlreadySuspended):
            self._fromNow()
        elif isinstance(getattr(failure.value, "__cause__", None), FreezerNotReady):
            self._begin()
        else:
            self._log.error(
                "{name}: stays awake, next try in {pause} s: {why}",
                name=self._name,
                pause=self._backoff,
                why=safe(why),
            )
            self._call = self._clock.callLater(self._backoff, self._fromNow)
            self._backoff = min(self._backoff * 2, BACKOFF[1])


def _names(sources: Sequence[Source]) -> str:
    names = sorted(source.name for source in sources)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
