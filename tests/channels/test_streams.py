"""The edges of streams, on the real kernel, through a channel proxy."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
from typing import cast

import pytest
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread

from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.pairing import CannotPair
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.base import SO_SNDBUFFORCE, SocketChannel
from chanproxy.channels.buffers import RUN_BYTES, PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.channels.streams import TcpChannel, UnixStreamChannel, isTcp
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import descriptors
from chanproxy.wake.counter import MessageCounter
from tests.shared.sides import (
    Pair,
    asynchronous,
    connectBare,
    receiveWhenThere,
    tcpPair,
    turns,
    until,
)


def streams(reactor: ChanproxyReactor, buffer: PeekBuffer | None = None) -> Pair:
    """A proxy between two AF_UNIX streams."""
    return Pair(reactor, buffer=buffer, kind=UnixStreamChannel)


@asynchronous
async def test_plainBytesBeforeADescriptor(reactor: ChanproxyReactor) -> None:
    """Who reads exactly the plain bytes, without a control buffer, loses no descriptor."""
    pair = streams(reactor)
    pair.remote.send(b"plain1 ")
    pair.remote.send(b"plain2 ")
    socket.send_fds(pair.remote, [b"withfd "], [0, 1])
    pair.remote.send(b"after")
    await until(reactor, lambda: pair.proxy.inbound.descriptors == 2)
    await turns(reactor)
    assert pair.container.recv(14) == b"plain1 plain2 "
    assert await receiveWhenThere(reactor, pair.container, 100) == (b"withfd ", 2)
    assert await receiveWhenThere(reactor, pair.container, 100) == (b"after", 0)
    await pair.close()


@asynchronous
async def test_manyDescriptors(reactor: ChanproxyReactor) -> None:
    """0 to 253 on pieces of all sizes, some in the middle of what one peek sees."""
    pair = streams(reactor)
    pair.remote.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
    pieces = [(1, 0), (5000, 1), (1, 253), (3, 0), (2, 0), (70000, 2), (1, 1), (1, 1), (900, 0)]
    for size, count in pieces:
        socket.send_fds(pair.remote, [bytes([size % 251]) * size], [0] * count)
    for size, count in pieces:
        got, found = await receiveWhenThere(reactor, pair.container, size)
        assert found == count
        while len(got) < size:
            more, found = await receiveWhenThere(reactor, pair.container, size - len(got))
            assert found == 0
            got += more
        assert got == bytes([size % 251]) * size
    await pair.close()


@asynchronous
async def test_descriptorBeyondAFullPeek(reactor: ChanproxyReactor) -> None:
    """Right before, at and right after the end of the largest run."""
    for before in (RUN_BYTES - 2, RUN_BYTES - 1, RUN_BYTES, RUN_BYTES + 1):
        pair = streams(reactor)
        for end in (pair.remote, pair.transports[0]._socket):
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        pair.remote.sendall(b"x" * before)
        socket.send_fds(pair.remote, [b"fd"], [0])
        pair.remote.sendall(b"y" * 1000)
        left = before
        while left:
            data, found = await receiveWhenThere(reactor, pair.container, left)
            assert (set(data), found) == ({ord("x")}, 0)
            left -= len(data)
        assert await receiveWhenThere(reactor, pair.container, 2) == (b"fd", 1)
        await pair.close()


@asynchronous
async def test_bulk(reactor: ChanproxyReactor) -> None:
    """Megabytes in each direction at once arrive as they were sent."""
    pair = streams(reactor)
    data = os.urandom(8 << 20)

    def receive(end: socket.socket) -> bytes:
        digest, left = hashlib.sha256(), len(data)
        while left:
            got = end.recv(min(left, 100000))
            assert got
            digest.update(got)
            left -= len(got)
        return digest.digest()

    sending = [deferToThread(end.sendall, data) for end in (pair.remote, pair.container)]
    receiving = [deferToThread(receive, end) for end in (pair.remote, pair.container)]
    for sent in sending:
        await sent
    for got in receiving:
        assert await got == hashlib.sha256(data).digest()
    assert pair.counter.value() == pair.proxy.inbound.messages > 0
    await pair.close()


@asynchronous
async def test_countedRuns(reactor: ChanproxyReactor) -> None:
    """Each accepted run is a message; what waits for the container is one, and counted."""
    pair = streams(reactor)
    pair.remote.send(b"one")
    await until(reactor, lambda: pair.proxy.inbound.messages)
    pair.remote.send(b"two")
    await until(reactor, lambda: pair.proxy.inbound.messages == 2)
    assert pair.counter.value() == 2
    pair.remote.setblocking(False)
    idle = 0
    while idle < 5:
        try:
            pair.remote.send(b"x" * 50000)
            idle = 0
        except BlockingIOError:
            idle += 1
            await turns(reactor)
    assert pair.counter.value() == pair.proxy.inbound.messages + 1
    await pair.close()


@asynchronous
async def test_resetDoesNotHideData(reactor: ChanproxyReactor) -> None:
    """A peer that closes with data of ours unread resets; what it sent before still arrives."""
    pair = streams(reactor)
    pair.container.send(b"never read")
    await until(reactor, lambda: pair.proxy.outbound.messages)
    pair.remote.send(b"x" * 50000)
    pair.remote.close()
    await pair.proxy.whenEnded()
    got = b""
    while more := pair.container.recv(100000):
        got += more
    assert got == b"x" * 50000
    await pair.close()


@pytest.mark.parametrize("direction", ["in", "out"])
@asynchronous
async def test_halfClose(reactor: ChanproxyReactor, direction: str) -> None:
    """One direction ends, the other goes on, until that ends as well."""
    pair = streams(reactor)
    closing, other = pair.remote, pair.container
    if direction == "out":
        closing, other = other, closing
    closing.send(b"last")
    closing.shutdown(socket.SHUT_WR)
    assert await receiveWhenThere(reactor, other, 10) == (b"last", 0)
    assert await receiveWhenThere(reactor, other, 10) == (b"", 0)
    other.send(b"on")
    assert await receiveWhenThere(reactor, closing, 10) == (b"on", 0)
    other.shutdown(socket.SHUT_WR)
    await pair.proxy.whenEnded()
    await pair.close()


@asynchronous
async def test_outOfDescriptors(reactor: ChanproxyReactor) -> None:
    """The bytes before them go on; they wait with theirs until there is room."""
    pair = streams(reactor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    # The limit is on the number: what is free below has to be filled.
    fill = [os.dup(0) for _ in range(highest + 1 - descriptors.used())]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max([highest, *fill]) + 1, hard))
    try:
        pair.remote.send(b"plain")
        socket.send_fds(pair.remote, [b"five"], [0, 1, 2, 0, 1])
        await until(reactor, lambda: pair.proxy.inbound.messages == 1)
        await turns(reactor, 20)
        assert pair.proxy.inbound.messages == 1
        assert pair.container.recv(100) == b"plain"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fill:
            os.close(fd)
    assert await receiveWhenThere(reactor, pair.container, 100) == (b"five", 5)
    await pair.close()


@asynchronous
async def test_tooManyDescriptors(reactor: ChanproxyReactor) -> None:
    """Over the limit the channel closes, after what came before."""
    pair = streams(reactor, PeekBuffer(messageDescriptors=1))
    pair.remote.send(b"plain")
    socket.send_fds(pair.remote, [b"x"], [0, 1])
    await pair.proxy.whenEnded()
    assert pair.container.recv(10) == b"plain"
    assert pair.container.recv(10) == b""
    await pair.close()


@asynchronous
async def test_credentials(reactor: ChanproxyReactor) -> None:
    """On a socket whose giver asked for credentials, descriptors go on at their byte."""
    pair = streams(reactor)
    pair.transports[1]._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    pair.remote.send(b"plain")
    socket.send_fds(pair.remote, [b"with"], [0])
    assert await receiveWhenThere(reactor, pair.container, 5) == (b"plain", 0)
    assert await receiveWhenThere(reactor, pair.container, 5) == (b"with", 1)
    await pair.close()


def tcp(
    reactor: ChanproxyReactor, protocol: ContainerProtocol | RemoteProtocol, buffer: PeekBuffer
) -> socket.socket:
    """Give it one end of a connection."""
    ours, theirs = tcpPair()
    assert isTcp(ours)
    channel = TcpChannel(reactor, ours, buffer)
    channel.protocol = protocol
    Protocol.makeConnection(protocol, cast(ITransport, channel))
    theirs.settimeout(5)
    return theirs


def paired(
    reactor: ChanproxyReactor, kind: type[SocketChannel], refuse: bool
) -> tuple[ChannelProxy, MessageCounter, socket.socket, socket.socket]:
    """A remote of that kind in front of a container on TCP."""
    buffer, counter = PeekBuffer(), MessageCounter(reactor)
    remote, outside = connectBare(reactor, RemoteProtocol(), kind, buffer)
    container = ContainerProtocol()
    inside = tcp(reactor, container, buffer)
    try:
        policy = Explicit(Ledger())
        arguments = (container, remote, counter, "test", policy, refuse)
        return ChannelProxy(*arguments), counter, outside, inside
    except CannotPair:
        for side in (container, remote):
            cast(SocketChannel, side.transport).close()
        counter.close()
        outside.close()
        inside.close()
        raise


@asynchronous
async def test_pairing(reactor: ChanproxyReactor) -> None:
    """Two ends of which only one keeps boundaries, or carries descriptors, are not connected."""
    with pytest.raises(CannotPair, match="boundaries"):
        paired(reactor, SeqpacketChannel, refuse=True)
    with pytest.raises(CannotPair, match="descriptors"):
        paired(reactor, UnixStreamChannel, refuse=False)
    await turns(reactor)


@asynchronous
async def test_descriptorsRefused(reactor: ChanproxyReactor) -> None:
    """Where it is meant so, bytes go from AF_UNIX to TCP, and a descriptor ends it."""
    proxy, counter, outside, inside = paired(reactor, UnixStreamChannel, refuse=True)
    outside.send(b"plain")
    assert await receiveWhenThere(reactor, inside, 10) == (b"plain", 0)
    inside.send(b"back")
    assert await receiveWhenThere(reactor, outside, 10) == (b"back", 0)
    socket.send_fds(outside, [b"with"], [0])
    await proxy.whenEnded()
    assert await receiveWhenThere(reactor, inside, 10) == (b"", 0)
    counter.close()
    outside.close()
    inside.close()
    await turns(reactor)


@asynchronous
async def test_tcpReset(reactor: ChanproxyReactor) -> None:
    """A reset on TCP ends the other end with one, too, after what arrived before it."""
    buffer, counter = PeekBuffer(), MessageCounter(reactor)
    container, remote = ContainerProtocol(), RemoteProtocol()
    inside, outside = tcp(reactor, container, buffer), tcp(reactor, remote, buffer)
    proxy = ChannelProxy(container, remote, counter, "test", Explicit(Ledger()))
    inside.send(b"never read")
    await until(reactor, lambda: proxy.outbound.messages)
    outside.send(b"last")
    outside.close()
    await proxy.whenEnded()
    assert inside.recv(10) == b"last"
    with pytest.raises(ConnectionResetError):
        inside.recv(10)
    inside.close()
    counter.close()
    await turns(reactor)
