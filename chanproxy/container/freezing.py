"""
FreezeWatch: says what a freeze waits for, when it takes long, and gives it up in the end.

Knows the freezer only as a list of tasks; what giving up means is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.container.bounds import Bounds
from chanproxy.interfaces import FreezerError, IFreezer

PATIENCE = 0.05
"""
Seconds until the next look when the time is over and no task can be seen that is not frozen.

As a rule the freeze is complete, and the reactor has not got to hear of it: it was busy, and does
what is due before it reads.
"""

UNSEEN = "no task that can be seen from here"

_NUMBER = re.compile(r"\[\d+\]")

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
        bounds: Bounds,
        expired: Callable[[str], None],
        stall: float | None = None,
    ) -> None:
        """
        @param bounds: when the first warning comes (each of the following after twice the time),
            and when C{expired} is called; no warning comes after that.
        @param stall: seconds, of a container to which nobody listens while it freezes: after that
            it is given up as soon as a task is seen that is not frozen.
        @param expired: called once for each L{start}, with a sentence for the user; the watch has
            stopped then.
        """
        self._name = name
        self._clock = clock
        self._freezer = freezer
        self._firstWarning = bounds.freezeWarning
        self._limit = limit = bounds.freezeLimit
        self._stall = limit if stall is None else min(limit, stall)
        self._expired = expired
        self._began = 0.0
        self._warning: IDelayedCall | None = None
        self._end: IDelayedCall | None = None

    def start(self, patient: bool = False) -> None:
        """
        A freeze begins.  Idempotent.

        @param patient: it is to be frozen, whatever it hears meanwhile: it has all the time.
        """
        if self._end is None:
            self._began = self._clock.seconds()
            stall = self._limit if patient else self._stall
            self._end = self._clock.callLater(stall, self._expire, False)
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
        tasks = self._tasks()
        if self._end is None:
            # To ask has ended the freeze: somebody has thawed it.
            return
        self._log.warn(
            "{name}: not frozen after {passed:g} s, waiting for: {tasks}",
            name=self._name,
            passed=passed,
            tasks=tasks,
        )
        self._warnAfter(passed * 2, passed)

    def _expire(self, last: bool) -> None:
        tasks = self._unfrozen()
        if self._end is None:
            return
        passed = self._clock.seconds() - self._began
        if not tasks and not last:
            # Until the limit: nobody knows better what else the caller is at.  Then once more, and
            # no longer: tasks that cannot be seen from here may hold it, after all.
            last = passed >= self._limit
            self._end = self._clock.callLater(PATIENCE, self._expire, last)
            return
        self.stop()
        within, advice = passed, "meanwhile it hears none of its sockets"
        if passed >= self._limit:
            within, advice = self._limit, "raise freeze-limit, or see what holds these tasks"
        self._expired(f"not frozen within {round(within, 3):g} s: {tasks or UNSEEN}; {advice}")

    def _tasks(self) -> str:
        return self._unfrozen() or UNSEEN

    def _unfrozen(self) -> str:
        """The tasks that are not frozen, in words; nothing, if none can be seen."""
        try:
            tasks = self._freezer.unfrozenTasks()
        except (FreezerError, OSError) as error:
            return f"tasks that cannot be listed ({error})"
        if not tasks:
            return ""
        # Threads of one program that are alike are one to people.
        alike: dict[str, list[str]] = {}
        for task in tasks:
            alike.setdefault(_NUMBER.sub("", task), []).append(task)
        words = [
            each[0] if len(each) == 1 else f"{each[0]} and {len(each) - 1} like it"
            for each in alike.values()
        ]
        more = [f"and {len(words) - NAMED} more"] if len(words) > NAMED else []
        return "; ".join([*words[:NAMED], *more])
