"""Ends of real channels for tests: a transport in the reactor, and a plain socket behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar, cast

import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from chanproxy._batch import PeekBuffer
from chanproxy.counter import MessageCounter
from chanproxy.handled import Consumed, Explicit, Ledger
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.transport import SeqpacketTransport

P = TypeVar("P", bound=Protocol)
T = TypeVar("T", bound=Callable[..., object])


def connect(
    reactor: ChanproxyReactor, protocol: P, buffer: PeekBuffer | None = None
) -> tuple[P, socket.socket]:
    """Give a protocol one end of a pair; the other end blocks, for five seconds at most."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(5)
    nowhere = UNIXAddress(None)
    transport = SeqpacketTransport(reactor, ours, buffer or PeekBuffer(), nowhere, nowhere)
    transport.protocol = protocol
    Protocol.makeConnection(protocol, transport)
    return protocol, theirs


class Pair:
    """
    A channel proxy between two plain sockets.

    @ivar container: the container's own end; C{remote}: the peer's own end.
    """

    def __init__(
        self, reactor: ChanproxyReactor, explicit: bool = True, buffer: PeekBuffer | None = None
    ) -> None:
        self.reactor = reactor
        self.ledger = Ledger()
        self.counter = MessageCounter(reactor)
        buffer = buffer or PeekBuffer()
        container, self.container = connect(reactor, ContainerProtocol(), buffer)
        remote, self.remote = connect(reactor, RemoteProtocol(), buffer)
        transport: SeqpacketTransport = container.transport  # type: ignore[assignment]  # as made
        self.transports = (transport, remote.transport)
        self.noticed = 0
        policy = (
            Explicit(self.ledger)
            if explicit
            else Consumed(reactor, self.ledger, self.counter, transport.fileno())
        )
        self.proxy = ChannelProxy(container, remote, self.counter, "test#1", policy, self._notice)

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
    deadline = reactor.seconds() + 5
    while not condition():
        assert reactor.seconds() < deadline, "it did not happen within 5 seconds"
        await deferLater(reactor, 0.001)


def asynchronous(test: T) -> T:
    """Run a coroutine test under the reactor."""
    return cast(T, pytest_twisted.ensureDeferred(test))
