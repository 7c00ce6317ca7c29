"""
How many descriptors this process has, may have, and keeps in reserve.

Knows nothing of what they are used for.
"""

from __future__ import annotations

import os
import resource

RESERVE = 512
"""
Descriptors that new connections leave free: two messages with as many as the kernel carries (253,
L{chanproxy._syscalls.SCM_MAX_FD}).  Never more than a quarter of the limit.
"""


def limit() -> int:
    """How many this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raiseLimit() -> int:
    """
    Raise the soft limit to the hard one: epoll has no use for a low one, C{select} does.

    @return: the limit now.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def used() -> int:
    """How many are open."""
    # From Linux 6.2 on the directory's size; before, it is 0.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1


def left() -> int:
    """How many more can be opened."""
    return max(limit() - used(), 0)


def scarce() -> bool:
    """Whether only the reserve is left, so that no new connection should be accepted."""
    most = limit()
    return most - used() <= min(RESERVE, most // 4)
