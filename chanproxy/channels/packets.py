"""
SOCK_SEQPACKET over AF_UNIX: packets with their descriptors, boundaries kept.

L{SeqpacketChannel} is the four verbs on one socket.  What a Twisted protocol expects on top of them
is in L{chanproxy.channels.transport}, ports and endpoints are in L{chanproxy.endpoints}.  Knows
nothing of counters, containers or freezers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from zope.interface import implementer

from chanproxy.channels.base import CONTROL, PEEK, SEND, TAKE, SocketChannel
from chanproxy.channels.buffers import PacketBatch, PeekBuffer
from chanproxy.channels.inflight import BATCH, PACKETS, takeFrom
from chanproxy.interfaces import (
    Batch,
    ChannelBroken,
    ChanproxyReactor,
    IChannel,
    MessageRefused,
)
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeForeign

_SO_TIMESTAMP = 29
"""C{asm-generic/socket.h}; the C{socket} module does not name it."""

_PEEK = PEEK | socket.MSG_TRUNC
# What a peek of ours says of a packet with nothing special: our own flag, handed back.
_PLAIN = socket.MSG_CMSG_CLOEXEC
_ALL_PLAIN = memoryview(struct.pack("Q", _PLAIN) * BATCH).cast("Q")
_NO_CONTROLS = memoryview(bytes(8 * BATCH)).cast("Q")
_OFF = -1
_SCRATCH = [bytearray(1)]
_NONE: list[int] = []


@implementer(IChannel)
class SeqpacketChannel(SocketChannel):
    """
    Peek, send, take on one connected socket.

    With C{SO_PEEK_OFF} at 0 a peek walks on by what it saw, and a take walks back by what it took.
    So one call sees many packets, and the offset is 0 again when all of them are taken.  An empty
    packet that was peeked is skipped by later peeks with an offset, though a take removes it: then,
    and after a predecessor that died, go one at a time with the offset off, which always shows the
    head.
    """

    __slots__ = ("_heaviest", "_lengths", "_offset", "_single")

    family = "packets"

    def __init__(
        self, reactor: ChanproxyReactor, connected: socket.socket, buffer: PeekBuffer
    ) -> None:
        super().__init__(reactor, connected, buffer)
        # What the last peek saw and nobody has taken; then the offset is past the head.
        self._lengths = _NONE
        self._offset: int | None = None
        self._single = 0
        self._heaviest = 0

    # The four verbs.

    def peek(self, most: int = BATCH) -> PacketBatch:
        """
        See L{IChannel.peek}.

        @param most: packets at most.
        """
        buffer = self._buffer
        batch = PacketBatch(buffer)
        if self._closed:
            return batch
        headers = buffer.peeked
        while True:
            fresh = self._offset == 0 and not (self._lengths or self._single)
            wanted = most if fresh else self._aim(most)
            if self._heaviest:
                wanted = self._roomFor(self._heaviest, wanted)
            buffer.openControls()
            seen = calls.recvmmsg(self._socket.fileno(), headers.pointer, wanted, _PEEK)
            if seen <= 0:
                if -seen == errno.EAGAIN:
                    return batch
                # A reset is reported once, before what is still pending; it is cleared now.
                if -seen in (errno.ECONNRESET, errno.EINTR):
                    continue
                raise ChannelBroken(f"reading: {os.strerror(-seen)}")
            buffer.seen = count = seen
            if seen == 1:
                # Most of what is no flood; single values are cheaper to read than lists.
                self._lengths = [headers.lengths[0]]
                special = headers.flags[0] != _PLAIN or not self._lengths[0] or headers.controls[0]
            else:
                self._lengths = lengths = headers.lengths[:seen].tolist()
                special = (
                    headers.flags[:seen] != _ALL_PLAIN[:seen]
                    or headers.controls[:seen] != _NO_CONTROLS[:seen]
                    or not min(lengths)
                )
            if special:
                try:
                    count = self._examine(batch, seen)
                except BaseException:
                    batch.close()
                    raise
                if count < 0:
                    # What was needed has been prepared.
                    continue
            else:
                self._heaviest = 0
            batch.count = count
            batch.more = seen == wanted or count < seen
            batch.source = self._cookie or self.cookie()
            return batch

    def _aim(self, most: int) -> int:
        """Put the offset where it has to be.  @return: how many packets to peek at."""
        if self._lengths:
            # Seen, and left there.
            if not self._single:
                if 0 in self._lengths:
                    self._single = len(self._lengths)
                else:
                    self._offset = None
            self._lengths = _NONE
        offset = _OFF if self._single else 0
        if self._offset != offset:
            self._socket.setsockopt(socket.SOL_SOCKET, calls.SO_PEEK_OFF, offset)
            self._offset = offset
        if self._single:
            return 1
        return most

    def inherited(self) -> None:
        """A predecessor died with this socket: what it had peeked at is not known."""
        self._single = BATCH
        self._offset = None

    def _examine(self, batch: PacketBatch, seen: int) -> int:
        """
        Look at each packet of a peek that saw something special.

        @return: how many of them can be sent; -1: peek again.  C{batch} has their descriptors.
        """
        headers, buffer = self._buffer.peeked, self._buffer
        lengths, controls = self._lengths, headers.controls[:seen].tolist()
        flags = headers.flags[:seen].tolist()
        heaviest = 0
        if max(flags) == _PLAIN and min(lengths) and buffer.messageDescriptors:
            # The common case of a descriptor on each.
            ones = buffer.onlyOneEach(controls)
            if ones is not None:
                batch.descriptors, batch.perPacket, self._heaviest = ones, [1] * seen, 1
                return seen
        found: list[list[int]] = []
        for index in range(seen):
            found.append(buffer.descriptorsOf(index, headers) if controls[index] else [])
        count = seen
        try:
            for index in range(seen):
                if not self._fits(batch, index, flags[index], len(found[index])):
                    count = index
                    break
                heaviest = max(heaviest, len(found[index]))
        except BaseException:
            closeForeign([fd for each in found for fd in each])
            raise
        closeForeign([fd for each in found[count:] for fd in each])
        self._heaviest = heaviest
        if heaviest:
            batch.descriptors = [fd for each in found[:count] for fd in each]
            batch.perPacket = [len(each) for each in found[:count]]
        if count or batch.ended or self._retryRead is not None:
            return count
        return -1

    def _fits(self, batch: PacketBatch, index: int, flags: int, descriptors: int) -> bool:
        """
        Whether a packet was seen whole.  If not, the batch ends before it; and if it is the first,
        what is needed next is prepared.

        @raise MessageRefused: it is the first, and exceeds a limit.
        """
        limits, size = self._buffer, self._lengths[index]
        if flags & socket.MSG_TRUNC:
            # The next peek would go on inside it.
            if index == 0:
                if size > limits.messageBytes:
                    raise MessageRefused(
                        "message-bytes",
                        f"a packet of {size} bytes exceeds message-bytes = {limits.messageBytes}; "
                        "raise limits.message-bytes",
                    )
                limits.grow(size)
            return False
        if flags & socket.MSG_CTRUNC:
            # At a peek nothing is lost: the packet still holds them all.
            if index == 0:
                self._pauseForDescriptors()
            return False
        if descriptors > limits.messageDescriptors:
            if index == 0:
                raise self._tooManyDescriptors(descriptors)
            return False
        if size or descriptors or not calls.hungUp(self.fileno()):
            return True
        # With a hang-up it may be the end; that is looked at when it is the head.
        if index == 0:
            if self._offset != _OFF:
                self._single = BATCH
            elif _atEnd(self._socket):
                batch.ended = self._drained = True
            else:
                return True
        return False

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        buffer = self._buffer
        lengths = self._lengths
        if count:
            headers = buffer.record.take
            try:
                done = takeFrom(self.fileno(), headers, 0, count)
                while done < count:
                    done += takeFrom(self.fileno(), headers, done, count - done)
            except OSError as error:
                raise self._cannotTake(error) from error
            if headers.lengths[0] != lengths[0] or (
                count > 1 and headers.lengths[:count].tolist() != lengths[:count]
            ):
                raise ChannelBroken(
                    f"took packets of {headers.lengths[:count].tolist()} bytes where "
                    f"{lengths[:count]} were peeked: another process reads from this socket, too"
                )
            self._lengths = lengths[count:] if count < len(lengths) else _NONE
            if self._single:
                self._single = max(self._single - count, 0)
        buffer.record.end()

    def discard(self) -> None:
        """
        Drop the packet at the head, of whatever size, and its descriptors; nothing is received.

        For a packet that L{peek} refused.  Harmless when there is none, and when it is closed.
        """
        while not self._closed:
            with contextlib.suppress(BlockingIOError):
                try:
                    # Without room for them the kernel would close the descriptors, and wait here.
                    _, ancillary, _, _ = self._socket.recvmsg_into(_SCRATCH, CONTROL, TAKE)
                    closeForeign(calls.descriptorsIn(ancillary))
                except ConnectionResetError:
                    continue
            return

    def _sendBatch(self, batch: Batch) -> int:
        if not isinstance(batch, PacketBatch):
            return self._sendParts(batch)
        count = batch.count
        record, peeked = batch.buffer.record, batch.buffer.peeked
        headers = record.send
        if count == 1:
            headers.sizes[0] = peeked.lengths[0]
            headers.controls[0] = peeked.controls[0]
        else:
            headers.sizes[:count] = peeked.lengths[:count]
            headers.controls[:count] = peeked.controls[:count]
        enlarged = False
        while True:
            record.begin(PACKETS, count, batch.source, self._cookie or self.cookie())
            sent = calls.sendmmsg(self._socket.fileno(), headers.pointer, count, SEND)
            if sent > 0:
                return sent
            record.end()
            if not self._mayRetry(-sent, len(batch.message()), len(batch.descriptors), enlarged):
                return 0
            enlarged = True


def _atEnd(connected: socket.socket) -> bool:
    """Whether a length of 0 at the head is end-of-file; it is a legal packet as well."""
    # A packet has a timestamp, also one queued before the option was on; end-of-file has none.
    connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMP, 1)
    try:
        _, ancillary, _, _ = connected.recvmsg_into(_SCRATCH, CONTROL, _PEEK)
    except OSError:
        return False
    finally:
        connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMP, 0)
    closeForeign(calls.descriptorsIn(ancillary))
    return not ancillary
