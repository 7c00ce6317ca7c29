"""
SOCK_SEQPACKET over AF_UNIX for Twisted: packets with their descriptors, boundaries kept.

L{SeqpacketChannel} is the four verbs on one socket; L{SeqpacketTransport} adds what a Twisted
protocol expects.  Ports and endpoints are in L{chanproxy.endpoints}.  Knows nothing of counters,
containers or freezers.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    IReadWriteDescriptor,
    IUNIXTransport,
)
from twisted.internet.protocol import Protocol
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


@implementer(IChannel, IReadWriteDescriptor)
class SeqpacketChannel:
    """
    Peek, send, take on one connected socket, and its place in the reactor.

    Owns the socket.  The protocol provides L{IChannelUser} and L{IProtocol}.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        connected: socket.socket,
        buffer: PeekBuffer,
    ) -> None:
        connected.setblocking(False)
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
            raise ChannelBroken(
                f"a packet of {size} bytes exceeds message-bytes = {limit.messageBytes}; "
                "raise limits.message-bytes"
            )
        if size > len(batch.data):
            self._buffer.grow(size)
            return False
        if flags & socket.MSG_CTRUNC:
            # At a peek nothing is lost: the packet still holds them all.
            self._pauseForDescriptors()
            return False
        if len(batch.descriptors) > limit.messageDescriptors:
            raise ChannelBroken(
                f"a packet with {len(batch.descriptors)} descriptors exceeds "
                f"message-descriptors = {limit.messageDescriptors}; "
                "raise limits.message-descriptors"
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
            size = self._socket.recvmsg_into(_SCRATCH, 0, _TAKE)[0]
            if size != self._peekedBytes:
                raise ChannelBroken(
                    f"took a packet of {size} bytes where one of {self._peekedBytes} was peeked: "
                    "another process reads from this socket, too"
                )

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


@implementer(IUNIXTransport, IConsumer, IPushProducer)
class SeqpacketTransport(SeqpacketChannel):
    """
    A packet transport for Twisted protocols: L{sendMessage}, and C{write} as one packet a call.

    Messages that the kernel does not take at once wait here, with duplicates of their descriptors;
    a producer that is registered is paused meanwhile.
    """

    disconnecting = False

    def __init__(
        self,
        reactor: ChanproxyReactor,
        connected: socket.socket,
        buffer: PeekBuffer,
        host: UNIXAddress,
        peer: UNIXAddress,
    ) -> None:
        super().__init__(reactor, connected, buffer)
        self._host = host
        self._peer = peer
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._nextDescriptors: list[int] = []
        self._producer: IPushProducer | IPullProducer | None = None
        self._streaming = False

    def sendMessage(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """
        Send one packet, after all that were sent before.

        @param descriptors: they stay the caller's, and may be closed when this returns.
        @raise ChannelBroken: the packet can never be sent; nothing else is affected.
        """
        if self._closed or self.disconnecting:
            return
        if not self._queue:
            try:
                if self._sendOne(data, descriptors):
                    return
            except ChannelClosed:
                # Our read side finds the end, after all that came before it.
                return
        self._queue.append((bytes(data), [os.dup(fd) for fd in descriptors]))
        self.waitWritable()
        if self._producer is not None and self._streaming:
            cast(IPushProducer, self._producer).pauseProducing()

    def write(self, data: bytes) -> None:
        """One packet, with the descriptors of L{sendFileDescriptor} since the last one."""
        descriptors, self._nextDescriptors = self._nextDescriptors, []
        try:
            self.sendMessage(data, descriptors)
        finally:
            _syscalls.closeAll(descriptors)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """One packet of all the pieces."""
        self.write(b"".join(iovec))

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Attach a duplicate of the descriptor to the next L{write}."""
        self._nextDescriptors.append(os.dup(descriptor))

    def doWrite(self) -> None:
        """The reactor says that there is room again."""
        self._reactor.removeWriter(self)
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                if not self._sendOne(data, descriptors):
                    self.waitWritable()
                    return
            except ChannelClosed:
                # Nothing of it can arrive.  Our read side finds the end, after what came before.
                self._dropQueue()
                break
            except ChannelBroken as error:
                self._shut(Failure(error))
                return
            self._queue.popleft()
            _syscalls.closeAll(descriptors)
        if self._producer is not None:
            self._producer.resumeProducing()
        elif self.disconnecting:
            self.close()
        else:
            self._user().channelWritable()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See L{IConsumer}."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already: unregister it first")
        if self._closed:
            producer.stopProducing()
            return
        self._producer = cast("IPushProducer | IPullProducer", producer)
        self._streaming = streaming
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        self._producer = None
        if self.disconnecting and not self._queue:
            self.close()

    def pauseProducing(self) -> None:
        """No more messages to the protocol for now; they wait in the kernel."""
        self.waitReadable(False)

    def resumeProducing(self) -> None:
        """Messages again."""
        self.waitReadable(True)

    def stopProducing(self) -> None:
        """As L{loseConnection}."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """Close, when everything sent so far is with the kernel and no producer is registered."""
        self.disconnecting = True
        if not self._queue and self._producer is None:
            self.close()

    def abortConnection(self) -> None:
        """Close now; what waits here is dropped."""
        self._shut(Failure(ConnectionAborted()))

    def getPeer(self) -> UNIXAddress:
        """The path of the other end; empty when it has none."""
        return self._peer

    def getHost(self) -> UNIXAddress:
        """The path of this end; empty when it has none."""
        return self._host

    def _dropQueue(self) -> None:
        while self._queue:
            _syscalls.closeAll(self._queue.popleft()[1])

    def _shut(self, reason: Failure) -> None:
        if self._closed:
            return
        super()._shut(reason)
        _syscalls.closeAll(self._nextDescriptors)
        self._dropQueue()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()


@implementer(IChannelUser)
class MessageProtocol(Protocol):
    """
    Base of protocols that speak in packets: override L{messageReceived}.

    C{self.transport} is a L{SeqpacketTransport}.
    """

    transport: SeqpacketTransport

    _TURN = 64

    def makeConnection(self, transport: object) -> None:
        """The transport is ready."""
        Protocol.makeConnection(self, transport)
        self.transport.waitReadable(True)

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        """
        A packet arrived.

        @param descriptors: now owned by this method, which closes them; not inheritable.
        """
        _syscalls.closeAll(descriptors)

    def channelReadable(self) -> None:
        """Take what is there, a turn's worth at most."""
        transport = self.transport
        for _ in range(self._TURN):
            if not transport._wantsReadable:
                return
            try:
                batch = transport.peek()
                if len(batch) == 0:
                    if batch.ended:
                        # By level it would be told for ever.
                        transport.waitReadable(False)
                        transport.loseConnection()
                    return
                data, descriptors = bytes(batch.data), batch.descriptors
                transport.take(1)
            except ChannelBroken as error:
                transport._shut(Failure(error))
                return
            self.messageReceived(data, descriptors)

    def channelWritable(self) -> None:
        """Everything sent is with the kernel; nothing to do."""
