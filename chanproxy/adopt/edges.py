"""
Edges: a TCP connection whose program has been told of all that is there, and waits for more.

Watched by itself such a connection is ready, for what the program knows already: that it can be
written to, above all.  Whether it was told cannot be asked, but the kernel notes when something
came last; if that was before the freeze, the program had been told of it: it was waiting again.
"""

from __future__ import annotations

import os
import select
import struct
import time

from chanproxy.adopt.flow import ESTABLISHED
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeDuplicate

_MARGIN = 0.02
"""Seconds; the kernel's clock has ticks of up to 10 ms."""

_ORDINARY = (
    select.EPOLLIN
    | select.EPOLLOUT
    | select.EPOLLRDNORM
    | select.EPOLLWRNORM
    | select.EPOLLRDBAND
    | select.EPOLLWRBAND
)
"""What data and acknowledgements bring about; the rest has no time."""

# struct tcp_info, linux/tcp.h: milliseconds since data and since an acknowledgement came last.
_RECEIVED, _ACKNOWLEDGED = (struct.Struct("=I"), 52), (struct.Struct("=I"), 56)


class Edge:
    """
    An epoll that is readable as soon as something new comes on a connection.

    @ivar descriptor: of it; whoever takes this closes it, and calls L{close} then.
    """

    def __init__(self, connection: int, epoll: select.epoll) -> None:
        self._connection = connection
        self._epoll = epoll
        self.descriptor = os.dup(epoll.fileno())

    def close(self) -> None:
        """Close the connection's duplicate, too."""
        self._epoll.close()
        closeDuplicate(self._connection)


def edgeOf(connection: int, events: int, frozenSince: int) -> Edge | None:
    """
    Watch a connection that is ready for what comes from now on.

    @param connection: a duplicate; the edge's from now on, unless there is none.
    @param events: that the program waits for.
    @param frozenSince: when the freeze began, or earlier: nanoseconds (C{CLOCK_MONOTONIC}).
    @return: None when it is not ready, or something may have come since.
    @raise OSError: out of descriptors.
    """
    epoll = select.epoll()
    try:
        epoll.register(connection, events | select.EPOLLET)
        # Takes the edge of having been added.
        ready = epoll.poll(0)
        # Whatever came before this look at the times is in them; what comes later is an edge.
        if ready and not ready[0][1] & ~_ORDINARY and _isQuiet(connection, frozenSince):
            return Edge(connection, epoll)
    except BaseException:
        epoll.close()
        raise
    epoll.close()
    return None


def _isQuiet(connection: int, since: int) -> bool:
    info = calls.tcpInfo(connection)
    if info is None or len(info) < 60 or info[0] != ESTABLISHED:
        return False
    ago = (time.monotonic_ns() - since) / 1e9 + _MARGIN
    return all(
        words.unpack_from(info, at)[0] / 1000 > ago for words, at in (_RECEIVED, _ACKNOWLEDGED)
    )
