"""
Leaving a table of descriptors to a process that hangs in it.

Knows nothing of why it hangs.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Sequence

from chanproxy.kernel import sharing


def closeOne(fd: int) -> None:
    """Close a descriptor, here and now."""
    try:
        os.close(fd)
    except OSError:
        # Closed before; or EIO and ENOSPC, of a file's late write, after which it is closed.
        return


def leaveTable(waiting: Sequence[int], left: Callable[[], None]) -> None:
    """
    Leave a table of descriptors to a process that hangs, and empty it.

    @param waiting: descriptors whose close may hang as well: they stay in there, and in ours.
    @param left: called when we have one of our own, before the other is emptied.
    """
    outOf, into = os.pipe2(os.O_CLOEXEC)
    keep = sorted({*waiting, outOf, into})
    # Threads of ours keep the old table, and have to be able to wake the reactor.
    alone = len(os.listdir("/proc/self/task")) == 1
    emptying = sharing.start(lambda: _empty(outOf, keep, alone))
    try:
        sharing.leave()
        left()
        os.write(into, b"x")
    except BaseException:
        os.kill(emptying, signal.SIGKILL)
        raise
    finally:
        os.close(into)
        os.close(outOf)
        while not sharing.reaped(emptying):
            time.sleep(0.0001)


def _empty(outOf: int, keep: Sequence[int], alone: bool) -> None:
    """Close all that others have as well, so that no close is the last one."""
    os.read(outOf, 1)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep and (alone or not _isPipe(fd)):
            closeOne(fd)


def _isPipe(fd: int) -> bool:
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
    except OSError:
        return False
