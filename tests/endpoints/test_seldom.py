"""What a user meets seldom: ports that are taken, names that lead nowhere, protocols that fail."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory
from twisted.logger import LogEvent, Logger
from zope.interface import implementer

from chanproxy.channels import MessageProtocol
from chanproxy.channels.base import SocketChannel
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.inflight import Record
from chanproxy.endpoints.dialling import Attempt, Queue, Server
from chanproxy.endpoints.paths import SeqpacketAddressSpec, UnixStreamAddressSpec
from chanproxy.endpoints.resolving import resolve
from chanproxy.endpoints.tcp import TcpAddressSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake import MessageCounter
from tests.shared.sides import asynchronous, connect, turns, until


@contextmanager
def taken() -> Iterator[tuple[socket.socket, int]]:
    """Somebody who listens on a port of 127.0.0.1."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(20)
        yield listening, listening.getsockname()[1]


def test_takenPort() -> None:
    """It is said whose port it is, before a start and by one; nothing is left open."""
    with taken() as (_, port):
        address = TcpAddressSpec("127.0.0.1", port)
        why = f"port {port} of 127.0.0.1 is in use; stop who has it, or choose another"
        assert address.whyNotBindable() == why
        with pytest.raises(CannotListenError, match="is in use; stop who has it"):
            address.listen()
    assert address.whyNotBindable() is None


def test_takenName() -> None:
    """Likewise of an abstract name; of another kind of socket it is free."""
    name = f"@chanproxy-{os.getpid()}-{secrets.token_hex(4)}"
    address = UnixStreamAddressSpec(name)
    with address.listen() as listening:
        why = f"{name} is in use by a living process; stop it, or choose another"
        assert address.whyNotBindable() == why
        with pytest.raises(CannotListenError, match="is in use by a living process"):
            address.listen()
        assert SeqpacketAddressSpec(name).whyNotBindable() is None
        assert listening.getsockname() == b"\0" + name[1:].encode()
    assert address.whyNotBindable() is None


def test_addressOfNobody() -> None:
    """An address that no interface has cannot be listened at."""
    why = TcpAddressSpec("192.0.2.1", 0).whyNotBindable()
    assert why == "this machine has no interface with the address 192.0.2.1; choose another"


@implementer(IHostnameResolver)
class Names:
    """Knows what addresses each name has; None: it never answers."""

    def __init__(self, found: Sequence[str] | None) -> None:
        self._found = found

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> Any:
        resolutionReceiver.resolutionBegan(self)
        if self._found is not None:
            for each in self._found:
                resolutionReceiver.addressResolved(IPv4Address("TCP", each, portNumber))
            resolutionReceiver.resolutionComplete()
        return self


@contextmanager
def names(reactor: Any, found: Sequence[str] | None) -> Iterator[None]:
    """All names have these addresses meanwhile."""
    before = reactor.installNameResolver(Names(found))
    try:
        yield
    finally:
        reactor.installNameResolver(before)


class NoFactory(Factory):
    """Wants nothing to do with whoever is there."""

    def buildProtocol(self, addr: Any) -> None:
        return None


def dialled(
    reactor: ChanproxyReactor, port: int, factory: Factory | None = None, timeout: float = 20
) -> Deferred[Any]:
    """Connect to a host by its name."""
    address = TcpAddressSpec("host.example", port)
    factory = factory or Factory.forProtocol(MessageProtocol)
    server = Server(
        reactor, address, PeekBuffer(), Queue(reactor), lambda: resolve(reactor, address)
    )
    return Attempt(server, factory, timeout, bare=False).result


@asynchronous
async def test_oneAddressAfterTheOther(reactor: ChanproxyReactor) -> None:
    """A host has several addresses, and the first that answers will do."""
    with taken() as (listening, port), names(reactor, ["127.0.0.2", "127.0.0.1"]):
        protocol = await dialled(reactor, port)
        accepted, _ = listening.accept()
        protocol.transport.abortConnection()
        accepted.close()
        await turns(reactor)


@asynchronous
async def test_noSuchHost(reactor: ChanproxyReactor) -> None:
    """A name without addresses, one that is not answered for in time, and nobody at the address."""
    for found, timeout, says in (
        ([], 20, "connecting to host.example:9: there is no such host"),
        (None, 0.01, "its name was not resolved in time"),
        (["127.0.0.2", "127.0.0.3"], 20, "Connection refused"),
    ):
        with names(reactor, found), pytest.raises(ConnectError, match=says):
            await dialled(reactor, 9, timeout=timeout)
    await turns(reactor)


@asynchronous
async def test_noProtocol(reactor: ChanproxyReactor) -> None:
    """A factory that makes none has its connection closed, and is told so."""
    with taken() as (listening, port), names(reactor, ["127.0.0.1"]):
        with pytest.raises(ConnectError, match="the factory made no protocol"):
            await dialled(reactor, port, NoFactory())
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.recv(1) == b""


class Failing(MessageProtocol):
    """Fails at each message."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        raise KeyError("a mistake in a program")

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason.type.__name__)


@asynchronous
async def test_protocolFails(reactor: ChanproxyReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in a program's protocol costs its connection, is told, and nothing else ends."""
    events: list[LogEvent] = []
    # A function is observer enough; the type wants an interface declared.
    observer: Any = events.append
    monkeypatch.setattr(SocketChannel, "_log", Logger(observer=observer))
    protocol, other = connect(reactor, Failing())
    protocol.transport.resumeProducing()
    with other:
        other.send(b"a")
        await until(reactor, lambda: bool(protocol.lost))
        assert protocol.lost == ["KeyError"]
        assert other.recv(10) == b""
    (event,) = events
    assert event["log_format"] == "a channel failed, and is closed"


class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.told.append(name)


@asynchronous
async def test_producers(reactor: ChanproxyReactor) -> None:
    """A second producer is refused; one that comes after the end is stopped."""
    protocol, other = connect(reactor, MessageProtocol())
    first, second, late = Producer(), Producer(), Producer()
    transport: Any = protocol.transport
    transport.registerProducer(first, True)
    with pytest.raises(RuntimeError, match="is registered already: unregister it first"):
        transport.registerProducer(second, True)
    transport.abortConnection()
    await turns(reactor)
    transport.unregisterProducer()
    transport.registerProducer(late, True)
    assert (second.told, late.told) == ([], ["stopProducing"])
    other.close()


def test_recordOfAnotherVersion() -> None:
    """What is no record of ours is refused, and stays the caller's."""
    descriptor = os.memfd_create("other")
    try:
        with pytest.raises(OSError, match="this is no record of this version"):
            Record(descriptor)
    finally:
        os.close(descriptor)


@asynchronous
async def test_waitingForBoth(reactor: ChanproxyReactor) -> None:
    """One waits until there is something, another until there is nothing: each hears its own."""
    counter = MessageCounter(reactor)
    try:
        told: list[str] = []
        counter.whenPositive().addCallback(lambda _: told.append("positive"))
        counter.add(1)
        counter.whenZero().addCallback(lambda _: told.append("zero"))
        await until(reactor, lambda: told == ["positive"])
        os.eventfd_read(counter.fileno())
        counter.whenPositive().addCallback(lambda _: told.append("again"))
        await until(reactor, lambda: told == ["positive", "zero"])
        counter.add(1)
        await until(reactor, lambda: told == ["positive", "zero", "again"])
    finally:
        counter.close()
