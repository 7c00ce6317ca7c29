"""The suite for all kinds of channels, on each kind."""

from __future__ import annotations

import socket

import pytest

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.channels.streams import TcpChannel, UnixStreamChannel, VsockChannel
from chanproxy.interfaces import ChanproxyReactor, IChannel
from chanproxy.testing.channels import (
    ChannelConformance,
    ChannelKind,
    MemoryChannel,
    MemoryPeer,
    Peer,
    SocketPeer,
)
from tests.shared.sides import tcpPair


class TestMemory(ChannelConformance):
    """In memory."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A pair without a kernel."""

        def make() -> tuple[IChannel, Peer]:
            one, other = MemoryChannel.pair(reactor)
            return one, MemoryPeer(other)

        return ChannelKind(reactor, make)


class TestSeqpacket(ChannelConformance):
    """Packets."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A pair of sockets; all channels share a buffer, as in a service."""
        buffer = PeekBuffer()

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            return SeqpacketChannel(reactor, ours, buffer), SocketPeer(theirs)

        return ChannelKind(reactor, make)


class TestUnixStream(ChannelConformance):
    """Bytes over AF_UNIX."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A pair of sockets."""
        buffer = PeekBuffer()

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            return UnixStreamChannel(reactor, ours, buffer), SocketPeer(theirs)

        return ChannelKind(reactor, make)


class TestTcp(ChannelConformance):
    """Bytes over TCP."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A connection on loopback."""
        buffer = PeekBuffer()

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = tcpPair()
            return TcpChannel(reactor, ours, buffer), SocketPeer(theirs)

        return ChannelKind(reactor, make, noticesClose=False)


class TestVsock(ChannelConformance):
    """Bytes over vsock, on the sockets nearest to it that every kernel has."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A pair of Unix sockets: few machines can reach themselves over vsock."""
        buffer = PeekBuffer()

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            return VsockChannel(reactor, ours, buffer), SocketPeer(theirs)

        return ChannelKind(reactor, make)
