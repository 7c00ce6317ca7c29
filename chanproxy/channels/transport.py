"""
What a Twisted program sees of a socket that carries messages: a transport, and a base for its
protocols.

Adds to a socket a queue for what the kernel does not take at once.  Knows nothing of proxies,
counters or containers, which have no use for such a queue.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, cast

from attrs import field, frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IConsumer,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITransport,
    IUNIXTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.base import SCARCE, SocketChannel, whyNotSent
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.interfaces import (
    ChannelBroken,
    ChannelClosed,
    ChanproxyReactor,
    IChannelUser,
    MessageRefused,
)
from chanproxy.kernel.calls import closeAll
from chanproxy.kernel.foreign import closeForeign

PATIENCE = 10.0
"""Seconds that the kernel may have no memory for a packet until its connection is lost."""


@frozen
class Received:
    """
    What has come.

    @ivar descriptors: now the receiver's.
    @ivar ended: nothing has, and nothing will.
    """

    data: bytes = b""
    descriptors: list[int] = field(factory=list)
    ended: bool = False


@implementer(IUNIXTransport, IConsumer, IPushProducer)
class MessageTransport(SocketChannel):
    """
    A transport of messages for Twisted protocols: L{sendMessage}, and C{write} as one message a
    call.

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
        self._scarceSince: float | None = None

    def begin(self, protocol: IProtocol) -> None:
        """
        Be the transport of a protocol, and tell it so.

        @param protocol: an L{IChannelUser}, as L{MessageProtocol} is; the connection is closed
            when it raises.
        """
        try:
            self._expectUser(protocol)
            self.protocol = protocol
            protocol.makeConnection(cast(ITransport, self))
        except BaseException:
            self._shut(Failure())
            raise

    def _expectUser(self, protocol: IProtocol) -> None:
        """Whether it would hear of anything; who is of our kind does."""

    def receive(self) -> Received | None:
        """
        Take one message; what nobody wants to hear yet stays in the kernel.

        @return: L{None}: there is none now, and an event will tell.
        @raise MessageRefused: the one at the head exceeds a limit; see L{discard}.
        @raise ChannelBroken: nothing can be read any more.
        """
        raise NotImplementedError

    def discard(self) -> None:
        """Drop the message at the head, which was refused, and its descriptors."""
        raise NotImplementedError

    @property
    def pending(self) -> int:
        """How many messages wait here, because the kernel did not take them yet."""
        return len(self._queue)

    def sendMessage(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """
        Send one message, after all that were sent before; nothing after L{loseConnection}, but for
        a producer that is registered still.

        One of which it shows only later that it can never be sent ends the connection, and
        C{connectionLost} says why.

        @param descriptors: they stay the caller's, and may be closed when this returns.
        @raise ChannelBroken: the message can never be sent; nothing else is affected.
        @raise OSError: it has to wait, and there are no descriptors left to duplicate its own;
            likewise.
        """
        if self._closed or (self.disconnecting and self._producer is None):
            return
        view = memoryview(data).cast("B")
        if self._queue:
            # The kernel would not say so before it is its turn.
            self._expectSendable(len(view), len(descriptors))
        else:
            try:
                if self._sendOne(view, descriptors) is not None:
                    return
            except ChannelClosed:
                # Our read side finds the end, after all that came before it.
                return
        self._queue.append((bytes(view), self._duplicates(descriptors)))
        self.waitWritable()
        if self._producer is not None and self._streaming:
            cast(IPushProducer, self._producer).pauseProducing()

    def write(self, data: bytes) -> None:
        """One message, with the descriptors of L{sendFileDescriptor} since the last one."""
        descriptors, self._nextDescriptors = self._nextDescriptors, []
        try:
            self.sendMessage(data, descriptors)
        finally:
            closeForeign(descriptors)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """One message of all the pieces."""
        self.write(b"".join(iovec))

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Attach a duplicate of the descriptor to the next L{write}."""
        if not self._closed:
            self._nextDescriptors.append(os.dup(descriptor))

    def _duplicates(self, descriptors: Sequence[int]) -> list[int]:
        """All of them or, when one cannot be, none."""
        made: list[int] = []
        try:
            for fd in descriptors:
                made.append(os.dup(fd))
        except OSError as error:
            # Nothing can wait in that: theirs are open still.
            closeAll(made)
            if error.errno == errno.EBADF:
                raise ChannelBroken(whyNotSent(error.errno, 0, len(descriptors))) from error
            raise
        return made

    def _mayRetry(self, number: int, size: int, rights: int, enlarged: bool) -> bool:
        # Memory has no event; and a large packet needs so much in one piece that it may never come.
        if number not in SCARCE:
            self._scarceSince = None
        elif self._scarceSince is None:
            self._scarceSince = self._reactor.seconds()
        elif self._reactor.seconds() - self._scarceSince > PATIENCE:
            raise ChannelBroken(whyNotSent(number, size, rights))
        return super()._mayRetry(number, size, rights, enlarged)

    def _becameWritable(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                if self._sendOne(data, descriptors) is None:
                    self.waitWritable()
                    return
            except ChannelClosed:
                # Nothing of it can arrive.  Our read side finds the end, after what came before.
                self._dropQueue()
                break
            except ChannelBroken as error:
                self._shut(Failure(error))
                return
            self._scarceSince = None
            self._queue.popleft()
            closeForeign(descriptors)
        if self._producer is not None:
            self._produce(self._producer)
        elif self.disconnecting:
            self.close()
        else:
            self._user().channelWritable()

    def _produce(self, producer: IPushProducer | IPullProducer) -> None:
        """There is room for more."""
        producer.resumeProducing()
        if not self._streaming and self._producer is producer:
            # It is asked each time: the kernel may have taken all that it gave, and then nothing
            # else would.
            self.waitWritable()

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
            self._produce(self._producer)

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        self._producer = None
        if self.disconnecting and not self._queue:
            self.close()

    def pauseProducing(self) -> None:
        """No more messages to the protocol for now; they wait in the kernel."""
        self.waitReadable(False)

    def resumeProducing(self) -> None:
        """Deliver messages again."""
        self.waitReadable(True)

    def stopProducing(self) -> None:
        """As L{loseConnection}."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """
        Close, when everything sent so far is with the kernel and no producer is registered.

        Nothing is received any more.
        """
        self.disconnecting = True
        self.waitReadable(False)
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
            closeForeign(self._queue.popleft()[1])

    def _shut(self, reason: Failure) -> None:
        if self._closed:
            return
        super()._shut(reason)
        closeForeign(self._nextDescriptors)
        self._dropQueue()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()


class SeqpacketTransport(MessageTransport, SeqpacketChannel):
    """Likewise of packets, each of which is a message."""

    def receive(self) -> Received | None:
        """See L{MessageTransport.receive}."""
        batch = self.peek(1)
        if len(batch) == 0:
            return Received(ended=True) if batch.ended else None
        received = Received(bytes(batch.message()), batch.descriptors)
        self.take(1)
        return received

    def discard(self) -> None:
        """See L{SeqpacketChannel.discard}."""
        SeqpacketChannel.discard(self)


@implementer(IChannelUser)
class MessageProtocol(Protocol):
    """
    Base of protocols that speak in packets: override L{messageReceived}.

    C{self.transport} is a L{MessageTransport}; of an endpoint C{seqpacket:}, one of packets.
    """

    transport: MessageTransport

    _TURN = 64

    def makeConnection(self, transport: Any) -> None:
        """
        The transport is ready.

        @raise TypeError: it carries no packets.
        """
        if not hasattr(transport, "waitReadable"):
            raise TypeError(
                f"{type(self).__name__} speaks in packets, which {type(transport).__name__} does "
                "not carry: listen at an endpoint seqpacket:PATH, or connect to one"
            )
        # Before C{connectionMade}, which may pause it.
        transport.waitReadable(True)
        Protocol.makeConnection(self, transport)

    def dataReceived(self, data: bytes) -> None:
        """A packet arrived at a protocol around this one, which knows nothing of descriptors."""
        self.messageReceived(data, [])

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        """
        A packet arrived.

        @param descriptors: now owned by this method, which closes them; not inheritable.
        """
        closeForeign(descriptors)

    def messageRefused(self, error: MessageRefused) -> None:
        """
        The packet at the head exceeds a limit: close the connection, as this does, or call
        C{self.transport.discard()} to go on without the packet.
        """
        self.transport._shut(Failure(error))

    def messagesEnded(self) -> None:
        """
        The peer sends no more: close the connection, as this does, or stop reading, for by level
        it would be told for ever.
        """
        self.transport.loseConnection()

    def channelReadable(self) -> None:
        """Take what is there, a turn's worth at most."""
        transport = self.transport
        for _ in range(self._TURN):
            if transport._closed or not transport._wantsReadable:
                return
            try:
                received = transport.receive()
            except MessageRefused as refused:
                self.messageRefused(refused)
                continue
            except ChannelBroken as error:
                transport._shut(Failure(error))
                return
            if received is None:
                return
            if received.ended:
                self.messagesEnded()
                return
            self.messageReceived(received.data, received.descriptors)

    def channelWritable(self) -> None:
        """Everything sent is with the kernel; nothing to do."""
