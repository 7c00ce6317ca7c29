"""
Watchdogs: processes that have to say within a time that they live, C{sd_watchdog_enabled(3)}.

Knows processes by their numbers; knows nothing of freezing.
"""

from __future__ import annotations

from collections.abc import Sequence

from chanproxy.adopt.subject import Subject


def shortestWatchdog(subjects: Sequence[Subject]) -> float | None:
    """The shortest time of these processes, in seconds; None without any."""
    # Asked for each time: a program may be another one by now, in the same process.
    limits = (_limitOf(subject.pid) for subject in subjects)
    return min((limit for limit in limits if limit is not None), default=None)


def _limitOf(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            entries = file.readall().split(b"\0")
    except OSError:
        # What may not be read, or is gone, asks for nothing.
        return None
    for entry in entries:
        name, _, value = entry.partition(b"=")
        if name == b"WATCHDOG_USEC" and value.isdigit() and int(value) > 0:
            return int(value) / 1e6
    return None
