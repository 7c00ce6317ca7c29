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

SCARCE = (errno.ENOBUFS, errno.ENOMEM)
"""The kernel has no memory for it: for now, or never."""

_LATER = (errno.ETOOMANYREFS, *SCARCE)

_SKB_OVERHEAD = 32
"""C{unix_dgram_sendmsg}, C{net/unix/af_unix.c}: what a packet takes besides in the send buffer."""

MOST_BYTES = (1024 + 45) * os.sysconf("SC_PAGESIZE")
"""
Larger packets are never sent, whatever the buffer is: the kernel allocates one in one piece
(C{MAX_PAGE_ORDER}, C{include/linux/mmzone.h}), and the rest of it in some pages (C{MAX_SKB_FRAGS}).
"""


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
        hopeless = size > MOST_BYTES and self.family == "packets"
        if number in _LATER and not (hopeless and number in SCARCE):
            self._retrySend = True
            return False
        if number == errno.EMSGSIZE and not enlarged and not hopeless:
            self._enlargeSendBuffer(size)
            return True
        self._reset = self._reset or number in LOST
        raise ChannelBroken(whyNotSent(number, size, rights))

    def _expectSendable(self, size: int, rights: int) -> None:
        """
        See that the kernel would take such a packet, if all before it were gone.

        @raise ChannelBroken: it never would.
        """
        if rights > calls.SCM_MAX_FD:
            self._mayRetry(errno.EINVAL, size, rights, True)
        for enlarged in (False, True):
            room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            if size + _SKB_OVERHEAD <= room and size <= MOST_BYTES:
                return
            self._mayRetry(errno.EMSGSIZE, size, rights, enlarged)

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

    def _cannotTake(self, error: OSError) -> ChannelBroken:
        why = "the channel is closed" if self._closed else error.strerror
        return ChannelBroken(f"taking: {why}")

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


def whyNotSent(number: int, size: int, rights: int) -> str:
    """
    What is wrong with a message, by the error of sending it, and what to do.

    @param rights: how many descriptors go with it.
    """
    if number in (errno.EMSGSIZE, *SCARCE) and size > MOST_BYTES:
        most = f"{MOST_BYTES >> 20} MiB"
        return (
            f"a packet of {size} bytes is more than the kernel takes ({most}); send it in several"
        )
    if number in SCARCE:
        return f"the kernel has no memory for a packet of {size} bytes; send it in several"
    if number == errno.EMSGSIZE:
        # The kernel gives twice of what is asked for, and of what may be asked for.
        needed = (size + _SKB_OVERHEAD + 1) // 2
        return (
            f"a packet of {size} bytes is too large to send; send it in several, or raise the "
            f"kernel's limit: sysctl net.core.wmem_max={needed}"
        )
    if number == errno.EINVAL and rights > calls.SCM_MAX_FD:
        most = f"{calls.SCM_MAX_FD} with a message"
        return f"{rights} descriptors are more than the kernel takes ({most}); send several"
    if number == errno.EBADF and rights:
        return "one of the descriptors that are to go with the message is not open"
    if number == errno.EPERM and rights:
        return "the receiver refuses descriptors (SO_PASSRIGHTS is off)"
    return f"sending: {os.strerror(number)}"
