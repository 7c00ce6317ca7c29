"""The suite for all kinds of channels, on packets that are frames of a stream."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

import pytest

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.framed import FramedChannel
from chanproxy.channels.streams import UnixStreamChannel
from chanproxy.interfaces import ChannelClosed, ChanproxyReactor, IChannel
from chanproxy.testing.channels import ChannelConformance, ChannelKind, Peer


class FramedPeer:
    """A peer that writes and reads frames; each goes whole, for the kernel has one piece for it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._got = b""
        end.setblocking(False)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> int | None:
        """See L{Peer.send}."""
        try:
            sent = self._end.send(struct.pack("!I", len(data)) + data)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        assert sent == 4 + len(data)
        return len(data)

    def receive(self, size: int) -> tuple[bytes, list[int]] | None:
        """See L{Peer.receive}."""
        while True:
            if len(self._got) >= 4:
                last = 4 + int.from_bytes(self._got[:4], "big")
                if len(self._got) >= last:
                    data, self._got = self._got[4:last], self._got[last:]
                    return data, []
            try:
                piece = self._end.recv(1 << 20)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ECONNRESET:
                    continue
                raise
            if not piece:
                assert not self._got, "the end came inside a frame"
                raise EOFError
            self._got += piece

    def finishSending(self) -> None:
        """See L{Peer.finishSending}."""
        self._end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """See L{Peer.close}."""
        self._end.close()


class TestFramed(ChannelConformance):
    """C{length32} over AF_UNIX."""

    @pytest.fixture
    def kind(self, reactor: ChanproxyReactor) -> ChannelKind:
        """A pair of sockets."""
        buffer = PeekBuffer()

        def make() -> tuple[IChannel, Peer]:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            below = UnixStreamChannel(reactor, ours, buffer)
            return FramedChannel(below, buffer.messageBytes), FramedPeer(theirs)

        return ChannelKind(reactor, make)
