"""Ends of real channels for tests: a transport in the reactor, and a plain socket behind it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeVar, cast

import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from chanproxy.carry.consumed import Consumed
from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.proxy import Callbacks, ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.base import SocketChannel
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.channels.streams import StreamChannel
from chanproxy.channels.transport import SeqpacketTransport
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.counter import MessageCounter
from support.live import PATIENCE

P = TypeVar("P", bound=Protocol)
T = TypeVar("T", bound=Callable[..., object])


def connect(
    reactor: ChanproxyReactor, protocol: P, buffer: PeekBuffer | None = None
) -> tuple[P, socket.socket]:
    """Give a protocol one end of a pair; the other end blocks, with a bound."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(PATIENCE)
    nowhere = UNIXAddress(None)
    transport = SeqpacketTransport(reactor, ours, buffer or PeekBuffer(), nowhere, nowhere)
    transport.protocol = protocol
    Protocol.makeConnection(protocol, transport)
    return protocol, theirs


def connectBare(
    reactor: ChanproxyReactor, protocol: P, kind: type[SocketChannel], buffer: PeekBuffer
) -> tuple[P, socket.socket]:
    """Likewise, with a channel and nothing more, of a kind of AF_UNIX."""
    stream = issubclass(kind, StreamChannel)
    ours, theirs = socket.socketpair(
        socket.AF_UNIX, socket.SOCK_STREAM if stream else socket.SOCK_SEQPACKET
    )
    theirs.settimeout(PATIENCE)
    channel = kind(reactor, ours, buffer)
    channel.protocol = protocol
    Protocol.makeConnection(protocol, cast(ITransport, channel))
    return protocol, theirs


class Pair:
    """
    A channel proxy between two plain sockets.

    @ivar container: the container's own end; C{remote}: the peer's own end.
    @ivar transports: ours, likewise.
    """

    def __init__(
        self,
        reactor: ChanproxyReactor,
        explicit: bool = True,
        buffer: PeekBuffer | None = None,
        kind: type[SocketChannel] = SeqpacketChannel,
    ) -> None:
        self.reactor = reactor
        self.ledger = Ledger()
        self.counter = MessageCounter(reactor)
        buffer = buffer or PeekBuffer()
        container, self.container = connectBare(reactor, ContainerProtocol(), kind, buffer)
        remote, self.remote = connectBare(reactor, RemoteProtocol(), kind, buffer)
        transport = cast(SocketChannel, container.transport)
        self.transports = (transport, cast(SocketChannel, remote.transport))
        self.noticed = 0
        policy = (
            Explicit(self.ledger)
            if explicit
            else Consumed(reactor, self.ledger, self.counter, transport.fileno())
        )
        callbacks = Callbacks(noticed=self._notice)
        self.proxy = ChannelProxy(
            container, remote, self.counter, "test#1", policy, callbacks=callbacks
        )

    def _notice(self) -> None:
        self.noticed += 1

    async def close(self) -> None:
        """End it, and let the reactor say so."""
        self.proxy.stop()
        self.counter.close()
        self.container.close()
        self.remote.close()
        await turns(self.reactor)


def turns(reactor: ChanproxyReactor, count: int = 5) -> Deferred[None]:
    """Let the reactor go round."""

    async def go() -> None:
        for _ in range(count):
            await deferLater(reactor, 0)

    return Deferred.fromCoroutine(go())


async def until(reactor: ChanproxyReactor, condition: Callable[[], object]) -> None:
    """Poll, with a bound, for what gives no event to us."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < deadline, "it did not happen in time"
        await deferLater(reactor, 0.001)


async def sendWhenRoom(
    reactor: ChanproxyReactor, end: socket.socket, data: bytes, descriptors: list[int] | None = None
) -> None:
    """Send, and let the reactor go round while there is no room."""
    end.setblocking(False)
    deadline = reactor.seconds() + PATIENCE
    while True:
        assert reactor.seconds() < deadline, "there was no room in time"
        try:
            socket.send_fds(end, [data], descriptors or [])
            return
        except BlockingIOError:
            await turns(reactor, 1)


async def receiveWhenThere(
    reactor: ChanproxyReactor, end: socket.socket, size: int = 1 << 21
) -> tuple[bytes, int]:
    """Receive, and let the reactor go round while nothing is there; how many descriptors came."""
    end.setblocking(False)
    deadline = reactor.seconds() + PATIENCE
    while True:
        assert reactor.seconds() < deadline, "nothing came in time"
        try:
            data, found, _, _ = socket.recv_fds(end, size, 253)
        except BlockingIOError:
            await turns(reactor, 1)
            continue
        for fd in found:
            os.close(fd)
        return data, len(found)


def asynchronous(test: T) -> T:
    """Run a coroutine test under the reactor."""
    return cast(T, pytest_twisted.ensureDeferred(test))


def tcpPair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends on loopback, with buffers that are soon full."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        # Before the connection, or it is too late for the window.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        one.connect(listening.getsockname())
        other, _ = listening.accept()
    for end in (one, other):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other
