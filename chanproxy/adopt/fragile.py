"""
Files that a poll changes, or that answer each asker differently: which they are, and what to do.

Polling a duplicate of such a file takes the news from the program that it is for.  Knows links and
file systems; polls nothing.

The poll methods of the kernel that do so, all that were found up to Linux 6.18:

  - C{signalfd_poll} looks at the signals of the thread that asks (C{current}).  An epoll that is
    asked about one that is on its ready list, and finds nothing, takes it off that list for good.
  - C{mounts_poll} (C{/proc/PID/mounts}, C{mountinfo}, C{mountstats}), C{swaps_poll} and
    C{proc_sys_poll} (C{/proc/sys/kernel/hostname} and so on) note in the open file what was told.
  - C{psi_trigger_poll} (C{/proc/pressure/*}, C{*.pressure} of a cgroup) resets the trigger's event.
  - C{perf_poll} takes the events of the ring with C{atomic_xchg}.
  - C{io_uring_poll} does not, but what it tells of may be posted by a thread of the program only:
    see L{chanproxy.adopt.rings}.
  - C{rds_poll} forgets that congestion was seen; it can only be told once too often.  Left alone.
  - C{vb2_poll}, C{mei_poll} and the like in drivers begin to read when first asked: the program has
    asked before.  Left alone.
"""

from __future__ import annotations

import enum
import re

from chanproxy.adopt.frozenwatch import watchesFrozen
from chanproxy.kernel import calls


class Treatment(enum.Enum):
    """How something is watched."""

    DUPLICATE = enum.auto()
    """By a duplicate: asking it changes nothing."""

    LEAVE = enum.auto()
    """Not: it is looked for elsewhere, or cannot happen in a container that is frozen."""

    REOPEN = enum.auto()
    """By an open file of our own for the same thing."""

    REFUSE = enum.auto()
    """It cannot be watched."""


_PROC, _CGROUP2 = 0x9FA0, 0x63677270
"""C{linux/magic.h}."""

# Wherever procfs is mounted, and also after the process that a file is about has ended.
_TOLD_ONCE = re.compile(r"/(?:mounts|mountinfo|mountstats|swaps|sys/.+)(?: \(deleted\))?")
_PRESSURE = re.compile(r"/pressure/\w+|\.pressure")


def treatmentOf(path: str, link: str) -> Treatment:
    """
    How to watch an open file.

    @param path: C{/proc/PID/fd/N}, or one of ours.
    @param link: what that says; see C{proc(5)}.
    @raise OSError: it is not open.
    """
    if link.startswith("anon_inode:"):
        if "signalfd" in link:
            return Treatment.LEAVE
        if "inotify" in link and watchesFrozen(path.replace("/fd/", "/fdinfo/")):
            return Treatment.LEAVE
        return Treatment.REFUSE if "perf_event" in link else Treatment.DUPLICATE
    if not link.startswith("/"):
        return Treatment.DUPLICATE
    toldOnce, pressure = _TOLD_ONCE.search(link), _PRESSURE.search(link)
    if toldOnce is None and pressure is None:
        return Treatment.DUPLICATE
    kind = calls.fileSystem(path)
    if kind == _CGROUP2 and pressure is not None:
        # Who is frozen is under no pressure.  Of another cgroup it is told when it is awake again:
        # the event stays in its trigger.
        return Treatment.LEAVE
    if kind != _PROC:
        return Treatment.DUPLICATE
    return Treatment.REFUSE if pressure is not None else Treatment.REOPEN
