"""
Alarms: wake a container at a time of day.

Its own timers do not wake it while it is frozen.  Knows nothing of containers: it calls a function.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet

from chanproxy.kernel import calls
from chanproxy.kernel.poller import Poller


class AlarmError(Exception):
    """An alarm cannot be set; those that are set stay."""


class TooManyAlarms(AlarmError):
    """As many as are allowed are set."""


LATEST = 16
"""Names of alarms that went off which are remembered."""


class Alarms:
    """
    The alarms of one container, by name; each goes off once.

    @ivar limit: how many can be set; may be changed.
    @ivar latest: the names of those that went off last.
    """

    def __init__(self, reactor: IReactorFDSet, limit: int, wentOff: Callable[[str], None]) -> None:
        self.limit = limit
        self._wentOff = wentOff
        self._poller = Poller(reactor)
        self._timers: dict[str, tuple[int, float]] = {}
        self.latest: deque[str] = deque(maxlen=LATEST)
        self._closed = False

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, name: str) -> bool:
        return name in self._timers

    def all(self) -> dict[str, float]:
        """Names and Unix times of what is set."""
        return {name: at for name, (_, at) in self._timers.items()}

    def set(self, name: str, at: float) -> None:
        """
        Go off at a time; replaces an alarm of the same name.

        @param at: Unix time, seconds; what is past goes off at once.
        @raise TooManyAlarms: as many as are allowed are set.
        @raise AlarmError: they are closed.
        @raise OSError: out of descriptors; an alarm of the same name stays as it was.
        """
        if self._closed:
            raise AlarmError(f"the alarm {name!r} cannot be set: its container has stopped")
        if name not in self._timers and len(self._timers) >= self.limit:
            raise TooManyAlarms(f"{self.limit} alarms are set already; cancel some")
        timer = calls.timerAt(at)
        try:
            self._poller.watch(timer, select.EPOLLIN, lambda _: self._expired(name))
        except OSError:
            os.close(timer)
            raise
        self.cancel(name)
        self._timers[name] = (timer, at)

    def _expired(self, name: str) -> None:
        self.cancel(name)
        self.latest.append(name)
        self._wentOff(name)

    def cancel(self, name: str) -> bool:
        """Forget an alarm; whether there was one."""
        timer, _ = self._timers.pop(name, (-1, 0.0))
        if timer < 0:
            return False
        self._poller.unwatch(timer)
        os.close(timer)
        return True

    def close(self) -> None:
        """Forget all; none can be set any more.  Idempotent."""
        self._closed = True
        for name in list(self._timers):
            self.cancel(name)
