"""
SOCK_STREAM, over AF_UNIX with each descriptor at its own byte, and over TCP.

The same four verbs as of packets; a message is one accepted run of bytes.  Knows nothing of
counters, containers or freezers.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.base import LOST, PEEK, SEND, SocketChannel
from chanproxy.channels.buffers import CONTROL_BYTES, RUN_BYTES, PeekBuffer, RunBatch
from chanproxy.channels.inflight import BYTES, takeRun
from chanproxy.interfaces import Batch, ChannelBroken, ChanproxyReactor, IByteChannel
from chanproxy.kernel import calls
from chanproxy.kernel.keepalive import Keeper
from chanproxy.kernel.resetting import reset


@implementer(IByteChannel)
class StreamChannel(SocketChannel):
    """
    Peek, send, take on one connected stream socket; base of both kinds.

    A peek shows one run from the head, without an offset: so nothing has to be put back.
    """

    __slots__ = ("_peeked",)

    family = "bytes"

    def __init__(
        self, reactor: ChanproxyReactor, connected: socket.socket, buffer: PeekBuffer
    ) -> None:
        super().__init__(reactor, connected, buffer)
        self._peeked = False
        # An urgent byte would be passed over, and be lost.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    def peek(self) -> RunBatch:
        """See L{IChannel.peek}."""
        buffer = self._buffer
        batch = RunBatch(buffer)
        if self._closed:
            return batch
        headers = buffer.peekedRun
        if not self._peeked:
            self._peeked = True
            self._firstPeek()
        while True:
            headers.controls[0] = CONTROL_BYTES
            seen = calls.recvmmsg(self._socket.fileno(), headers.pointer, 1, PEEK)
            if seen > 0:
                break
            if -seen == errno.EAGAIN:
                return batch
            if -seen == errno.EINTR:
                continue
            self._reset = self._reset or -seen == errno.ECONNRESET or -seen in LOST
            # A reset is reported once; on AF_UNIX before what is still pending, on TCP after it.
            if -seen != errno.ECONNRESET:
                raise ChannelBroken(f"reading: {os.strerror(-seen)}")
        batch.source = self._cookie or self.cookie()
        batch.count = headers.lengths[0]
        batch.ended = self._drained = batch.count == 0
        batch.more = batch.count == RUN_BYTES
        if headers.controls[0] or headers.flags[0] & socket.MSG_CTRUNC:
            try:
                self._placeDescriptors(batch, bool(headers.flags[0] & socket.MSG_CTRUNC))
            except BaseException:
                batch.close()
                raise
        return batch

    def _firstPeek(self) -> None:
        """Put right what a socket that was given may have been told."""

    def _placeDescriptors(self, batch: RunBatch, truncated: bool) -> None:
        """Find out whose byte the descriptors are, and whether they can go on."""

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        record = self._buffer.record
        if count:
            try:
                takeRun(self.fileno(), record.run, 0, count, self._scratch())
            except OSError as error:
                raise self._cannotTake(error) from error
        record.end()

    def _scratch(self) -> int:
        """Where a take may put what it drops; 0 for nowhere."""
        return 0

    def _sendBatch(self, batch: Batch) -> int:
        if not isinstance(batch, RunBatch):
            return self._sendParts(batch)
        record = batch.buffer.record
        parts = self._layOut(batch)
        while True:
            record.begin(BYTES, parts, batch.source, self._cookie or self.cookie())
            sent = calls.sendmmsg(self._socket.fileno(), record.parts.pointer, parts, SEND)
            if sent == 1:
                return int(record.parts.lengths[0])
            if sent > 0:
                # A part that was accepted in part is the last one.
                return sum(record.parts.lengths[:sent].tolist())
            record.end()
            if not self._mayRetry(-sent, batch.count, len(batch.descriptors), True):
                return 0

    def _layOut(self, batch: RunBatch) -> int:
        """
        Write down the parts to send: the bytes before the descriptors', and those from it on.

        @return: how many parts.
        """
        buffer = batch.buffer
        headers = buffer.record.parts
        position = batch.position if batch.descriptors else 0
        if position:
            headers.link(0, buffer.address)
            headers.sizes[0] = position
            headers.controls[0] = 0
        last = 1 if position else 0
        headers.link(last, buffer.address + position, buffer.controlAddress)
        headers.sizes[last] = batch.count - position
        headers.controls[last] = buffer.peekedRun.controls[0] if batch.descriptors else 0
        return last + 1


class UnixStreamChannel(StreamChannel):
    """
    AF_UNIX, where descriptors come with a byte.

    A read goes on over bytes without descriptors, and ends after the piece that has some: so a run
    has descriptors at one byte at most, and that may be in its middle.
    """

    __slots__ = ()

    def _firstPeek(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, calls.SO_PEEK_OFF, -1)

    def _scratch(self) -> int:
        # It has been sent.
        return self._buffer.address

    def _placeDescriptors(self, batch: RunBatch, truncated: bool) -> None:
        buffer = self._buffer
        batch.descriptors = buffer.descriptorsOf(0, buffer.peekedRun)
        count = len(batch.descriptors)
        if not (count or truncated):
            # Other control messages: credentials, on a socket that was given.
            return
        batch.more = True
        start = self._lastPiece(batch.count)
        if batch.count == RUN_BYTES and start:
            # A peek that is full looks at all that follows, up to the next descriptors: whether
            # these are of the last piece will be seen when that is at the head.
            batch.close()
            batch.count = start
            return
        batch.position = start
        tooMany = count > buffer.messageDescriptors
        if truncated or tooMany:
            # What is before them can go on.
            batch.close()
            batch.count = start
            if start == 0 and tooMany:
                raise self._tooManyDescriptors(count)
            if start == 0:
                self._pauseForDescriptors()

    def _lastPiece(self, count: int) -> int:
        """
        Where the last of the pieces begins, as they were sent, that the first bytes consist of.

        Shorter peeks would not tell: also a peek that is full goes on to the next descriptors.  But
        a piece that cannot be copied whole ends the peek, and counts for nothing: so the last byte
        goes where nothing can be written.
        """
        trap = self._buffer.trap
        trap.sizes[0] = count - 1
        seen = calls.recvmmsg(self.fileno(), trap.pointer, 1, PEEK)
        if seen > 0:
            start: int = trap.lengths[0]
            return start
        if -seen != errno.EFAULT:
            raise ChannelBroken(f"reading: {os.strerror(-seen)}")
        return 0


class TcpChannel(StreamChannel):
    """TCP: no descriptors, and taking copies nothing."""

    __slots__ = ("_keeper",)

    carriesDescriptors = False

    showsUnread = False

    def __init__(
        self, reactor: ChanproxyReactor, connected: socket.socket, buffer: PeekBuffer
    ) -> None:
        super().__init__(reactor, connected, buffer)
        self._keeper: Keeper | None = None

    def keepAlive(self, keeper: Keeper) -> None:
        """See L{SocketChannel.keepAlive}."""
        if keeper.keep(self._socket):
            self._keeper = keeper

    def _sendBatch(self, batch: Batch) -> int:
        if batch.descriptorsIn(len(batch)):
            # Refused whole: a run without them would be another one.
            raise ChannelBroken("descriptors came, and TCP carries none")
        sent = super()._sendBatch(batch)
        if self._keeper is not None:
            self._keeper.sent(self._socket)
        return sent

    def abort(self) -> None:
        """See L{IChannel.abort}."""
        if not self._closed:
            reset(self._reactor, self._socket)
        self.close()

    def _shut(self, reason: Failure) -> None:
        if self._keeper is not None:
            self._keeper.forget(self._socket)
            self._keeper = None
        super()._shut(reason)


class VsockChannel(StreamChannel):
    """C{vsock(7)}: no descriptors, and taking copies as on AF_UNIX."""

    __slots__ = ()

    carriesDescriptors = False

    showsUnread = False

    def _scratch(self) -> int:
        # It has been sent.
        return self._buffer.address

    def _sendBatch(self, batch: Batch) -> int:
        if batch.descriptorsIn(len(batch)):
            raise ChannelBroken("descriptors came, and vsock carries none")
        return super()._sendBatch(batch)


def isTcp(connected: socket.socket) -> bool:
    """Whether it is a TCP socket, over IPv4 or IPv6."""
    return (
        connected.family in (socket.AF_INET, socket.AF_INET6)
        and connected.type == socket.SOCK_STREAM
        # Not its C{proto}, which is what it was made with: 0 for the usual one.
        and connected.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.IPPROTO_TCP
    )
