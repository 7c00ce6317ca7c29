"""
Framing: a stream that carries packets, each after its length.

C{length32}: 32 bits, big-endian, then as many bytes.  A frame that is not complete waits in the
kernel's queue, so a frame has to fit there.  Knows nothing of counters, containers or freezers.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from attrs import define, field
from twisted.internet.interfaces import IProtocol
from zope.interface import implementer

from chanproxy.channels.batches import PieceBatch
from chanproxy.channels.buffers import RUN_BYTES
from chanproxy.channels.inflight import BATCH
from chanproxy.interfaces import Batch, ChannelBroken, IByteChannel, IChannel, MessageRefused

_LENGTH = struct.Struct("!I")

HEADER_BYTES = _LENGTH.size

FRAME_BYTES = RUN_BYTES - HEADER_BYTES
"""The longest frame: what one peek can show."""


@define(eq=False)
class FrameBatch:
    """Whole frames at the head of a stream, without their lengths."""

    frames: list[memoryview] = field(factory=list)
    ended: bool = False
    more: bool = False

    family = "packets"

    def __len__(self) -> int:
        return len(self.frames)

    def messagesIn(self, units: int) -> int:
        """Each frame is a message."""
        return units

    def descriptorsIn(self, units: int) -> int:
        """None: frames carry no descriptors."""
        return 0

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """The content of each frame, without its header."""
        for frame in self.frames:
            yield frame, []

    def close(self) -> None:
        """Nothing was duplicated."""


@implementer(IChannel)
class FramedChannel:
    """
    A stream, seen as packets.

    A packet of which the stream took a part stays with its source, as those that it did not take
    do; how much is gone is remembered, and the next send goes on there.
    """

    family = "packets"
    carriesDescriptors = False

    def __init__(self, below: IByteChannel, messageBytes: int) -> None:
        """
        @param below: the stream; its protocol becomes this channel's.
        @param messageBytes: the longest frame that is carried.
        """
        self._below = below
        self._most = min(messageBytes, FRAME_BYTES)
        self._sizes: list[int] = []
        self._gone = 0
        self.showsUnread = below.showsUnread
        makeRoom(below, self._most)

    @property
    def protocol(self) -> IProtocol | None:
        """Who is told of its events."""
        return self._below.protocol

    @protocol.setter
    def protocol(self, protocol: IProtocol | None) -> None:
        self._below.protocol = protocol

    def peek(self) -> FrameBatch:
        """See L{IChannel.peek}."""
        # Before the look: what comes between the two is seen.
        last = self._below.nothingFollows()
        run = self._below.peek()
        try:
            if run.descriptorsIn(len(run)):
                raise ChannelBroken("descriptors came, and frames carry none")
            parts = [data for data, _ in run.messages()]
            data = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
            batch = self._split(data)
            batch.ended = run.ended
            partial = len(data) > 0 and not batch.frames
            if partial and last:
                raise ChannelBroken(f"the stream ended inside a frame, after {len(data)} bytes")
            batch.more = bool(batch.frames)
            self._below.waitMore(partial)
            return batch
        finally:
            run.close()

    def _split(self, data: memoryview) -> FrameBatch:
        batch = FrameBatch()
        self._sizes = []
        at = 0
        while at + HEADER_BYTES <= len(data) and len(batch.frames) < BATCH:
            (size,) = _LENGTH.unpack_from(data, at)
            if size > self._most:
                if batch.frames:
                    break
                raise MessageRefused("message-bytes", self._tooLong(size))
            start = at + HEADER_BYTES
            if start + size > len(data):
                break
            batch.frames.append(data[start : start + size])
            self._sizes.append(HEADER_BYTES + size)
            at = start + size
        return batch

    def _tooLong(self, size: int) -> str:
        way = "frames cannot be longer"
        if self._most < FRAME_BYTES:
            way = "raise limits.message-bytes"
        return f"a frame of {size} bytes exceeds {self._most}; {way}"

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        self._below.take(sum(self._sizes[:count]))
        del self._sizes[:count]

    def send(self, batch: Batch) -> int:
        """See L{IChannel.send}."""
        if batch.descriptorsIn(len(batch)):
            raise ChannelBroken("descriptors came, and frames carry none")
        sizes: list[int] = []
        pieces: list[bytes | memoryview] = []
        total = 0
        for data, _ in batch.messages():
            if len(data) > FRAME_BYTES:
                if sizes:
                    break
                raise ChannelBroken(
                    f"a packet of {len(data)} bytes exceeds a frame ({FRAME_BYTES})"
                )
            pieces += (_LENGTH.pack(len(data)), data)
            sizes.append(HEADER_BYTES + len(data))
            total += sizes[-1]
            if total >= RUN_BYTES:
                break
        if not sizes:
            return 0
        run = memoryview(b"".join(pieces))[self._gone :]
        sent = self._below.send(PieceBatch([(run, [])])) + self._gone
        count = 0
        while count < len(sizes) and sent >= sizes[count]:
            sent -= sizes[count]
            count += 1
        self._gone = sent
        return count

    # The rest is the stream's.

    def fileno(self) -> int:
        """See L{IChannel.fileno}."""
        return self._below.fileno()

    def waitReadable(self, wanted: bool) -> None:
        """See L{IChannel.waitReadable}."""
        self._below.waitReadable(wanted)

    def waitWritable(self) -> None:
        """See L{IChannel.waitWritable}."""
        self._below.waitWritable()

    def waitGone(self) -> None:
        """See L{IChannel.waitGone}."""
        self._below.waitGone()

    def finishSending(self) -> None:
        """See L{IChannel.finishSending}."""
        self._below.finishSending()

    def finishReceiving(self) -> None:
        """See L{IChannel.finishReceiving}."""
        self._below.finishReceiving()

    def peerGone(self) -> bool:
        """See L{IChannel.peerGone}."""
        return self._below.peerGone()

    def close(self) -> None:
        """See L{IChannel.close}."""
        self._below.close()

    def wasReset(self) -> bool:
        """See L{IChannel.wasReset}."""
        return self._below.wasReset()

    def abort(self) -> None:
        """See L{IChannel.abort}."""
        self._below.abort()


def makeRoom(below: IChannel, size: int) -> None:
    """Let the queue of a TCP socket hold a frame; that of a Unix socket is its sender's."""
    if below.fileno() < 0 or below.showsUnread:
        return
    with socket.socket(fileno=os.dup(below.fileno())) as looked:
        if looked.family in (socket.AF_INET, socket.AF_INET6):
            # The kernel makes the window wide enough for the mark, C{tcp_set_rcvlowat}, beyond what
            # a size of the buffer may be set to.
            for mark in (2 * (size + HEADER_BYTES), 1):
                looked.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
