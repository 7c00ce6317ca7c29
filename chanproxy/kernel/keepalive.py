"""
Keepalive: how a TCP peer that vanished without a word is noticed, idle or with data on its way.

A proxy hides the peer from the other end's own keepalive, which is answered by the proxy: so it has
one itself.  Knows TCP sockets; knows nothing of channels, counters or containers.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

IDLE, INTERVAL, COUNT = 10, 5, 3
"""Seconds until the first probe, seconds between two, and how many without an answer are enough."""

MOST_SECONDS, MOST_COUNT = 32767, 127
"""The kernel's own limits, C{MAX_TCP_KEEPIDLE} and C{MAX_TCP_KEEPCNT} of C{net/tcp.h}."""

TCP_USER_TIMEOUT = 18
"""C{linux/tcp.h}; milliseconds."""

UNANSWERED = 2
"""Segments in a row without an answer, from which on a peer may have vanished."""

_INFO = struct.Struct("2x2B20xI116xI")
"""C{struct tcp_info}: retransmits, probes, unacked, notsent_bytes."""


@frozen
class Keepalive:
    """
    When a silent peer is taken for gone.

    @ivar idle: seconds of silence until the first probe; 0: it never is.
    @ivar interval: seconds between probes.
    @ivar count: how many probes without an answer are enough.
    """

    idle: int = IDLE
    interval: int = INTERVAL
    count: int = COUNT

    @property
    def patience(self) -> int:
        """Seconds from the last sign of life."""
        return self.idle + self.interval * self.count

    def apply(self, connected: socket.socket) -> None:
        """Have the kernel probe the peer, which works while it is idle."""
        for option, value in (
            (socket.TCP_KEEPIDLE, self.idle),
            (socket.TCP_KEEPINTVL, self.interval),
            (socket.TCP_KEEPCNT, self.count),
        ):
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Keeper:
    """
    Keeps the connections of one channel alive, and has them end when their peer has vanished.

    The kernel's keepalive rests while data is on its way, which it sends again for a quarter of an
    hour.  C{TCP_USER_TIMEOUT} is the bound for that; but it also ends a connection whose peer is
    alive and does not read.  So it is set only while the peer answers nothing at all, which is
    looked for while there is data on its way: an idle connection costs nothing.
    """

    def __init__(self, clock: IReactorTime, keepalive: Keepalive) -> None:
        self._clock = clock
        self._keepalive = keepalive
        # With data on its way, and whether the timeout is set.
        self._flying: dict[socket.socket, bool] = {}
        self._call: IDelayedCall | None = None

    def keep(self, connected: socket.socket) -> bool:
        """Begin; whether L{sent} is to be called for it from now on."""
        if not self._keepalive.idle:
            return False
        self._keepalive.apply(connected)
        return True

    def sent(self, connected: socket.socket) -> None:
        """Something was sent; cheap."""
        if connected not in self._flying:
            self._flying[connected] = False
            if self._call is None:
                self._again()

    def forget(self, connected: socket.socket) -> None:
        """It is closed, or will be next."""
        self._flying.pop(connected, None)
        if not self._flying and self._call is not None:
            self._call.cancel()
            self._call = None

    def _again(self) -> None:
        self._call = self._clock.callLater(self._keepalive.interval, self._look)

    def _look(self) -> None:
        self._call = None
        for connected, bounded in list(self._flying.items()):
            # It may have failed meanwhile: whoever reads it is told.
            with contextlib.suppress(OSError):
                silent = _silent(connected)
                if silent is None:
                    del self._flying[connected]
                elif silent != bounded:
                    self._flying[connected] = silent
                if bool(silent) != bounded:
                    timeout = self._keepalive.patience * 1000 if silent else 0
                    connected.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, timeout)
        if self._flying:
            self._again()


def _silent(connected: socket.socket) -> bool | None:
    """Whether what was sent is not answered at all; L{None}: nothing is on its way."""
    info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    retransmits, probes, flying, waiting = _INFO.unpack(info)
    if not flying and not waiting:
        return None
    return bool(max(retransmits, probes) >= UNANSWERED)


def tcpOf(transport: Any) -> socket.socket | None:
    """The TCP socket below a transport of Twisted's, if there is one: TLS wraps its transport."""
    while transport is not None:
        below = getattr(transport, "socket", None)
        if isinstance(below, socket.socket):
            return below if below.family in (socket.AF_INET, socket.AF_INET6) else None
        transport = getattr(transport, "transport", None)
    return None
