"""
Watchdogs: processes that have to say within a time that they live, C{sd_watchdog_enabled(3)}.

Knows processes by their numbers; knows nothing of freezing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chanproxy.adopt.subject import Subject

_LIMIT = re.compile(rb"(?:\A|\0)WATCHDOG_USEC=(\d+)(?:\0|\Z)")
"""C{sd_watchdog_enabled(3)}: microseconds."""


def shortestWatchdog(subjects: Sequence[Subject]) -> float | None:
    """The shortest time of these processes, in seconds; None without any."""
    # Asked for each time: a program may be another one by now, in the same process.
    limits = (_limitOf(subject.pid) for subject in subjects)
    return min((limit for limit in limits if limit is not None), default=None)


def _limitOf(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            found = _LIMIT.search(file.readall())
    except OSError:
        # What may not be read, or is gone, asks for nothing.
        return None
    return int(found[1]) / 1e6 if found is not None and int(found[1]) > 0 else None
