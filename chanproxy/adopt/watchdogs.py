"""
Watchdogs: processes that have to say within a time that they live, C{sd_watchdog_enabled(3)}.

Knows processes by their numbers; knows nothing of freezing.
"""

from __future__ import annotations

from collections.abc import Sequence

from chanproxy.adopt.reading import Reading
from chanproxy.adopt.subject import Subject

_LIMIT = b"WATCHDOG_USEC"
"""C{sd_watchdog_enabled(3)}: microseconds."""


def shortestWatchdog(subjects: Sequence[Subject], reading: Reading) -> float | None:
    """The shortest time of these processes, in seconds; None without any."""
    # Asked for each time: a program may be another one by now, in the same process.
    limits = (_limitOf(subject.pid, reading) for subject in subjects)
    return min((limit for limit in limits if limit is not None), default=None)


def _limitOf(pid: int, reading: Reading) -> float | None:
    try:
        # The environment is memory of the program, which may be anywhere.
        found = reading.variable(pid, _LIMIT)
    except OSError:
        # What may not be read, or is gone, asks for nothing.
        return None
    return int(found) / 1e6 if found.isdigit() and int(found) > 0 else None
