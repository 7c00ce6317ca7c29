"""The suite for all kinds of channels, on Twisted's own transports."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest
from twisted.internet.protocol import Factory, Protocol

from chanproxy.channels.adapter import EndpointFactory
from chanproxy.channels.buffered import EndpointChannel
from chanproxy.interfaces import ChanproxyReactor, IChannel
from chanproxy.testing.channels import ChannelConformance, ChannelKind, Peer, SocketPeer
from chanproxy.testing.peers import Ends, turns
from tests.shared.sides import asynchronous, tcpPair, until

MOST = 16384


class _Later(Protocol):
    """Stands in until the test has a protocol: the transport wants one at once."""

    def makeConnection(self, transport: object) -> None:
        """The channel keeps it."""


def adopt(
    reactor: ChanproxyReactor, ours: socket.socket, family: int, most: int = MOST
) -> EndpointChannel:
    """A channel over what Twisted makes of a connected socket."""
    made: list[Any] = []

    class Keeping(EndpointFactory):
        def buildProtocol(self, addr: object) -> Any:
            made.append(super().buildProtocol(cast(Any, addr)))
            return made[-1]

    inner = Factory.forProtocol(_Later)
    ours.setblocking(False)
    cast(Any, reactor).adoptStreamConnection(ours.fileno(), family, Keeping(reactor, inner, most))
    ours.close()
    channel: EndpointChannel = made[0].channel
    return channel


class TestTcpTransport(ChannelConformance):
    """What a C{tcp:} endpoint of Twisted's makes."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A connection on loopback."""

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = tcpPair()
            return adopt(reactor, ours, socket.AF_INET), SocketPeer(theirs)

        return ChannelKind(reactor, make, noticesClose=False)


class TestUnixTransport(ChannelConformance):
    """What a C{unix:} endpoint of Twisted's makes: with descriptors, not at their own bytes."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A pair of sockets."""

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            return adopt(reactor, ours, socket.AF_UNIX), SocketPeer(theirs)

        return ChannelKind(reactor, make, noticesClose=False, exactDescriptors=False)


@asynchronous
async def test_bounded(reactor: ChanproxyReactor) -> None:
    """A peer that sends for ever fills the buffer, and one read of the transport more."""
    ours, theirs = tcpPair()
    channel = adopt(reactor, ours, socket.AF_INET)
    ends = Ends(ChannelKind(reactor, lambda: (channel, SocketPeer(theirs)), noticesClose=False))
    sent = 0
    refused = 0
    while refused < 20:
        accepted = ends.peer.send(b"x" * 8192)
        sent += accepted or 0
        refused = 0 if accepted else refused + 1
        await turns(reactor, 1)
    assert MOST <= len(channel.peek()) < MOST + 65536 < sent
    taken = 0
    while taken < sent:
        await until(reactor, lambda: len(channel.peek()))
        taken += len(channel.peek())
        channel.take(len(channel.peek()))
    await ends.close()
