"""
SOCK_SEQPACKET over AF_UNIX: packets with their descriptors, boundaries kept.

L{SeqpacketChannel} is the four verbs on one socket.  What a Twisted protocol expects on top of them
is in L{chanproxy.transport}, ports and endpoints are in L{chanproxy.endpoints}.  Knows nothing of
counters, containers or freezers.
"""

from __future__ import annotations

import array
import contextlib
import errno
import select
import socket
from collections.abc import Sequence
from typing import cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy import _syscalls
from chanproxy._batch import PacketBatch, PeekBuffer
from chanproxy._poller import Poller
from chanproxy.interfaces import (
    Batch,
    ChannelBroken,
    ChannelClosed,
    ChanproxyReactor,
    IChannel,
    IChannelUser,
)

SO_SNDBUFFORCE = 32
"""C{asm-generic/socket.h}; beyond C{net.core.wmem_max}, for CAP_NET_ADMIN."""

_SO_TIMESTAMP = 29
"""C{asm-generic/socket.h}; the C{socket} module does not name it."""

RETRY_SECONDS = 0.05
"""How long to wait for what gives no event: descriptors of our own, descriptors in flight."""

_PEEK = socket.MSG_PEEK | socket.MSG_TRUNC | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_TAKE = socket.MSG_TRUNC | socket.MSG_DONTWAIT
_SEND = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_CONTROL = socket.CMSG_SPACE(4 * _syscalls.SCM_MAX_FD) + socket.CMSG_SPACE(64)
_SCRATCH = [bytearray(1)]


class MessageRefused(ChannelBroken):
    """
    The packet at the head of the queue exceeds a limit; it is still there.

    State afterwards: the way on is L{SeqpacketChannel.discard}, or closing.

    @ivar limit: which one: C{message-bytes} or C{message-descriptors}.
    """

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


@implementer(IChannel, IReadWriteDescriptor)
class SeqpacketChannel:
    """
    Peek, send, take on one connected socket, and its place in the reactor.

    Owns the socket, but not its flags: a descriptor that was received shares them with its sender.
    So it may block, and every call here says that it does not want to wait.

    The protocol provides L{IChannelUser} and L{IProtocol}.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        connected: socket.socket,
        buffer: PeekBuffer,
    ) -> None:
        self._reactor = reactor
        self._socket = connected
        self._buffer = buffer
        self._poller = Poller(reactor)
        self._peekedBytes = 0
        self._wantsReadable = False
        self._retryRead: IDelayedCall | None = None
        self._retryWrite: IDelayedCall | None = None
        self._retrySend = False
        self._closed = False
        self.protocol: IProtocol | None = None

    # The four verbs.

    def peek(self) -> PacketBatch:
        """See L{IChannel.peek}."""
        while True:
            memory = self._buffer.memory
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into([memory], _CONTROL, _PEEK)
            except BlockingIOError:
                return PacketBatch()
            except ConnectionResetError:
                # Reported once, before what is still pending; the kernel has cleared it now.
                continue
            except OSError as error:
                raise ChannelBroken(f"reading: {error.strerror}") from error
            batch = PacketBatch(memory[:size], _syscalls.descriptorsIn(ancillary), 1)
            try:
                if self._fits(size, batch, flags):
                    self._peekedBytes = size
                    keep, batch = batch, PacketBatch()
                    return keep
                if self._retryRead is not None:
                    return PacketBatch()
                if batch.ended:
                    return PacketBatch(ended=True)
            finally:
                batch.close()

    def _fits(self, size: int, batch: PacketBatch, flags: int) -> bool:
        """Whether the peek saw a whole packet; if not, what is needed next has been prepared."""
        limit = self._buffer
        if size > limit.messageBytes:
            raise MessageRefused(
                "message-bytes",
                f"a packet of {size} bytes exceeds message-bytes = {limit.messageBytes}; "
                "raise limits.message-bytes",
            )
        if size > len(batch.data):
            self._buffer.grow(size)
            return False
        if flags & socket.MSG_CTRUNC:
            # At a peek nothing is lost: the packet still holds them all.
            self._pauseForDescriptors()
            return False
        if len(batch.descriptors) > limit.messageDescriptors:
            raise MessageRefused(
                "message-descriptors",
                f"a packet with {len(batch.descriptors)} descriptors exceeds "
                f"message-descriptors = {limit.messageDescriptors}; "
                "raise limits.message-descriptors",
            )
        if size == 0 and not batch.descriptors and self._atEnd():
            batch.ended = True
            return False
        return True

    def _atEnd(self) -> bool:
        """Whether a length of 0 is end-of-file; it is a legal packet as well."""
        if not _syscalls.hungUp(self._socket.fileno()):
            return False
        # With the flag up it may be either.  A packet has a timestamp, also one queued before the
        # option was on; end-of-file has none.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMP, 1)
        try:
            _, ancillary, _, _ = self._socket.recvmsg_into(_SCRATCH, _CONTROL, _PEEK)
        except OSError:
            return False
        finally:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMP, 0)
        _syscalls.closeAll(_syscalls.descriptorsIn(ancillary))
        return not ancillary

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        for _ in range(count):
            size = self._drop()
            if size != self._peekedBytes:
                raise ChannelBroken(
                    f"took a packet of {size} bytes where one of {self._peekedBytes} was peeked: "
                    "another process reads from this socket, too"
                )

    def discard(self) -> None:
        """
        Drop the packet at the head, of whatever size, and its descriptors; nothing is received.

        For a packet that L{peek} refused.  Harmless when there is none.
        """
        with contextlib.suppress(BlockingIOError):
            self._drop()

    def _drop(self) -> int:
        """Remove the packet at the head.  @return: its size."""
        while True:
            try:
                # Without room for control messages the kernel closes the descriptors itself.
                return self._socket.recvmsg_into(_SCRATCH, 0, _TAKE)[0]
            except ConnectionResetError:
                # The peer closed since the peek; as there, reported once, and the packet remains.
                continue

    def send(self, batch: Batch) -> int:
        """See L{IChannel.send}."""
        assert isinstance(batch, PacketBatch), "made by the peek of a packet channel"
        return int(len(batch) > 0 and self._sendOne(batch.data, batch.descriptors))

    def _sendOne(self, data: memoryview | bytes, descriptors: Sequence[int]) -> bool:
        ancillary = []
        if descriptors:
            rights = array.array("i", descriptors)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        enlarged = False
        while True:
            try:
                self._socket.sendmsg([data], ancillary, _SEND)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                    raise ChannelClosed(error.strerror) from error
                if error.errno in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                    self._retrySend = True
                    return False
                if error.errno == errno.EMSGSIZE and not enlarged:
                    enlarged = True
                    self._enlargeSendBuffer(len(data))
                    continue
                raise ChannelBroken(self._explain(error, len(data), descriptors)) from error

    def _enlargeSendBuffer(self, size: int) -> None:
        for option in (SO_SNDBUFFORCE, socket.SO_SNDBUF):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, size + 4096)
                return
            except PermissionError:
                continue

    def _explain(self, error: OSError, size: int, descriptors: Sequence[int]) -> str:
        if error.errno == errno.EMSGSIZE:
            return f"a packet of {size} bytes is too large to send; raise net.core.wmem_max"
        if error.errno == errno.EPERM and descriptors:
            return "the receiver refuses descriptors (SO_PASSRIGHTS is off)"
        return f"sending: {error.strerror}"

    # Events.

    def waitReadable(self, wanted: bool) -> None:
        """See L{IChannel.waitReadable}."""
        self._wantsReadable = wanted
        if self._closed:
            return
        if wanted and self._retryRead is None:
            self._reactor.addReader(self)
        else:
            self._reactor.removeReader(self)

    def waitWritable(self) -> None:
        """See L{IChannel.waitWritable}."""
        if self._closed or self._retryWrite is not None:
            return
        if self._retrySend:
            self._retrySend = False
            self._retryWrite = self._reactor.callLater(RETRY_SECONDS, self._retryWriting)
        else:
            self._reactor.addWriter(self)

    def waitGone(self) -> None:
        """See L{IChannel.waitGone}."""
        if not self._closed:
            self._poller.watch(self.fileno(), 0, self._peerWent)

    def _peerWent(self, events: int) -> None:
        self._poller.unwatch(self.fileno())
        self._user().channelReadable()

    def _pauseForDescriptors(self) -> None:
        if self._retryRead is None:
            self._log.warn("out of descriptors: a message waits; raise the limit (ulimit -n)")
            self._retryRead = self._reactor.callLater(RETRY_SECONDS, self._retryReading)
            self._reactor.removeReader(self)

    def _retryReading(self) -> None:
        self._retryRead = None
        if self._wantsReadable:
            self._reactor.addReader(self)
            self._user().channelReadable()

    def _retryWriting(self) -> None:
        self._retryWrite = None
        self.doWrite()

    def _user(self) -> IChannelUser:
        return cast(IChannelUser, self.protocol)

    def fileno(self) -> int:
        """The socket's descriptor, still owned here; -1 when closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log lines."""
        return self.protocol.__class__.__name__

    def doRead(self) -> None:
        """The reactor says that there is something to peek."""
        self._user().channelReadable()

    def doWrite(self) -> None:
        """The reactor says that there is room again."""
        self._reactor.removeWriter(self)
        self._user().channelWritable()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor gave up on the descriptor.

        When that is only because the peer hung up while reading was paused, there may be messages
        pending: the protocol is told as usual, and finds out by sending and peeking.
        """
        if self._closed:
            return
        if reason.check(ConnectionLost, ConnectionDone) and self.peerGone():
            self.doWrite()
            if not self._closed and self._wantsReadable:
                self.waitReadable(True)
        else:
            self._shut(reason)

    def finishSending(self) -> None:
        """See L{IChannel.finishSending}."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def peerGone(self) -> bool:
        """See L{IChannel.peerGone}."""
        return bool(_syscalls.hungUp(self.fileno()) & select.POLLHUP)

    def close(self) -> None:
        """See L{IChannel.close}."""
        self._shut(Failure(ConnectionDone()))

    def _shut(self, reason: Failure) -> None:
        if self._closed:
            return
        self._closed = True
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._poller.unwatch(self.fileno())
        for call in (self._retryRead, self._retryWrite):
            if call is not None:
                call.cancel()
        self._socket.close()
        # Not from inside the caller's own method: the order of events stays simple.
        self._reactor.callLater(0, self._tellLost, reason)

    def _tellLost(self, reason: Failure) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(reason)
