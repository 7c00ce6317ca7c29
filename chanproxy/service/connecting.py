"""
Connecting: how a channel's other end is reached, and as whom.

Knows endpoints and one channel's keys; nothing of what is carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from chanproxy import config
from chanproxy.carry.checked import Asking
from chanproxy.carry.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.channels.adapter import dial as dialEndpoint
from chanproxy.channels.base import SocketChannel
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.endpoints.addresses import SocketAddress
from chanproxy.endpoints.dialling import ChannelClientEndpoint
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.peers import Identity, peerIdentity
from chanproxy.service.startable import makeClient

Side = ContainerProtocol | RemoteProtocol


class _Only(Factory):
    """Gives one protocol, which does not keep the factory."""

    noisy = False

    def __init__(self, side: Side | Asking) -> None:
        self._side = side

    def buildProtocol(self, address: object) -> Side | Asking:
        """The protocol that was made for this connection."""
        return self._side


class Connecting:
    """Of one channel."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        channel: config.Channel,
        limits: config.Limits,
        buffer: PeekBuffer,
    ) -> None:
        """@raise CannotStart: Twisted does not know, or refuses, what is written."""
        self._reactor = reactor
        self._asPeer = channel.identity == "peer"
        self._limits = limits
        self._endpoint = _endpoint(reactor, channel, limits, buffer)

    def limit(self, limits: config.Limits) -> None:
        """Other limits, for connections that are made from now on."""
        self._limits = limits
        if isinstance(self._endpoint, ChannelClientEndpoint):
            self._endpoint.timeout = limits.connectTimeout

    def dial(self, other: Side | Asking, accepted: Side | None = None) -> Deferred[IProtocol]:
        """
        Connect a protocol.

        @param accepted: for whom, if as that one is to be known; None: as the service.
        @raise OSError: the kernel does not say who that is.
        """
        factory = _Only(other)
        if not isinstance(self._endpoint, ChannelClientEndpoint):
            most = self._limits.endpointBuffer
            return dialEndpoint(self._endpoint, self._reactor, factory, most)
        identity: Identity | None = None
        if self._asPeer and accepted is not None:
            identity = peerIdentity(cast(SocketChannel, accepted.transport).fileno())
        return self._endpoint.connect(factory, identity)

    def ask(self, asking: Asking) -> Deferred[object]:
        """Likewise, by the service itself."""
        try:
            return cast("Deferred[object]", self.dial(asking))
        except OSError:
            return fail()


def _endpoint(
    reactor: ChanproxyReactor, channel: config.Channel, limits: config.Limits, buffer: PeekBuffer
) -> ChannelClientEndpoint | IStreamClientEndpoint:
    connect = channel.connect
    if not isinstance(connect, SocketAddress):
        return makeClient(reactor, connect)
    lookUp = None
    if connect.engine:
        lookUp = partial(_lookUp, reactor, connect)
    return ChannelClientEndpoint(reactor, connect, buffer, limits.connectTimeout, lookUp)


def _lookUp(
    reactor: ChanproxyReactor, address: SocketAddress
) -> Deferred[Sequence[tuple[str, int]]]:
    """Not before somebody connects is more loaded for it."""
    from chanproxy.freezers.runtimes.reaching import lookUp

    return lookUp(address.engine, *address.named, reactor)
