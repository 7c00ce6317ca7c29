"""
Channels over Twisted's own transports: for whatever else an endpoint string can name.

Bytes wait in a bounded buffer behind producer/consumer flow control, in both directions: so what is
in it is lost if this process is killed, as with any Twisted program.  Knows nothing of counters,
containers or freezers.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableDescriptor,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITransport,
    IUNIXTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.arrivals import Arrivals
from chanproxy.channels.batches import PieceBatch
from chanproxy.channels.departures import Departures
from chanproxy.interfaces import (
    Batch,
    ChannelClosed,
    ChanproxyReactor,
    IByteChannel,
    IChannelUser,
)
from chanproxy.kernel.foreign import closeForeign
from chanproxy.kernel.keepalive import Keeper, tcpOf

BUFFER = 262144
"""Bytes that wait in one direction at most, by default: as many as a batch of a stream has."""

CLOSE_SECONDS = 30.0
"""How long a TLS peer has for its own notice of the end, which closing waits for."""


@implementer(IByteChannel, IPushProducer)
class EndpointChannel:
    """
    One connection that a Twisted transport carries.

    Descriptors go where the transport provides C{IUNIXTransport}; they come in their order, with
    the bytes that the transport read together with them, for Twisted keeps no closer tie.
    """

    family = "bytes"
    showsUnread = False

    def __init__(self, reactor: ChanproxyReactor, transport: ITransport, most: int) -> None:
        """
        @param transport: connected, with a protocol that passes on what it is told.
        @param most: bytes that wait in one direction; beyond it one read of the transport at most.
        """
        self._reactor = reactor
        # Its interfaces are found out below; no type says them all.
        self._transport = cast(Any, transport)
        self._most = most
        self.carriesDescriptors = bool(IUNIXTransport.providedBy(transport))
        # TLS has no half-closed connections, though it passes on what its own transport says.
        self._tls = bool(ISSLTransport.providedBy(transport))
        halfCloses = bool(IHalfCloseableDescriptor.providedBy(transport))
        self._halfCloses = halfCloses and not self._tls
        self._deadline: IDelayedCall | None = None
        self._keeper: Keeper | None = None
        self._tcp: socket.socket | None = None
        self._arrivals = Arrivals()
        self._departures = Departures(self._transport, most, self.carriesDescriptors)
        self._ended = self._gone = self._closed = self._finished = False
        self._paused = self._reset = False
        self._wantsReadable = self._wantsWritable = self._wantsGone = self._wantsMore = False
        self._scheduled = False
        self.protocol: IProtocol | None = None
        # A pull producer is told each time all is sent: only then may descriptors be closed.  Over
        # TLS it would be asked for ever.
        self._transport.registerProducer(self, not self.carriesDescriptors)

    # What the transport tells.

    def received(self, data: bytes) -> None:
        """Bytes came."""
        if self._closed:
            return
        self._arrivals.add(data)
        self._wantsMore = False
        if self._arrivals.size >= self._most and not self._paused:
            self._paused = True
            self._transport.pauseProducing()
        self._schedule()

    def descriptorReceived(self, descriptor: int) -> None:
        """A descriptor came, with the bytes that come next."""
        if self._closed:
            closeForeign([descriptor])
        else:
            self._arrivals.addDescriptor(descriptor)

    def readingEnded(self) -> None:
        """The peer sends no more."""
        self._ended = True
        self._wantsMore = False
        self._schedule()

    def keepAlive(self, keeper: Keeper) -> None:
        """Notice when the peer has vanished, where there is TCP below."""
        self._tcp = tcpOf(self._transport)
        if self._tcp is not None and not self._gone and keeper.keep(self._tcp):
            self._keeper = keeper

    def transportLost(self, reset: bool = False) -> None:
        """
        Nothing can be sent or received any more.

        @param reset: see L{IChannel.wasReset}.
        """
        self._ended = self._gone = True
        self._reset = reset
        if self._keeper is not None and self._tcp is not None:
            self._keeper.forget(self._tcp)
        self._keeper = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._wantsMore = False
        self._departures.lost()
        self._schedule()

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._departures.full = True

    def resumeProducing(self) -> None:
        """The transport has sent what it had."""
        self._departures.left()
        if self._closed:
            # It was only waited for, for the sake of the descriptors.
            self._transport.unregisterProducer()
        self._schedule()

    def stopProducing(self) -> None:
        """The transport is gone; it says so itself."""

    # The verbs.

    def peek(self) -> PieceBatch:
        """See L{IChannel.peek}."""
        return self._arrivals.peek(self._ended)

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        self._arrivals.take(count)
        if self._paused and self._arrivals.size < self._most and not self._gone:
            self._paused = False
            self._transport.resumeProducing()

    def send(self, batch: Batch) -> int:
        """See L{IChannel.send}."""
        if self._gone or self._finished:
            raise ChannelClosed("the connection is closed")
        if self._keeper is not None and self._tcp is not None:
            self._keeper.sent(self._tcp)
        return self._departures.send(batch)

    # Events.

    def waitReadable(self, wanted: bool) -> None:
        """See L{IChannel.waitReadable}."""
        self._wantsReadable = wanted
        self._schedule()

    def waitMore(self, wanted: bool) -> None:
        """What can be peeked is too little: no C{channelReadable} until there is more than now."""
        self._wantsMore = wanted and not self._ended
        self._schedule()

    def nothingFollows(self) -> bool:
        """Whether the end comes right after what can be peeked."""
        return self._ended

    def waitWritable(self) -> None:
        """See L{IChannel.waitWritable}."""
        self._wantsWritable = True
        self._schedule()

    def waitGone(self) -> None:
        """See L{IChannel.waitGone}."""
        self._wantsGone = True
        self._schedule()

    def _readable(self) -> bool:
        here = self._wantsReadable and not self._wantsMore and bool(self._arrivals or self._ended)
        return here or (self._wantsGone and self._gone)

    def _writable(self) -> bool:
        return self._wantsWritable and (not self._departures.full or self._gone)

    def _schedule(self) -> None:
        if not (self._scheduled or self._closed) and (self._readable() or self._writable()):
            self._scheduled = True
            self._reactor.callLater(0, self._tell)

    def _tell(self) -> None:
        self._scheduled = False
        user = cast(IChannelUser, self.protocol)
        if not self._closed and self._writable():
            self._wantsWritable = False
            user.channelWritable()
        if not self._closed and self._readable():
            self._wantsGone = self._wantsGone and not self._gone
            user.channelReadable()
        # By level: as long as it is wanted and true.
        self._schedule()

    # The end.

    def finishSending(self) -> None:
        """
        See L{IChannel.finishSending}.

        Where the transport cannot close one direction alone, as TLS, it closes both.
        """
        if self._finished or self._gone or self._closed:
            return
        self._finished = True
        self._transport.unregisterProducer()
        if self._halfCloses:
            self._transport.loseWriteConnection()
        else:
            self._closeTransport()

    def finishReceiving(self) -> None:
        """See L{IChannel.finishReceiving}.  No transport can say it."""

    def peerGone(self) -> bool:
        """See L{IChannel.peerGone}."""
        return self._gone or self._closed

    def wasReset(self) -> bool:
        """See L{IChannel.wasReset}."""
        return self._reset

    def abort(self) -> None:
        """See L{IChannel.abort}.  The transport may still have what a reset would lose."""
        self.close()

    def close(self) -> None:
        """See L{IChannel.close}.  The transport sends what it has, and closes then."""
        if self._closed:
            return
        self._closed = True
        self._arrivals.clear()
        if not self._gone:
            if not self._finished and not self._departures.lent:
                self._transport.unregisterProducer()
            self._closeTransport()
        self._reactor.callLater(0, self._tellLost)

    def _closeTransport(self) -> None:
        if self._tls and self._deadline is None:
            self._deadline = self._reactor.callLater(CLOSE_SECONDS, self._late)
            if self._paused:
                # The peer's notice of the end has to be read.
                self._transport.resumeProducing()
        self._transport.loseConnection()

    def _late(self) -> None:
        self._deadline = None
        self._transport.abortConnection()

    def _tellLost(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionDone()))

    def fileno(self) -> int:
        """There is none that could be polled for what waits here."""
        return -1
