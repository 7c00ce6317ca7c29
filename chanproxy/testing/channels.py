"""
For tests: channels in memory, whose other end the test holds.  No sockets, no reactor.

They are what a L{chanproxy.proxy.ChannelProxy} carries between; descriptors stay with kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol as TypingProtocol

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.interfaces import Batch, ChannelBroken, ChannelClosed, IChannel


class _User(TypingProtocol):
    """L{chanproxy.interfaces.IChannelUser}, as a type."""

    def channelReadable(self) -> None: ...
    def channelWritable(self) -> None: ...


@define(eq=False)
class MemoryBatch:
    """Messages that are still in their channel."""

    messages: Sequence[bytes] = ()
    ended: bool = False
    descriptors: list[int] = field(factory=list)

    def __len__(self) -> int:
        return len(self.messages)

    def close(self) -> None:
        """Nothing is held."""


class MemoryEnd:
    """
    The test's end.

    @ivar received: what was sent to it.
    @ivar closed: whether the other side has closed the channel.
    @ivar finished: whether nothing more comes from there.
    """

    def __init__(self, channel: MemoryChannel) -> None:
        self._channel = channel
        self.received: list[bytes] = []
        self.closed = False
        self.finished = False

    def send(self, *messages: bytes) -> None:
        """Send to the proxy's end; it hears of it at once, if it waits."""
        self._channel._queue.extend(messages)
        self._channel._tell()

    def finish(self) -> None:
        """Send nothing any more."""
        self._channel._ended = True
        self._channel._tell()

    def close(self) -> None:
        """Send and receive nothing any more."""
        self._channel._gone = self._channel._ended = True
        self._channel._tell()

    def makeRoom(self, room: int) -> None:
        """Let so many more messages be sent to us."""
        self._channel._room = room
        if self._channel._wantsWritable:
            self._channel._wantsWritable = False
            self._channel._user.channelWritable()


@implementer(IChannel)
class MemoryChannel:
    """The proxy's end of a channel: the transport of a protocol that is an L{IChannelUser}."""

    disconnecting = False

    def __init__(self, protocol: Protocol, room: int = 1 << 30) -> None:
        """
        @param protocol: is connected to this channel.
        @param room: how many messages can be sent until the test makes room.
        """
        # A protocol of channels; Twisted's class does not say so.
        self._user: _User = protocol  # type: ignore[assignment]  # see IChannelUser
        self._protocol = protocol
        self._queue: list[bytes] = []
        self._ended = False
        self._gone = False
        self._room = room
        self._wantsReadable = False
        self._wantsWritable = False
        self._wantsGone = False
        self._closed = False
        self.end = MemoryEnd(self)
        # What it wants is a transport of bytes; a channel has four verbs instead.
        protocol.makeConnection(self)

    def _tell(self) -> None:
        if self._closed:
            return
        if self._wantsReadable or (self._gone and self._wantsGone):
            self._user.channelReadable()

    def fileno(self) -> int:
        """There is none."""
        return -1

    def peek(self) -> MemoryBatch:
        """See L{IChannel.peek}."""
        return MemoryBatch(tuple(self._queue), self._ended)

    def send(self, batch: Batch) -> int:
        """See L{IChannel.send}."""
        if not isinstance(batch, MemoryBatch):
            raise ChannelBroken("a channel in memory takes the messages of another one only")
        if self._gone or self._closed:
            raise ChannelClosed("the test has closed its end")
        sent = min(len(batch), self._room)
        self.end.received += batch.messages[:sent]
        self._room -= sent
        return sent

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        del self._queue[:count]

    def waitReadable(self, wanted: bool) -> None:
        """See L{IChannel.waitReadable}."""
        self._wantsReadable = wanted

    def waitWritable(self) -> None:
        """See L{IChannel.waitWritable}."""
        self._wantsWritable = True

    def waitGone(self) -> None:
        """See L{IChannel.waitGone}."""
        self._wantsGone = True

    def finishSending(self) -> None:
        """See L{IChannel.finishSending}."""
        self.end.finished = True

    def peerGone(self) -> bool:
        """See L{IChannel.peerGone}."""
        return self._gone

    def close(self) -> None:
        """See L{IChannel.close}; C{connectionLost} follows at once."""
        if not self._closed:
            self._closed = True
            self.end.closed = True
            self._protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """Twisted's name for it."""
        self.close()
