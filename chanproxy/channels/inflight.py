"""
The record of the batch in flight: what a successor would need, if this process is killed within.
None reads it yet.

A batch is in three places in turn: in the source's queue, in both (sent, not yet taken), and in the
sink's.  Only the middle is dangerous, and there every step is written down by the kernel itself, in
memory that outlives the process: a memfd with the headers of the send and of the take.

The order of the writes, and why a kill between any two of them is harmless::

    preset      each C{msg_len} of both arrays to UNSET.  Size is 0 still: nothing is in flight.
    name        source, sink, kind.  Size is 0 still.
    size := n   from here the record counts.  Nothing is sent: all lengths are unset.
    send        C{sendmmsg} stores each C{msg_len} right after its message was accepted, in the same
                system call.  A kill takes effect when that returns to user space, or while it
                waits, which it is told not to: so never between the two.
    take        C{recvmmsg} likewise.  Sent and not taken is the difference of what is stored.
    size := 0   both are equal: nothing is in flight.

Python's writes and the kernel's are of one thread, in program order, and a kill is no crash of the
machine: what was written is there.  Counting has come before all this, so a successor may find
messages counted that were not sent; it counts them again, which keeps a container awake and loses
nothing.

Knows no channels; knows sockets only by what is taken from them.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import weakref

from chanproxy.kernel import calls
from chanproxy.kernel.headers import UNSET, Headers, addressOf

BATCH = 64
"""
Packets in one batch.  Twice as many gain nothing that can be measured, and take as long again from
the other channels.
"""

PARTS = 2
"""Sends of one run of a stream: the bytes before those with descriptors, and those with them."""

TAKES = 8
"""Takes of one run of a stream; one is enough unless somebody else reads, too."""

PACKETS, BYTES = 1, 2
"""Kinds of batches: messages with boundaries, and runs of a stream."""

_TAKING = socket.MSG_TRUNC | socket.MSG_DONTWAIT
_SIZE, _KIND, _SOURCE, _SINK = range(4)
_STATE_BYTES = 64
_UNSET = memoryview(bytes(4 * [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0] * (BATCH // 4))).cast("Q")


_UNSET_PARTS, _UNSET_TAKES = _UNSET[:PARTS], _UNSET[:TAKES]


def _layout() -> tuple[int, int, int, int, int]:
    """Offsets of the arrays, and the end."""
    ends = [_STATE_BYTES]
    for count in (BATCH, BATCH, PARTS, TAKES):
        ends.append(ends[-1] + Headers.size(count))
    return ends[0], ends[1], ends[2], ends[3], ends[4]


_SEND, _TAKE, _PART, _RUN, _END = _layout()


class Record:
    """
    The arrays of one process that carries, and whoever comes after it.

    @ivar descriptor: the memfd, if it is in one; this object's.
    @ivar send: C{BATCH} headers of packets to send; C{take}: of packets to take, without buffers.
    @ivar parts: headers of the parts of a run to send; C{run}: of takes from a stream.
    """

    __slots__ = (
        *("__weakref__", "_memory", "_state"),
        *("descriptor", "parts", "run", "send", "take"),
    )

    def __init__(self, descriptor: int | None = None) -> None:
        """
        @param descriptor: of L{newDescriptor}, perhaps a predecessor's; owned by this object when
            it is made.  Without one, the record ends with its process and those that it forked.
        @raise OSError: resources are short, or it is no record; the descriptor is the caller's.
        """
        if descriptor is None:
            self._memory = memoryview(mmap.mmap(-1, _END))
        else:
            if os.fstat(descriptor).st_size != _END:
                raise OSError(errno.EINVAL, "this is no record of this version")
            self._memory = memoryview(mmap.mmap(descriptor, _END))
            weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        # A page that is not there when the kernel stores a length, in a process that is being
        # killed, would stay as it was.
        calls.lockMemory(addressOf(self._memory), _END)
        self._state = self._memory[:_STATE_BYTES].cast("Q")
        self.send = Headers(self._memory[_SEND:], BATCH)
        self.take = Headers(self._memory[_TAKE:], BATCH)
        self.parts = Headers(self._memory[_PART:], PARTS)
        self.run = Headers(self._memory[_RUN:], TAKES)

    @staticmethod
    def newDescriptor() -> int:
        """A new record's memory, which outlives this process in whoever has a duplicate."""
        descriptor = os.memfd_create("chanproxy-batch", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _END)
        return descriptor

    def begin(self, kind: int, count: int, source: int, sink: int) -> None:
        """
        A batch is about to be sent.

        @param kind: L{PACKETS} or L{BYTES}.
        @param count: headers of the send.
        @param source: the source's cookie, and C{sink}: the sink's; see L{calls.socketCookie}.
        """
        if kind == PACKETS and count == 1:
            self.send.lengths[0] = self.take.lengths[0] = UNSET
        elif kind == PACKETS:
            self.send.lengths[:count] = self.take.lengths[:count] = _UNSET[:count]
        else:
            self.parts.lengths[:] = _UNSET_PARTS
            self.run.lengths[:] = _UNSET_TAKES
        state = self._state
        state[_SOURCE], state[_SINK], state[_KIND] = source, sink, kind
        # The last of all: from here it counts.
        state[_SIZE] = count

    def end(self) -> None:
        """What was sent has been taken, or nothing was sent."""
        self._state[_SIZE] = 0

    @property
    def source(self) -> int | None:
        """The cookie of the source of what is in flight, or L{None} when nothing is."""
        return self._state[_SOURCE] if self._state[_SIZE] else None

    @property
    def sink(self) -> int | None:
        """Likewise of the sink."""
        return self._state[_SINK] if self._state[_SIZE] else None

    def finish(self, source: socket.socket) -> int:
        """
        Take from the source what a dead process sent and had no time to take.

        May itself be killed, and called again: it goes on in the same record.  Afterwards a channel
        on the source has to be told, by its C{inherited()}.

        @param source: the socket whose cookie is L{source}.
        @return: how much was taken: packets, or bytes of a stream.
        @raise OSError: it cannot be read.
        """
        state = self._state
        size = state[_SIZE]
        if not size:
            return 0
        # Entries past the batch are stale.
        if state[_KIND] == PACKETS:
            sent = len(self.send.stored(size))
            taken = len(self.take.stored(size))
            left = sent - taken
            while taken < sent:
                taken += takeFrom(source.fileno(), self.take, taken, sent - taken)
        else:
            before = self.run.stored(TAKES)
            left = sum(self.parts.stored(size)) - sum(before)
            # Kept here while the kernel writes to it.
            memory = memoryview(bytearray(left + 1))
            tcp = source.family in (socket.AF_INET, socket.AF_INET6)
            scratch = 0 if tcp else addressOf(memory)
            takeRun(source.fileno(), self.run, len(before), left, scratch)
        self.end()
        return left


def takeFrom(fd: int, headers: Headers, first: int, count: int) -> int:
    """
    Remove packets from the head of a queue, by headers without buffers.

    @return: how many; their lengths are stored.
    @raise OSError: there are none (C{EAGAIN}), or it cannot be read.
    """
    while True:
        got = calls.recvmmsg(fd, headers.at(first), count, _TAKING)
        if got > 0:
            return got
        # A peer that closed with data unread is reported before what is still pending, once.
        if -got not in (errno.ECONNRESET, errno.EINTR):
            raise OSError(-got, os.strerror(-got))


def takeRun(fd: int, headers: Headers, first: int, count: int, scratch: int) -> None:
    """
    Remove bytes from the head of a stream.

    @param scratch: the address of C{count} bytes that may be overwritten, or 0 on TCP, which drops
        them without a copy.  (AF_UNIX cannot: it answers EFAULT.)
    @raise OSError: there are not as many, or it cannot be read.
    """
    while count > 0 and first < headers.count:
        headers.link(first, scratch)
        headers.sizes[first] = count
        takeFrom(fd, headers, first, 1)
        got = headers.lengths[first]
        if got == 0:
            break
        count -= got
        first += 1
    if count:
        raise OSError(errno.EAGAIN, "another process reads from this socket, too")
