"""
FreezeWatch: says what a freeze waits for, when it takes long, and gives it up in the end.

Knows the freezer only as a list of tasks; what giving up means is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.interfaces import FreezerError, IFreezer

NAMED = 20
"""As many tasks are named; a line with thousands of them helps nobody."""


class FreezeWatch:
    """Watches one freeze after another."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        freezer: IFreezer,
        firstWarning: float,
        limit: float,
        expired: Callable[[str], None],
    ) -> None:
        """
        @param firstWarning: seconds until the first warning, more than 0; each of the following
            comes after twice the time.
        @param limit: seconds until C{expired} is called; no warning comes after that.
        @param expired: called once for each L{start}, with a sentence for the user; the watch has
            stopped then.
        """
        self._name = name
        self._clock = clock
        self._freezer = freezer
        self._firstWarning = firstWarning
        self._limit = limit
        self._expired = expired
        self._warning: IDelayedCall | None = None
        self._end: IDelayedCall | None = None

    def start(self) -> None:
        """A freeze begins.  Idempotent."""
        if self._end is None:
            self._end = self._clock.callLater(self._limit, self._expire)
            self._warnAfter(self._firstWarning, 0)

    def stop(self) -> None:
        """The freeze is over, well or not.  Idempotent."""
        for call in (self._warning, self._end):
            if call is not None and call.active():
                call.cancel()
        self._warning = self._end = None

    def _warnAfter(self, passed: float, now: float) -> None:
        # A warning at the limit itself would only say the same as the end.
        if passed < self._limit:
            self._warning = self._clock.callLater(passed - now, self._warn, passed)

    def _warn(self, passed: float) -> None:
        self._warning = None
        self._log.warn(
            "{name}: not frozen after {passed:g} s, waiting for: {tasks}",
            name=self._name,
            passed=passed,
            tasks=self._tasks(),
        )
        self._warnAfter(passed * 2, passed)

    def _expire(self) -> None:
        tasks = self._tasks()
        self.stop()
        self._expired(
            f"not frozen within {self._limit:g} s: {tasks};"
            " raise freeze-limit, or see what holds these tasks"
        )

    def _tasks(self) -> str:
        """The tasks that are not frozen, in words."""
        try:
            tasks = self._freezer.unfrozenTasks()
        except (FreezerError, OSError) as error:
            return f"tasks that cannot be listed ({error})"
        if not tasks:
            return "no task that can be seen from here"
        more = [f"and {len(tasks) - NAMED} more"] if len(tasks) > NAMED else []
        return ", ".join([*tasks[:NAMED], *more])
