"""
Endpoints of Twisted's as makers of channels: what their transports talk to, listening and dialling.

Knows nothing of counters, containers or freezers.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.buffered import EndpointChannel
from chanproxy.interfaces import ChanproxyReactor


@implementer(IHalfCloseableProtocol, IFileDescriptorReceiver)
class _Receiver(Protocol):
    """What Twisted's transport talks to."""

    def __init__(self, inner: IProtocol, reactor: ChanproxyReactor, most: int) -> None:
        self.inner = inner
        self._reactor = reactor
        self._most = most
        self.channel: EndpointChannel | None = None

    def connectionMade(self) -> None:
        """There is a transport: make a channel of it."""
        assert self.transport is not None
        self.channel = EndpointChannel(self._reactor, self.transport, self._most)
        self.channel.protocol = self.inner
        self.inner.makeConnection(cast(ITransport, self.channel))

    def dataReceived(self, data: bytes) -> None:
        """Bytes came."""
        assert self.channel is not None
        self.channel.received(data)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """A descriptor came, with the bytes that come next."""
        assert self.channel is not None
        self.channel.descriptorReceived(descriptor)

    def readConnectionLost(self) -> None:
        """The peer sends no more."""
        assert self.channel is not None
        self.channel.readingEnded()

    def writeConnectionLost(self) -> None:
        """We send no more, which we know, or the peer receives no more."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the channel, and with it its protocol, that the connection is over."""
        if self.channel is not None:
            self.channel.transportLost(not reason.check(ConnectionDone))


class EndpointFactory(Factory):
    """Makes channels of the connections of an endpoint, for the protocols of another factory."""

    noisy = False

    def __init__(self, reactor: ChanproxyReactor, factory: IProtocolFactory, most: int) -> None:
        """@param most: see L{EndpointChannel}."""
        self._reactor = reactor
        self._factory = factory
        self._most = most

    def buildProtocol(self, addr: IAddress | None) -> _Receiver | None:
        """Somebody connected, or we are."""
        inner = self._factory.buildProtocol(cast(IAddress, addr))
        return None if inner is None else _Receiver(inner, self._reactor, self._most)


def dial(
    endpoint: IStreamClientEndpoint,
    reactor: ChanproxyReactor,
    factory: IProtocolFactory,
    most: int,
) -> Deferred[IProtocol]:
    """
    Connect a channel.

    @return: fires with the protocol of C{factory}, and fails as the endpoint does.  Cancellable.
    """
    connecting: Deferred[Any] = endpoint.connect(EndpointFactory(reactor, factory, most))
    return connecting.addCallback(_innerOf)


def _innerOf(receiver: Any) -> IProtocol:
    # An endpoint may wrap the protocol of its factory.
    while not isinstance(receiver, _Receiver):
        receiver = receiver.wrappedProtocol
    return receiver.inner
