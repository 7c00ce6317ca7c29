"""
Ports: sockets that listen, in the reactor, and the channels that are accepted there.

One class for all kinds of sockets.  Knows nothing of proxies.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorSocket,
    IReadDescriptor,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.base import SocketChannel
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.kinds import attach, kindOf
from chanproxy.channels.plain import DeafProtocol, OpenTransport
from chanproxy.channels.terminated import TerminatedTransport
from chanproxy.endpoints.addresses import SocketAddress
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.descriptors import whyScarce
from chanproxy.kernel.fewlines import LINES, FewLines
from chanproxy.kernel.foreign import closeSocket

ACCEPT_PAUSE = 0.1
"""Seconds to wait with accepting, when this process is out of descriptors."""

TURN, TURN_SECONDS = 64, 0.0015
"""
Connections that are accepted, and seconds of a processor that may be taken, before others have
their turn; and how long a turn may be, with all else that there is to do in it, before fewer are
accepted.
"""


def addressOf(family: int, raw: Any) -> IAddress:
    """What Twisted calls an address of the C{socket} module."""
    if family == socket.AF_INET:
        return IPv4Address("TCP", *raw)
    if family == socket.AF_INET6:
        return IPv6Address("TCP", *raw)
    # Twisted has no word for the numbers of vsock.
    unix = isinstance(raw, (bytes, str))
    return UNIXAddress((os.fsencode(raw) if unix else None) or None)


@implementer(IListeningPort, IReadDescriptor)
class ChannelPort:
    """
    A listening socket of any kind.

    @ivar lines: where it is said who was refused.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        address: SocketAddress,
        factory: IProtocolFactory,
        buffer: PeekBuffer,
        bare: bool = False,
        room: Callable[[], str] = whyScarce,
        lines: int = LINES,
    ) -> None:
        """
        @param bare: see L{serve}.
        @param room: why no connection can be accepted now; empty: one can.
        @param lines: see L{FewLines}: who was refused.
        """
        self._reactor = reactor
        self._address = address
        self._path = address.shown
        self._factory = factory
        self._buffer = buffer
        self._bare = bare
        self._room = room
        self._some, self._began = TURN, 0.0
        self.lines = FewLines(self._log, reactor, self._path, lines)
        self._full = ""
        self._socket: socket.socket | None = None
        self._host: IAddress = UNIXAddress(None)
        self._inode: tuple[int, int] | None = None
        self._stopped: Deferred[None] | None = None
        self._paused: Any = None

    def startListening(self) -> None:
        """
        Bind and listen.

        @raise CannotListenError: with what is wrong and what to do; nothing is left behind.
        """
        listening = self._address.listen()
        if self._address.file:
            status = os.lstat(self._address.file)
            self._inode = (status.st_dev, status.st_ino)
        self._socket = listening
        self._host = addressOf(listening.family, listening.getsockname())
        self._factory.doStart()
        self._reactor.addReader(self)

    def channelKind(self) -> type[SocketChannel] | None:
        """What carries its connections, while it listens."""
        return None if self._socket is None else kindOf(self._socket)

    def getHost(self) -> IAddress:
        """Where it listens, also when it has stopped."""
        return self._host

    def fileno(self) -> int:
        """The listening socket's descriptor; -1 when stopped."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log lines."""
        return f"{self._address.scheme} {self._path}"

    def doRead(self) -> None:
        """Accept what is there, a turn's worth at most."""
        # Of a processor: what others run meanwhile is not taken by those who connect.
        now = time.thread_time()
        if now - self._began > TURN_SECONDS:
            # What those who have come before do is more work than to let them in.
            self._some = max(self._some // 2, 1)
        else:
            self._some = min(self._some + 1, TURN)
        self._began = now
        for _ in range(self._some):
            late = time.thread_time() - now > TURN_SECONDS
            if self._socket is None or late or self._waitsForRoom():
                return
            try:
                connected, peer = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._accepted(connected, peer)

    def _waitsForRoom(self) -> bool:
        """Accept no more for now: what is left is for others."""
        full = self._room()
        if full and not self._full:
            self.lines.warn("{path}: accepting pauses: {why}", path=self._path, why=full)
        elif self._full and not full:
            self.lines.info("{path}: accepting goes on", path=self._path)
        self._full = full
        if full:
            self._rest()
        return bool(full)

    def _pause(self, error: OSError) -> None:
        self.lines.warn(
            "{path}: cannot accept for now: {error}", path=self._path, error=error.strerror
        )
        self._rest()

    def _rest(self) -> None:
        # Level-triggered: without a pause the reactor would spin on what it cannot accept.
        self._reactor.removeReader(self)
        self._paused = self._reactor.callLater(ACCEPT_PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self._reactor.addReader(self)

    def _accepted(self, connected: socket.socket, raw: Any) -> None:
        if not self._mayConnect(connected):
            closeSocket(connected)
            return
        try:
            self._serve(connected, addressOf(connected.family, raw))
        except DeafProtocol as error:
            self.lines.warn("{path}: connection closed: {error}", path=self._path, error=str(error))
            closeSocket(connected)
        except Exception:
            # It costs this connection, not the listener.
            self._log.failure("{path}: a connection could not be served", path=self._path)
            closeSocket(connected)

    def _serve(self, connected: socket.socket, peer: IAddress) -> None:
        protocol = self._factory.buildProtocol(peer)
        if protocol is None:
            closeSocket(connected)
        else:
            addresses = (self.getHost(), peer)
            serve(self._reactor, connected, self._buffer, protocol, *addresses, self._bare)

    def _mayConnect(self, connected: socket.socket) -> bool:
        """An abstract address has no file mode: apply the mode to the peer's credentials."""
        mode = self._address.peerMode
        if mode is None:
            return True
        pid, uid, gid = struct.unpack(
            "3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        allowed = (
            uid in (0, os.geteuid())
            or bool(mode & 0o006)
            or (bool(mode & 0o060) and gid == os.getegid())
        )
        if not allowed:
            self.lines.warn(
                "{path}: process {pid} of user {uid} refused; mode is {mode}",
                path=self._path,
                pid=pid,
                uid=uid,
                mode=oct(mode),
            )
        return allowed

    def stopListening(self) -> Deferred[None]:
        """
        Stop at once, as the reactor may not turn again; remove the socket file if it is ours.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            if self._socket is None:
                self._stopped.callback(None)
            else:
                self.connectionLost(None)
        return self._stopped

    def connectionLost(self, reason: Failure | None) -> None:
        """The port is closed, by L{stopListening} or by the reactor's end."""
        if self._socket is None:
            return
        self._reactor.removeReader(self)
        if self._paused is not None:
            self._paused.cancel()
        self.lines.close()
        closeSocket(self._socket)
        self._socket = None
        if self._inode is not None:
            try:
                status = os.lstat(self._address.file)
                if (status.st_dev, status.st_ino) == self._inode:
                    os.unlink(self._address.file)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    self._log.warn("{path} stays: {error}", path=self._path, error=error)
        self._factory.doStop()
        if self._stopped is not None:
            self._stopped.callback(None)


class TerminatedPort(ChannelPort):
    """Likewise, of streams of AF_UNIX, for protocols that speak in messages."""

    def _serve(self, connected: socket.socket, peer: IAddress) -> None:
        protocol = self._factory.buildProtocol(peer)
        if protocol is None:
            closeSocket(connected)
            return
        unix = cast(UNIXAddress, self.getHost()), cast(UNIXAddress, peer)
        TerminatedTransport(self._reactor, connected, self._buffer, *unix).begin(protocol)


class StreamPort(ChannelPort):
    """Likewise, of streams, for protocols that want a transport of Twisted's own."""

    def _serve(self, connected: socket.socket, peer: IAddress) -> None:
        with connected:
            connected.setblocking(False)
            # It takes a duplicate.
            cast(IReactorSocket, self._reactor).adoptStreamConnection(
                connected.fileno(),
                socket.AddressFamily(connected.family),
                self._factory,  # type: ignore[arg-type]  # any factory will do
            )


def serve(
    reactor: ChanproxyReactor,
    connected: socket.socket,
    buffer: PeekBuffer,
    protocol: IProtocol,
    host: IAddress,
    peer: IAddress,
    bare: bool,
) -> None:
    """
    Give a protocol its transport.

    @param connected: of a kind that is carried; owned by the transport when it is made.
    @param bare: an L{IChannel} and no more, for those that need no queue and no addresses.  Where
        it is not asked for, the socket keeps packets.
    @raise DeafProtocol: the protocol would hear of no packet; the socket is closed then.
    """
    if bare:
        attach(reactor, connected, buffer, protocol)
        return
    unix = cast(UNIXAddress, host), cast(UNIXAddress, peer)
    OpenTransport(reactor, connected, buffer, *unix).begin(protocol)
