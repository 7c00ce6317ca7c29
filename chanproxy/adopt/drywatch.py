"""
DryWatch: tells when a container that was not frozen would have woken.

Its own threads take what comes before anybody else can see it, so that work is looked for, not
events: work that is short may come and go between two looks.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from chanproxy.adopt.usage import Usage
from chanproxy.wake.source import SourceGroup

SHORTEST = 0.25
"""Seconds between looks, at least."""


class DryWatch:
    """One container's, used for one would-be sleep after another."""

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        usage: Usage,
        look: Callable[[], Deferred[SourceGroup]],
        woken: Callable[[str], None],
    ) -> None:
        """
        @param interval: seconds between looks.
        @param look: looks into the container; see L{chanproxy.adopt.inspector.Inspector}.
        @param woken: called with the reason, once for each L{start}; the watch has stopped then.
        """
        self._clock = clock
        self._interval = max(interval, SHORTEST)
        self._usage = usage
        self._lookInto = look
        self._woken = woken
        self._call: IDelayedCall | None = None
        self._looking: Deferred[SourceGroup] | None = None

    def stateChanged(self, state: str) -> None:
        """The state that the container would have."""
        if state == "asleep":
            self.start()
        else:
            self.stop()

    def start(self) -> None:
        """The container would be asleep now.  Idempotent."""
        if self._call is None and self._looking is None:
            self._usage.working()
            self._again()

    def stop(self) -> None:
        """It would not any more.  Idempotent."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _again(self) -> None:
        self._call = self._clock.callLater(self._interval, self._look)

    def _look(self) -> None:
        self._call = None
        working = self._usage.working()
        if working:
            self._woken(working)
            return
        looking = self._looking = self._lookInto()
        looking.addCallbacks(self._stillIdle, self._atWork)

    def _stillIdle(self, found: SourceGroup) -> None:
        self._looking = None
        found.close()
        self._again()

    def _atWork(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._looking = None
            self._woken(failure.getErrorMessage())
