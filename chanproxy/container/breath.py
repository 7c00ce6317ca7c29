"""
Breath: a sleeper runs for a moment, until each of its threads waits again.

Looks now and then, and says how it went; knows nothing of freezing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

BREATH = "breath"
"""Why it breathes when there is no time of its own that has come."""

BREATH_LOOKS = (0.001, 0.016)
"""Seconds between looks whether all wait again, in a breath: at first, and at the most."""

BREATH_KNOWN = 0.1
"""The same, where it is known how long something takes."""

BREATH_SECONDS = 0.25
"""Seconds after which a breath that finds no end is a wake."""


class Breathes(Protocol):
    """Whom a breath tells how it went."""

    def settled(self) -> None: ...
    def resume(self, reasons: tuple[str, ...]) -> None: ...


class Breath:
    """
    One of them.

    @ivar since: nanoseconds, when it began.
    """

    def __init__(
        self,
        inputs: Breathes,
        clock: IReactorTime,
        look: Callable[[], Deferred[None]],
        reason: str,
        since: int,
    ) -> None:
        """
        @param look: its Deferred fires when all wait, and fails when somebody is at work.
        @param reason: L{BREATH}, or which time it is for.
        """
        self._inputs = inputs
        self._clock = clock
        self._look = look
        self._reason = reason
        self.since = since
        self._end = 0.0
        self._call: IDelayedCall | None = None
        self._looking: Deferred[None] | None = None
        self._over = False

    def begin(self) -> None:
        """Begin to look, now that the container runs."""
        if not self._over:
            self._end = self._clock.seconds() + BREATH_SECONDS
            self._lookAfter(BREATH_LOOKS[0])

    def _lookAfter(self, pause: float) -> None:
        self._call = self._clock.callLater(pause, self._lookNow, pause)

    def _lookNow(self, pause: float) -> None:
        self._call = None
        self._looking = looking = self._look()
        looking.addCallbacks(self._settled, self._notYet, errbackArgs=(pause,))

    def _settled(self, _: None) -> None:
        self._looking = None
        self._inputs.settled()

    def _notYet(self, failure: Failure, pause: float) -> None:
        self._looking = None
        if self._over or failure.check(CancelledError):
            return
        left = self._end - self._clock.seconds()
        if left > 0:
            # A time that is nearly over is known; before that there is nothing to see.
            known = getattr(failure.value, "again", None)
            following = min(pause * 2, BREATH_LOOKS[1])
            if known is not None:
                following = min(max(known, pause), BREATH_KNOWN)
            self._lookAfter(min(following, max(left, BREATH_LOOKS[0])))
        else:
            found = failure.getErrorMessage()
            self._inputs.resume((found if self._reason == BREATH else self._reason,))

    def stop(self) -> None:
        """It is over, however it went.  Idempotent."""
        self._over = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
