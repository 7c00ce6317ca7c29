"""
For tests: the far ends of channels, and what watches the near ones.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from attrs import frozen
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.interfaces import ChannelClosed, ChanproxyReactor, IChannel, IChannelUser
from chanproxy.kernel import calls
from chanproxy.testing.memory import MemoryChannel

PATIENCE = 5.0
"""Seconds until something that should happen has not happened."""


class Peer(Protocol):
    """The far end of a channel, in a test's hands.  Nothing here waits."""

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> int | None:
        """
        Send a message; the descriptors stay the caller's.

        @return: how many bytes were accepted, L{None} for nothing at all.
        @raise ChannelClosed: the other end receives no more.
        """

    def receive(self, size: int) -> tuple[bytes, list[int]] | None:
        """
        Receive a packet, or up to so many bytes of a stream; descriptors are the caller's.

        @return: L{None} when nothing is there now.
        @raise EOFError: nothing will ever be.
        """

    def finishSending(self) -> None:
        """Nothing more comes from here."""

    def close(self) -> None:
        """Close.  Idempotent."""


class SocketPeer:
    """A peer that is a socket."""

    def __init__(self, end: socket.socket) -> None:
        """@param end: owned by this object."""
        self._end = end
        end.setblocking(False)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> int | None:
        """See L{Peer.send}."""
        try:
            return socket.send_fds(self._end, [data], descriptors)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def receive(self, size: int) -> tuple[bytes, list[int]] | None:
        """See L{Peer.receive}."""
        while True:
            try:
                data, found, _, _ = socket.recv_fds(self._end, size, 253)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ECONNRESET:
                    continue
                raise
            # An empty packet is no end.  With a hang-up it may be either, and is taken for the end.
            if not data and not found and calls.hungUp(self._end.fileno()):
                raise EOFError
            return data, found

    def finishSending(self) -> None:
        """See L{Peer.finishSending}."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """See L{Peer.close}."""
        self._end.close()


class MemoryPeer:
    """A peer that is the other L{MemoryChannel}."""

    def __init__(self, end: MemoryChannel) -> None:
        self._end = end

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> int | None:
        """See L{Peer.send}."""
        accepted = self._end._outgoing.send(data, list(descriptors))
        self._end._changed()
        return len(data) if accepted else None

    def receive(self, size: int) -> tuple[bytes, list[int]] | None:
        """See L{Peer.receive}."""
        waiting = self._end._incoming
        if not waiting.packets:
            if waiting.ended:
                raise EOFError
            return None
        packet = waiting.packets.popleft()
        self._end._changed()
        return packet

    def finishSending(self) -> None:
        """See L{Peer.finishSending}."""
        self._end.finishSending()

    def close(self) -> None:
        """See L{Peer.close}."""
        self._end.close()


@frozen
class ChannelKind:
    """
    What the suite tests.

    @ivar reactor: the channels'; it runs.
    @ivar make: a new channel, without a protocol yet, and its peer.
    @ivar noticesClose: a peer that closes is gone at once, as opposed to TCP, where that and a half
        close look the same.
    @ivar exactDescriptors: each goes with its own byte, as opposed to Twisted's transports, which
        keep their order only.
    """

    reactor: ChanproxyReactor
    make: Callable[[], tuple[IChannel, Peer]]
    noticesClose: bool = True
    exactDescriptors: bool = True


@implementer(IChannelUser)
class Listener(TwistedProtocol):
    """Keeps what a channel tells."""

    def __init__(self) -> None:
        self.readable = self.writable = self.lost = 0
        self.onReadable: Callable[[], object] = lambda: None

    def channelReadable(self) -> None:
        """See L{IChannelUser}."""
        self.readable += 1
        self.onReadable()

    def channelWritable(self) -> None:
        """See L{IChannelUser}."""
        self.writable += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The channel is closed."""
        self.lost += 1


def attach(channel: IChannel, protocol: TwistedProtocol) -> None:
    """Give a channel its protocol."""
    cast(Any, channel).protocol = protocol
    protocol.makeConnection(cast(ITransport, channel))


async def until(reactor: ChanproxyReactor, condition: Callable[[], object]) -> None:
    """Poll, with a bound, for what gives no event to a test."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < deadline, f"it did not happen within {PATIENCE} seconds"
        await deferLater(reactor, 0.001)


async def turns(reactor: ChanproxyReactor, count: int = 5) -> None:
    """Let the reactor go round."""
    for _ in range(count):
        await deferLater(reactor, 0)


class Ends:
    """A channel, what it told, and its peer; all closed at the end."""

    def __init__(self, kind: ChannelKind) -> None:
        self.reactor = kind.reactor
        self.channel, self.peer = kind.make()
        self.listener = Listener()
        attach(self.channel, self.listener)

    async def close(self) -> None:
        """Close both; the channel says so, once."""
        self.channel.close()
        self.peer.close()
        await turns(self.reactor)
        assert self.listener.lost == 1

    async def peeked(self, size: int) -> list[tuple[bytes, int]]:
        """What a peek shows, when there is as much."""
        await until(self.reactor, lambda: self._size() >= size)
        batch = self.channel.peek()
        shown = [(bytes(data), len(descriptors)) for data, descriptors in batch.messages()]
        batch.close()
        return shown

    def _size(self) -> int:
        batch = self.channel.peek()
        try:
            return len(batch)
        finally:
            batch.close()

    async def ended(self) -> None:
        """Wait for the end-of-file, with nothing before it."""

        def look() -> bool:
            batch = self.channel.peek()
            batch.close()
            assert len(batch) == 0
            return batch.ended

        await until(self.reactor, look)

    async def peerEnded(self) -> None:
        """Wait until the peer has received the end, with nothing before it."""

        def look() -> bool:
            try:
                found = self.peer.receive(10)
            except EOFError:
                return True
            assert found is None
            return False

        await until(self.reactor, look)

    async def received(self, size: int) -> tuple[bytes, list[int]]:
        """What the peer receives next."""
        got: list[tuple[bytes, list[int]]] = []

        def look() -> bool:
            found = self.peer.receive(size)
            if found is not None:
                got.append(found)
            return bool(got)

        await until(self.reactor, look)
        return got[0]


class Files:
    """Open files that can be told apart, to give away."""

    def __init__(self) -> None:
        self.all = [os.memfd_create(f"file {number}", os.MFD_CLOEXEC) for number in range(3)]

    def names(self, descriptors: list[int]) -> list[int]:
        """Which ones they are; closes them."""
        inodes = [os.fstat(fd).st_ino for fd in self.all]
        found = [inodes.index(os.fstat(fd).st_ino) for fd in descriptors]
        for fd in descriptors:
            os.close(fd)
        return found

    def close(self) -> None:
        """Close them."""
        for fd in self.all:
            os.close(fd)


@contextlib.contextmanager
def openFiles() -> Iterator[Files]:
    """Files, closed at the end."""
    files = Files()
    try:
        yield files
    finally:
        files.close()


def carry(source: Ends, sink: Ends) -> int:
    """One batch; how much of it went."""
    batch = source.channel.peek()
    try:
        sent = sink.channel.send(batch)
        source.channel.take(sent)
        return sent
    finally:
        batch.close()
