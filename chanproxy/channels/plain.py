"""
Protocols of any kind on packet sockets: those of Twisted's own hear of each packet as of data.

Knows no endpoints.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.interfaces import (
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IProtocol,
)
from twisted.logger import Logger

from chanproxy.channels.transport import MessageProtocol, SeqpacketTransport
from chanproxy.interfaces import IChannelUser
from chanproxy.kernel.foreign import closeForeign


class DeafProtocol(TypeError):
    """A protocol would hear of nothing that comes; the text says what to write."""


class OpenTransport(SeqpacketTransport):
    """One for any protocol, also for those that know nothing of packets."""

    _plain: _Plain | None = None

    def _expectUser(self, protocol: IProtocol) -> None:
        """
        One of Twisted's own kind will do as well: each packet is one C{dataReceived}.

        @raise DeafProtocol: it is of neither kind.
        """
        if IChannelUser.providedBy(protocol):
            return
        if not hasattr(protocol, "dataReceived"):
            raise DeafProtocol(
                f"{type(protocol).__name__} would hear of no packet: derive it from "
                "chanproxy.channels.MessageProtocol and write messageReceived, or from "
                "twisted.internet.protocol.Protocol and write dataReceived"
            )
        # Who is of our kind says so itself.
        self.waitReadable(True)

    def _user(self) -> IChannelUser:
        # Of now: a protocol may give its transport to another one.
        protocol = self.protocol
        if self._plain is None or self._plain.inner is not protocol:
            if IChannelUser.providedBy(protocol):
                return super()._user()
            self._plain = _Plain(protocol, self)
        return self._plain


class _Plain(MessageProtocol):
    """A protocol of Twisted's own kind, told of packets in the words that it knows."""

    _log = Logger()

    def __init__(self, inner: Any, transport: SeqpacketTransport) -> None:
        self.inner = inner
        self.transport = transport
        self._ended = self._warned = False

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        """First its descriptors, one by one, then the packet."""
        if descriptors and not IFileDescriptorReceiver.providedBy(self.inner):
            self._refuse(descriptors)
        else:
            left = deque(descriptors)
            try:
                while left:
                    self.inner.fileDescriptorReceived(left.popleft())
            finally:
                closeForeign(left)
        self.inner.dataReceived(data)

    def _refuse(self, descriptors: list[int]) -> None:
        closeForeign(descriptors)
        if not self._warned:
            self._warned = True
            self._log.warn(
                "{protocol} does not provide IFileDescriptorReceiver: descriptors that come with "
                "its packets are closed",
                protocol=type(self.inner).__name__,
            )

    def messagesEnded(self) -> None:
        """See L{IHalfCloseableProtocol}."""
        if not IHalfCloseableProtocol.providedBy(self.inner):
            self.transport.loseConnection()
            return
        self._ended = True
        self.transport.waitReadable(False)
        self.transport.waitGone()
        self.inner.readConnectionLost()

    def channelReadable(self) -> None:
        """Likewise, and when nothing that is sent can arrive any more."""
        if not self._ended:
            super().channelReadable()
        elif self.transport.peerGone():
            self.transport.close()
        else:
            # Asked to go on, after a pause.
            self.transport.waitReadable(False)
