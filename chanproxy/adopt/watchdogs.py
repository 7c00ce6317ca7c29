"""
Watchdogs: processes that have to say within a time that they live, C{sd_watchdog_enabled(3)}.

Knows processes by their numbers; knows nothing of freezing.
"""

from __future__ import annotations

from collections.abc import Sequence

from chanproxy._processes import startTime
from chanproxy.adopt.subject import Subject


class Watchdogs:
    """Those of one container; each process is asked once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, float | None]] = {}

    def shortest(self, subjects: Sequence[Subject]) -> float | None:
        """The shortest of their times, in seconds; None without any."""
        before, self._known = self._known, {}
        found = []
        for subject in subjects:
            known = before.get(subject.pid)
            started = startTime(subject.pid)
            if known is None or known[0] != started:
                known = (started, _limitOf(subject.pid))
            self._known[subject.pid] = known
            if known[1] is not None:
                found.append(known[1])
        return min(found, default=None)


def _limitOf(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        # What may not be read, or is gone, asks for nothing.
        return None
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name == b"WATCHDOG_USEC" and value.isdigit() and int(value) > 0:
            return int(value) / 1e6
    return None
