"""
Resetting: ends a TCP connection by a reset, once the peer's kernel has all that was sent.

A reset at once would lose what is on its way.  Knows TCP sockets; knows nothing of channels.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from twisted.internet.interfaces import IReactorTime

from chanproxy.kernel.calls import SIOCOUTQ

FIRST, LONGEST = 0.005, 10.0
"""Seconds until the second look, each next one after twice as long, and in all."""

_ENDING = (4, 9, 11)
"""C{TCP_FIN_WAIT1}, C{TCP_LAST_ACK} and C{TCP_CLOSING} of C{net/tcp_states.h}."""

_AT_ONCE, _IN_ORDER = struct.pack("2i", 1, 0), struct.pack("2i", 0, 0)
"""C{struct linger}: closing is a reset, or not."""


def reset(clock: IReactorTime, connected: socket.socket) -> None:
    """
    Have the connection end by a reset; in order, if the peer takes too long to take the rest.

    @param connected: the caller's, who closes it next.
    """
    if not _unacknowledged(connected):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        return
    try:
        # While there is another descriptor, closing one tells nothing.
        rest = connected.dup()
    except OSError:
        return

    def look(pause: float, left: float) -> None:
        waits = _unacknowledged(rest)
        if waits and left > 0:
            clock.callLater(pause, look, pause * 2, left - pause)
            return
        linger = _IN_ORDER if waits else _AT_ONCE
        rest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        rest.close()

    clock.callLater(FIRST, look, FIRST * 2, LONGEST)


def _unacknowledged(connected: socket.socket) -> bool:
    """Whether the peer's kernel has not got all bytes yet; it may not have got the end."""
    waiting = array.array("i", [0])
    fcntl.ioctl(connected, SIOCOUTQ, waiting)
    state = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    # The end counts as a byte, until it is acknowledged.
    return waiting[0] > (1 if state in _ENDING else 0)
