"""
How many descriptors this process has, may have, and keeps in reserve.

Knows nothing of what they are used for.
"""

from __future__ import annotations

import os
import resource


class TooManyDescriptors(Exception):
    """
    A limit of descriptors is reached; nothing was taken.

    @ivar limit: its key, or C{RLIMIT_NOFILE}.
    """

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


RESERVE = 512
"""
Descriptors that new connections leave free, for wakes, for calls by root and for messages: two
messages with as many as the kernel carries (253, L{chanproxy.kernel.calls.SCM_MAX_FD}).  Never more
than a quarter of the limit.
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


def reserve() -> int:
    """How many new connections leave free."""
    return min(RESERVE, limit() // 4)


def scarce() -> bool:
    """Whether only the reserve is left, so that no new connection should be accepted."""
    return limit() - used() <= reserve()


def spare() -> int:
    """
    How many can be opened for what others could do without: what is given by calls, and what
    sleeping containers are watched by.  Half of the reserve more stays free, for new connections.
    """
    return max(left() - reserve() - reserve() // 2, 0)


def whyScarce() -> str:
    """Why no connection should be accepted, and what to do; empty when one can be."""
    if not scarce():
        return ""
    return f"{left()} descriptors are left of {limit()}; raise the limit (ulimit -n)"
