"""
What one peek saw, and the memory that all peeks of a reactor share.

Knows nothing of sockets: it holds bytes, descriptors, and the headers through which the kernel
reads and writes them.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Iterator

from attrs import define
from twisted.internet.interfaces import IReactorFDSet

from chanproxy.channels.inflight import BATCH, Record
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeForeign
from chanproxy.kernel.headers import Headers, addressOf
from chanproxy.kernel.poller import Poller

MESSAGE_BYTES = 212992
"""C{net.core.wmem_default}: what a socket that nobody tuned can have in flight."""

RUN_BYTES = 262144
"""The most bytes of a stream in one batch: above what a socket that nobody tuned can hold."""

_FIRST_SLOT = 4096
_LINE = 64

CONTROL_BYTES = 23 * _LINE
"""
Room for control messages: the most descriptors (1032 bytes), and credentials, a pidfd, a time and
a label, which may come because the options of a socket that was given are its giver's.
"""

_NONE: list[int] = []
"""Shared by all that have none, and never changed."""

_ONE = socket.CMSG_SPACE(4)
_LENGTH_OF_ONE = socket.CMSG_LEN(4)
_RIGHTS = socket.SOL_SOCKET | socket.SCM_RIGHTS << 32
_SCM_PIDFD = 4
"""C{linux/socket.h}; a descriptor as well."""

_HEADER = struct.Struct("QiI")


def _stride(size: int) -> int:
    """Distance of slots: whole cache lines, an odd number of them, so that no two slots collide."""
    lines = -(-size // _LINE)
    return (lines | 1) * _LINE


def _pages(size: int) -> memoryview:
    """Memory that costs nothing until it is touched."""
    # Private: shared pages, which is what mmap gives otherwise, are slower and never large ones.
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class PeekBuffer:
    """
    What the channels of one reactor share: bounce buffers, headers, the record, and a poller.

    It is used between a peek and the take that follows at once, so one serves all.  Pages that no
    packet touched cost nothing.

    @ivar messageBytes: the largest message carried, in bytes.
    @ivar messageDescriptors: the most descriptors on one message.
    @ivar slotBytes: the room for one packet now.
    @ivar seen: how many packets the last peek saw.
    """

    def __init__(
        self,
        messageBytes: int = MESSAGE_BYTES,
        messageDescriptors: int = calls.SCM_MAX_FD,
        record: Record | None = None,
    ) -> None:
        """
        @param record: where batches in flight are written down, for who comes after this process;
            a predecessor's is finished.  Without one, it ends with this process.
        """
        self.messageBytes = messageBytes
        self.messageDescriptors = messageDescriptors
        self._poller: Poller | None = None
        self.record = Record() if record is None else record
        memory = _pages(Headers.size(BATCH) + Headers.size(1) + Headers.size(2))
        self.peeked = Headers(memory, BATCH)
        self.peekedRun = Headers(memory[Headers.size(BATCH) :], 1)
        self.trap = Headers(memory[Headers.size(BATCH) + Headers.size(1) :], 2)
        self._control = _pages(BATCH * CONTROL_BYTES)
        self._lengths = self._control.cast("Q")[:: CONTROL_BYTES // 8]
        self._rights = self._control.cast("Q")[1 :: CONTROL_BYTES // 8]
        self._firsts = self._control.cast("i")[4 :: CONTROL_BYTES // 4]
        self._controlSizes = memoryview(struct.pack("Q", CONTROL_BYTES) * BATCH).cast("Q")
        self.seen = BATCH
        self._grow(min(_FIRST_SLOT, messageBytes))

    def openControls(self) -> None:
        """Give the control messages their room again, which the last peek took off."""
        seen = self.seen
        if seen == 1:
            self.peeked.controls[0] = CONTROL_BYTES
        else:
            self.peeked.controls[:seen] = self._controlSizes[:seen]

    def grow(self, size: int) -> None:
        """Make room for packets of C{size} bytes; what was peeked before is gone."""
        self._grow(max(size, min(2 * self.slotBytes, self.messageBytes)))

    def _grow(self, size: int) -> None:
        record = self.record
        stride = _stride(size)
        data = _pages(max(BATCH * stride, RUN_BYTES))
        base, controls = addressOf(data), addressOf(self._control)
        for index in range(BATCH):
            place = (base + index * stride, controls + index * CONTROL_BYTES)
            self.peeked.link(index, *place)
            record.send.link(index, *place)
            record.take.unlink(index)
            self.peeked.sizes[index] = size
        self.peekedRun.link(0, base, controls)
        self.peekedRun.sizes[0] = RUN_BYTES
        self.trap.trap(0, base)
        self.trap.sizes[1] = 1
        self.data, self._stride, self.slotBytes = data, stride, size
        self.address, self.controlAddress = base, controls

    def slot(self, index: int, size: int) -> memoryview:
        """The bytes of a packet; valid until the next peek."""
        start = index * self._stride
        return self.data[start : start + size]

    def poller(self, reactor: IReactorFDSet) -> Poller:
        """What tells the channels of this reactor of their events."""
        if self._poller is None:
            self._poller = Poller(reactor)
        return self._poller

    # Descriptors, in the control messages as the kernel left them.

    def onlyOneEach(self, sizes: list[int]) -> list[int] | None:
        """The descriptors of packets that have exactly one each, and no other control message."""
        count = len(sizes)
        if (
            sizes != [_ONE] * count
            # Two need as much space as one.
            or self._lengths[:count].tolist() != [_LENGTH_OF_ONE] * count
            or self._rights[:count].tolist() != [_RIGHTS] * count
        ):
            return None
        firsts: list[int] = self._firsts[:count].tolist()
        return firsts

    def descriptorsOf(self, index: int, headers: Headers) -> list[int]:
        """
        The descriptors of a packet, now the caller's.

        Nothing else is left among its control messages, so that they can be sent as they are.
        """
        start, size = index * CONTROL_BYTES, headers.controls[index]
        found: list[int] = []
        at = start
        while at + _HEADER.size <= start + size:
            length, level, kind = _HEADER.unpack_from(self._control, at)
            data = self._control[at + _HEADER.size : at + max(length, _HEADER.size)]
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found += data.cast("i").tolist()
            elif level == socket.SOL_SOCKET and kind == _SCM_PIDFD:
                # -1 where the sender was gone already.
                calls.closeAll([fd for fd in data.cast("i").tolist() if fd >= 0])
            at += socket.CMSG_SPACE(max(length - _HEADER.size, 0))
        if found:
            packed = struct.pack(f"QiI{len(found)}i", 16 + 4 * len(found), 1, 1, *found)
            self._control[start : start + len(packed)] = packed
            headers.controls[index] = socket.CMSG_SPACE(4 * len(found))
        else:
            headers.controls[index] = 0
        return found


@define(eq=False)
class PacketBatch:
    """
    Packets at the head of their source's queue, and duplicates of their descriptors.

    @ivar count: how many.
    @ivar more: there may be more after them.
    @ivar descriptors: of all of them, in order; this batch's.
    @ivar perPacket: how many each has; empty when there are none at all.
    @ivar source: the cookie of where they are.
    """

    buffer: PeekBuffer
    count: int = 0
    ended: bool = False
    more: bool = False
    descriptors: list[int] = _NONE
    perPacket: list[int] = _NONE
    source: int = 0

    family = "packets"

    def __len__(self) -> int:
        return self.count

    def messagesIn(self, units: int) -> int:
        """Each packet is a message."""
        return units

    def descriptorsIn(self, units: int) -> int:
        """How many descriptors the first packets have."""
        return sum(self.perPacket[:units]) if self.perPacket else 0

    def message(self, index: int = 0) -> memoryview:
        """The bytes of one packet; valid until the next peek."""
        return self.buffer.slot(index, self.buffer.peeked.lengths[index])

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """Each packet, with its descriptors, which stay this batch's."""
        first = 0
        for index in range(self.count):
            last = first + (self.perPacket[index] if self.perPacket else 0)
            yield self.message(index), self.descriptors[first:last]
            first = last

    def close(self) -> None:
        """Close the duplicates."""
        if self.descriptors:
            descriptors, self.descriptors = self.descriptors, _NONE
            closeForeign(descriptors)


@define(eq=False)
class RunBatch:
    """
    One run of bytes at the head of a stream, and duplicates of the descriptors in it.

    @ivar count: how many bytes.
    @ivar more: there may be more after them.
    @ivar position: the byte that the descriptors came with.
    """

    buffer: PeekBuffer
    count: int = 0
    ended: bool = False
    more: bool = False
    descriptors: list[int] = _NONE
    position: int = 0
    source: int = 0

    family = "bytes"

    def __len__(self) -> int:
        return self.count

    def messagesIn(self, units: int) -> int:
        """Without a framing, one accepted run of bytes is a message."""
        return 1 if units else 0

    def descriptorsIn(self, units: int) -> int:
        """How many descriptors went with so many bytes."""
        return len(self.descriptors) if units > self.position else 0

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """The parts that have to be sent apart, with the descriptors of their first byte."""
        data = self.buffer.data
        if self.descriptors and self.position:
            yield data[: self.position], []
        if self.count:
            yield data[self.position if self.descriptors else 0 : self.count], self.descriptors

    def close(self) -> None:
        """Close the duplicates."""
        if self.descriptors:
            descriptors, self.descriptors = self.descriptors, _NONE
            closeForeign(descriptors)
