"""
When a sleeping thread has last run.

The kernel says by a clock of the processor that it ran on, which stands still while that serves
interrupts or another guest.  So what we last did on the same processor is compared with it.  Knows
nothing of what a thread waits for.
"""

from __future__ import annotations

import os
import re
import threading
import time

from chanproxy.adopt.threads import Gone, processorOf, readStart

_RAN = re.compile(rb"^se\.exec_start\s*:\s*(\d+)\.(\d{6})$", re.MULTILINE)
"""Milliseconds and nanoseconds, SPLIT_NS in kernel/sched/debug.c."""


def lastRan(pid: int, tid: int) -> int | None:
    """
    When a thread that waits has last run; the truth is that, or somewhat earlier.

    @return: nanoseconds (C{CLOCK_MONOTONIC}); None where the kernel does not tell, or we may not
        run where it ran.
    @raise Gone: there is no such thread.
    """
    processor, theirs = processorOf(pid, tid), _ran(pid, tid)
    if theirs is None:
        return None
    allowed = os.sched_getaffinity(0)
    try:
        # We are on that processor when this returns, so that our own figure is by the same clock.
        os.sched_setaffinity(0, {processor})
        try:
            ours = _ran(os.getpid(), threading.get_native_id())
        finally:
            os.sched_setaffinity(0, allowed)
    except OSError:
        return None
    # Ours is some moments old, and the clock may have stood still meanwhile: both make it late.
    return None if ours is None else time.monotonic_ns() - max(ours - theirs, 0)


def _ran(pid: int, tid: int) -> int | None:
    try:
        found = _RAN.search(readStart(f"/proc/{pid}/task/{tid}/sched"))
    except (Gone, OSError):
        # Not every kernel has it.
        return None
    return None if found is None else int(found[1]) * 1_000_000 + int(found[2])
