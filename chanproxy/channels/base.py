"""
What the channels on sockets have in common: how a socket is sent to, and what that may fail of.

Knows no kind of socket, and nothing of counters, containers or freezers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence

from chanproxy.channels.watched import WatchedSocket
from chanproxy.interfaces import Batch, ChannelBroken, ChannelClosed, MessageRefused
from chanproxy.kernel import calls, descriptors

SO_SNDBUFFORCE = 32
"""C{asm-generic/socket.h}; beyond C{net.core.wmem_max}, for CAP_NET_ADMIN."""

PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
TAKE = socket.MSG_TRUNC | socket.MSG_DONTWAIT
SEND = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
CONTROL = socket.CMSG_SPACE(4 * calls.SCM_MAX_FD) + socket.CMSG_SPACE(64)

_CLOSED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
LOST = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
"""The peer, or the way to it, has vanished."""

_LATER = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)


class SocketChannel(WatchedSocket):
    """One connected socket, and what goes into it."""

    __slots__ = ()

    family = ""
    """C{packets} or C{bytes}: the family of batches that it peeks, and sends at full speed."""

    carriesDescriptors = True

    showsUnread = True

    # Sending, as far as it is the same for all.

    def send(self, batch: Batch) -> int:
        """See L{IChannel.send}."""
        if self._closed or not len(batch):
            return 0
        return self._sendBatch(batch)

    def _sendBatch(self, batch: Batch) -> int:
        raise NotImplementedError

    def _sendParts(self, batch: Batch) -> int:
        """Send a batch of another make, one message a call."""
        sent = 0
        try:
            for data, rights in batch.messages():
                accepted = self._sendOne(data, rights)
                if accepted is None:
                    break
                sent += accepted if self.family == "bytes" else 1
                if accepted < len(data):
                    break
        except (ChannelClosed, ChannelBroken):
            # What went before is gone; the next try finds the same.
            if not sent:
                raise
        return sent

    def _sendOne(self, data: memoryview | bytes, rights: Sequence[int]) -> int | None:
        """@return: how many bytes were accepted, L{None} for nothing at all."""
        ancillary = []
        if rights:
            packed = b"".join(fd.to_bytes(4, "little") for fd in rights)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
        enlarged = False
        while True:
            try:
                return self._socket.sendmsg([data], ancillary, SEND)
            except OSError as error:
                number = error.errno or 0
            if self._mayRetry(number, len(data), len(rights), enlarged):
                enlarged = True
                continue
            return None

    def _mayRetry(self, number: int, size: int, rights: int, enlarged: bool) -> bool:
        """
        After a send that failed altogether: whether to repeat it at once; if not, it has to wait.

        @raise ChannelClosed: the peer receives no more.
        @raise ChannelBroken: it will never work.
        """
        if number == errno.EAGAIN:
            return False
        if number == errno.EINTR:
            return True
        if number in _CLOSED:
            self._reset = self._reset or number == errno.ECONNRESET
            raise ChannelClosed(os.strerror(number))
        if number in _LATER:
            self._retrySend = True
            return False
        if number == errno.EMSGSIZE and not enlarged:
            self._enlargeSendBuffer(size)
            return True
        self._reset = self._reset or number in LOST
        raise ChannelBroken(_explain(number, size, rights))

    def _enlargeSendBuffer(self, size: int) -> None:
        for option in (SO_SNDBUFFORCE, socket.SO_SNDBUF):
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, size + 4096)
                return

    def cookie(self) -> int:
        """The kernel's name of the socket."""
        if not self._cookie:
            self._cookie = calls.socketCookie(self._socket)
        return self._cookie

    # Descriptors.

    def _roomFor(self, heaviest: int, most: int) -> int:
        """How many messages to ask for, where the last ones had so many descriptors at most."""
        return max(1, min(most, descriptors.left() // heaviest)) if heaviest else most

    def _tooManyDescriptors(self, count: int) -> MessageRefused:
        limit = self._buffer.messageDescriptors
        return MessageRefused(
            "message-descriptors",
            f"a message with {count} descriptors exceeds message-descriptors = {limit}; "
            "raise limits.message-descriptors",
        )


def _explain(number: int, size: int, rights: int) -> str:
    if number == errno.EMSGSIZE:
        return f"a packet of {size} bytes is too large to send; raise net.core.wmem_max"
    if number == errno.EPERM and rights:
        return "the receiver refuses descriptors (SO_PASSRIGHTS is off)"
    return f"sending: {os.strerror(number)}"
