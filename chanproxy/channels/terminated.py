"""
Messages on a stream of AF_UNIX, each with a zero byte behind it, as Varlink has them.

Whole messages wait in the kernel's queue until somebody wants them.  The beginning of one is kept
here, for a sender that writes it byte by byte would fill the queue before it is whole; that has a
limit.  Knows nothing of what is in a message.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from twisted.internet.address import UNIXAddress

from chanproxy.channels.base import CONTROL, PEEK
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.transport import MessageTransport, Received
from chanproxy.interfaces import ChannelBroken, ChanproxyReactor, MessageRefused
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeForeign

END = b"\0"

LOOK = 16384
"""Bytes of one look: no more of a message that is not whole are taken before others have a turn."""

_TAKE = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class TerminatedTransport(MessageTransport):
    """
    Likewise of messages that end with a zero byte.

    Descriptors are of the message whose bytes they came with, and come with the piece of it that
    has its end.  So none are kept for a message that is never finished.
    """

    family = "bytes"

    def __init__(
        self,
        reactor: ChanproxyReactor,
        connected: socket.socket,
        buffer: PeekBuffer,
        host: UNIXAddress,
        peer: UNIXAddress,
    ) -> None:
        """@param buffer: says how long a message may be, without its end."""
        super().__init__(reactor, connected, buffer, host, peer)
        self._begun = bytearray()
        self._drops = False

    # Receiving.

    def receive(self) -> Received | None:
        """See L{MessageTransport.receive}; it takes C{LOOK} bytes of what is not whole at most."""
        while not self._closed:
            data, accompanied = self._look(LOOK)
            if accompanied and END not in data and len(data) == LOOK:
                data, accompanied = self._look(self._most + len(END))
            if not data:
                return Received(ended=True) if self._drained else None
            length = data.find(END)
            if self._drops:
                whole = length >= 0
                closeForeign(self._take(length + len(END) if whole else len(data)))
                if not whole:
                    return None
                self._drops = False
            elif length >= 0:
                return self._whole(data[:length])
            else:
                self._begin(data, accompanied)
                return None
        return None

    @property
    def _most(self) -> int:
        return self._buffer.messageBytes

    def _look(self, size: int) -> tuple[bytes, bool]:
        """
        What is at the head.

        @return: up to so many bytes, and whether descriptors came with some of them; of no others,
            for there it ends.
        """
        while True:
            try:
                # Without room for them: none are duplicated before it is known whose they are.
                data, _, flags, _ = self._socket.recvmsg(size, 0, PEEK)
            except BlockingIOError:
                return b"", False
            except ConnectionResetError:
                # It is reported once, before what is still pending.
                self._reset = True
                continue
            except OSError as error:
                raise ChannelBroken(f"reading: {error.strerror}") from error
            self._drained = not data
            return data, bool(flags & socket.MSG_CTRUNC)

    def _whole(self, rest: bytes) -> Received:
        """Take a message of which the end is there."""
        self._expectShort(len(rest))
        descriptors = self._take(len(rest) + len(END))
        received = Received(bytes(self._begun + rest), descriptors)
        self._begun.clear()
        return received

    def _begin(self, data: bytes, accompanied: bool) -> None:
        """Take a piece of a message of which the end is not there."""
        self._expectShort(len(data))
        if accompanied:
            raise MessageRefused(
                "message-descriptors",
                "descriptors came with a piece of a message that has not its end: send the whole "
                "message with them, and its zero byte, by one sendmsg(2)",
            )
        closeForeign(self._take(len(data)))
        self._begun += data

    def _expectShort(self, more: int) -> None:
        if len(self._begun) + more > self._most:
            raise MessageRefused(
                "message-bytes", f"a message of more than {self._most} bytes is too long"
            )

    def _take(self, size: int) -> list[int]:
        """
        Remove bytes that were looked at.

        @return: the descriptors that came with them, now the caller's.
        """
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(size, CONTROL, _TAKE)
        except OSError as error:
            raise self._cannotTake(error) from error
        descriptors = calls.descriptorsIn(ancillary)
        wrong = ""
        if len(data) != size:
            wrong = "another process reads from this socket, too"
        elif flags & socket.MSG_CTRUNC:
            wrong = "out of descriptors: those of a message are lost; raise the limit (ulimit -n)"
        if wrong:
            closeForeign(descriptors)
            raise ChannelBroken(wrong)
        return descriptors

    def discard(self) -> None:
        """See L{MessageTransport.discard}; what has not come of it yet is dropped when it does."""
        self._begun.clear()
        self._drops = True

    # Sending.

    def sendMessage(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """See L{MessageTransport.sendMessage}; descriptors go with the first byte."""
        super().sendMessage(bytes(data) + END, descriptors)

    def _sendOne(self, data: memoryview | bytes, rights: Sequence[int]) -> int | None:
        sent = super()._sendOne(data, rights)
        if sent is not None and sent < len(data):
            # The rest is the next to be sent, behind what is being sent, if that is in the queue.
            self._queue.insert(1, (bytes(data[sent:]), []))
            self.waitWritable()
        return sent

    def _expectSendable(self, size: int, rights: int) -> None:
        # Of a stream, the kernel takes as much as it can.
        super()._expectSendable(0, rights)
