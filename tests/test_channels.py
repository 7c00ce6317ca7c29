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
