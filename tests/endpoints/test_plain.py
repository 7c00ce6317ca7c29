"""Twisted's own kind of protocols at endpoints for packets: none connects and hears nothing."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IFileDescriptorReceiver, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.transport import MessageProtocol
from support.live import PATIENCE
from tests.shared.sides import asynchronous, turns, until


class Keeper(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data.append(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost.callback(None)


class MessageKeeper(MessageProtocol):
    """Likewise, of the kind that is made for packets."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.lost: Deferred[None] = Deferred()

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        assert not descriptors
        self.data.append(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost.callback(None)


def factoryOf(protocol: object) -> Any:
    """For one connection."""
    factory: Any = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda address: protocol
    return factory


@asynccontextmanager
async def listening(reactor: Any, tmp_path: Path, protocol: object) -> AsyncIterator[str]:
    """A protocol at an endpoint; where to connect to."""
    address = f"seqpacket:{tmp_path}/s"
    port = await serverFromString(reactor, address).listen(factoryOf(protocol))
    try:
        yield address
    finally:
        await port.stopListening()


def peer(address: str) -> socket.socket:
    """A plain socket that connects."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(PATIENCE)
    made.connect(address.partition(":")[2])
    return made


@asynchronous
async def test_both(reactor: Any, tmp_path: Path) -> None:
    """On both sides each packet is one C{dataReceived}, and each C{write} one packet."""
    async with listening(reactor, tmp_path, Echo()) as address:
        client = await clientFromString(reactor, address).connect(factoryOf(Keeper()))
        sent = [b"one", b"two", b"", b"x" * 100000, b"last"]
        for each in sent:
            client.transport.write(each)
        await until(reactor, lambda: len(client.data) == len(sent))
        assert client.data == sent
        client.transport.loseConnection()
        await client.lost
    await turns(reactor)


@pytest.mark.parametrize("wrapped", [Keeper, MessageKeeper])
@asynchronous
async def test_wrapped(reactor: Any, tmp_path: Path, wrapped: type[Keeper]) -> None:
    """Behind a protocol of Twisted's that wraps another one, both kinds hear of each packet."""
    inner = wrapped()
    outer = WrappingFactory(factoryOf(inner)).buildProtocol(None)
    async with listening(reactor, tmp_path, outer) as address:
        with peer(address) as other:
            other.send(b"one")
            other.send(b"two")
            await until(reactor, lambda: len(inner.data) == 2)
            assert inner.data == [b"one", b"two"]
        await inner.lost


@implementer(IFileDescriptorReceiver)
class Receiver(Keeper):
    """Takes descriptors: the first two, and then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: list[int] = []

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.data.append(b"descriptor")
        self.descriptors.append(descriptor)
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


@asynchronous
async def test_descriptors(reactor: Any, tmp_path: Path) -> None:
    """Descriptors come one by one, before the packet that they came with."""
    protocol = Receiver()
    async with listening(reactor, tmp_path, protocol) as address:
        with peer(address) as other:
            socket.send_fds(other, [b"one"], [0, 0])
            other.send(b"two")
            await until(reactor, lambda: len(protocol.data) == 4)
            assert protocol.data == [b"descriptor", b"descriptor", b"one", b"two"]
        await protocol.lost
    for descriptor in protocol.descriptors:
        os.close(descriptor)


@asynchronous
async def test_unwantedDescriptors(reactor: Any, tmp_path: Path) -> None:
    """Who takes no descriptors hears of the packets; they are closed, and the log says so once."""
    protocol = Keeper()
    async with listening(reactor, tmp_path, protocol) as address:
        with peer(address) as other, capturedLogs() as events:
            for each in (b"one", b"two"):
                socket.send_fds(other, [each], [0, 0])
            await until(reactor, lambda: len(protocol.data) == 2)
        assert protocol.data == [b"one", b"two"]
        (line,) = [text for each in events if "Descriptor" in (text := formatEvent(each))]
        assert line.startswith("Keeper does not provide IFileDescriptorReceiver: ")
        await protocol.lost


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Keeper):
    """Answers at the end."""

    def readConnectionLost(self) -> None:
        self.data.append(b"end")

    def writeConnectionLost(self) -> None:
        pass


@asynchronous
async def test_halfClose(reactor: Any, tmp_path: Path) -> None:
    """Who can go on after the peer's end does, also after a pause, until the peer has gone."""
    protocol = HalfCloseable()
    async with listening(reactor, tmp_path, protocol) as address:
        with peer(address) as other:
            other.send(b"question")
            other.shutdown(socket.SHUT_WR)
            await until(reactor, lambda: protocol.data == [b"question", b"end"])
            transport: Any = protocol.transport
            transport.pauseProducing()
            transport.resumeProducing()
            await turns(reactor)
            transport.write(b"answer")
            assert other.recv(10) == b"answer"
        await protocol.lost
        assert protocol.data == [b"question", b"end"]


def give(giver: Keeper, receiver: Keeper | MessageKeeper) -> None:
    """As protocols do that have agreed upon another one."""
    transport: Any = giver.transport
    transport.protocol = receiver
    receiver.makeConnection(transport)


@asynchronous
async def test_switch(reactor: Any, tmp_path: Path) -> None:
    """A protocol may give its transport to another one, of either kind."""
    first, second, third = Keeper(), MessageKeeper(), Keeper()
    async with listening(reactor, tmp_path, first) as address:
        with peer(address) as other:
            other.send(b"1")
            await until(reactor, lambda: first.data)
            give(first, second)
            other.send(b"2")
            await until(reactor, lambda: second.data)
            give(first, third)
            other.send(b"3")
            await until(reactor, lambda: third.data)
        assert (first.data, second.data, third.data) == ([b"1"], [b"2"], [b"3"])
        await third.lost


class Paused(Keeper):
    """Wants to hear nothing at first."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()


class MessagePaused(MessageKeeper):
    """Likewise."""

    def connectionMade(self) -> None:
        self.transport.pauseProducing()


@pytest.mark.parametrize("kind", [Paused, MessagePaused])
@asynchronous
async def test_pausedAtFirst(reactor: Any, tmp_path: Path, kind: type[Paused]) -> None:
    """A pause in C{connectionMade} holds."""
    protocol = kind()
    async with listening(reactor, tmp_path, protocol) as address:
        with peer(address) as other:
            other.send(b"early")
            await until(reactor, lambda: protocol.transport)
            await turns(reactor, 10)
            assert not protocol.data
            transport: Any = protocol.transport
            transport.resumeProducing()
            await until(reactor, lambda: protocol.data == [b"early"])
        await protocol.lost


class Deaf:
    """Has no method that would be told of anything."""

    def makeConnection(self, transport: object) -> None:
        raise AssertionError("it is not even connected")


@asynchronous
async def test_deaf(reactor: Any, tmp_path: Path) -> None:
    """A protocol that could hear nothing is an error that says what to write, on either side."""
    says = (
        "Deaf would hear of no packet: derive it from chanproxy.channels.MessageProtocol and write "
        "messageReceived, or from twisted.internet.protocol.Protocol and write dataReceived"
    )
    async with listening(reactor, tmp_path, Deaf()) as address:
        with peer(address) as other, capturedLogs() as events:
            await until(reactor, lambda: events)
            assert other.recv(10) == b""
        assert formatEvent(events[0]) == f"{tmp_path}/s: connection closed: {says}"
        with pytest.raises(TypeError, match=says):
            await clientFromString(reactor, address).connect(factoryOf(Deaf()))
        await turns(reactor)


class Failing(Keeper):
    """Fails when it is connected, with something still to be sent."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        while not transport.pending:
            transport.write(b"x" * 10000)
        raise ZeroDivisionError


@asynchronous
async def test_failing(reactor: Any, tmp_path: Path) -> None:
    """What a client's protocol or factory raises is the Deferred's failure; nothing stays open."""
    failing = Failing()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"{tmp_path}/s")
        server.listen()
        endpoint = clientFromString(reactor, f"seqpacket:{tmp_path}/s")
        with pytest.raises(ZeroDivisionError):
            await endpoint.connect(factoryOf(failing))
        await failing.lost
        factory = factoryOf(None)
        factory.buildProtocol = lambda address: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await endpoint.connect(factory)


def test_packetsByStreams() -> None:
    """A protocol for packets says so where there are none."""
    with pytest.raises(TypeError, match="MessageKeeper speaks in packets, which StringTransport"):
        MessageKeeper().makeConnection(StringTransport())
