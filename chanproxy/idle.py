"""
IdleWatch: suspends a container when all its counters have been zero for the linger time.

Costs a busy container four looks per linger time, and one that waits for its container nothing.
Knows the registry, the ledger and the life cycle; knows no channels.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.handled import Ledger
from chanproxy.interfaces import FreezerNotReady, IFreezer
from chanproxy.suspend import AlreadySuspended, Suspension, WakeLocksExist
from chanproxy.wake import Source, WakeSources

LOOKS = 4
"""Looks per linger time; the container sleeps at most one such part later than it could."""

SHORTEST_LOOK = 0.05
"""Seconds between looks at least, where the kernel has no event for what is waited for."""

BACKOFF = (1.0, 60.0)
"""Seconds until the next try after a freezer that failed: at first, and at the most."""


class IdleWatch:
    """Decides when; L{Suspension} does it."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        linger: float,
        freezer: IFreezer,
        sources: WakeSources,
        ledger: Ledger,
        suspension: Suspension,
    ) -> None:
        """
        @param linger: seconds that every counter must have been zero before suspending.
        """
        self._name = name
        self._clock = clock
        self._linger = linger
        self._freezer = freezer
        self._sources = sources
        self._ledger = ledger
        self._suspension = suspension
        self._running = False
        self._call: IDelayedCall | None = None
        self._wait: Deferred[None] | None = None
        self._backoff = BACKOFF[0]
        self._seen = 0
        self._quietLooks = 0

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

    def _begin(self) -> None:
        ready = self._freezer.whenReady()
        self._wait = ready
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
        if signalled:
            self._quietLooks = 0
            if active:
                self._again(self._linger / LOOKS)
            else:
                self._waitForQuiet(signalled[0])
        elif active:
            # What was counted came before this look, which is the first quiet one.
            self._quietLooks = 1
            self._again(self._linger / LOOKS)
        elif self._quietLooks < LOOKS:
            self._quietLooks += 1
            self._again(self._linger / LOOKS)
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
        self._suspension.suspend().addCallbacks(self._resumed, self._failed)

    def _resumed(self, result: object) -> None:
        self._backoff = BACKOFF[0]
        if self._running:
            self._fromNow()

    def _failed(self, failure: Failure) -> None:
        self._wait = None
        if not self._running or failure.check(CancelledError):
            return
        if failure.check(WakeLocksExist, AlreadySuspended):
            self._fromNow()
        elif isinstance(getattr(failure.value, "__cause__", None), FreezerNotReady):
            self._begin()
        else:
            self._log.error(
                "{name}: stays awake, next try in {pause} s: {why}",
                name=self._name,
                pause=self._backoff,
                why=failure.getErrorMessage(),
            )
            self._call = self._clock.callLater(self._backoff, self._fromNow)
            self._backoff = min(self._backoff * 2, BACKOFF[1])
