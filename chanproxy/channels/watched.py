"""
A connected socket in the reactor: its events, what has none, its end.

Knows nothing of what goes through it.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from typing import cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.interfaces import ChanproxyReactor, IChannelUser
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeSocket
from chanproxy.kernel.keepalive import Keeper

RETRY_SECONDS = 0.05
"""How long to wait for what gives no event: descriptors of our own, descriptors in flight."""

_READ = select.EPOLLIN | select.EPOLLRDHUP
_ENDED = select.EPOLLHUP | select.EPOLLERR
_READ_OR_ENDED = _READ | _ENDED
_WRITE_OR_ENDED = select.EPOLLOUT | _ENDED


class WatchedSocket:
    """
    One connected socket, and its place in the reactor.

    Owns the socket, but not its flags: a descriptor that was received shares them with its sender.
    So it may block, and every call here says that it does not want to wait.

    The protocol provides L{IChannelUser} and L{IProtocol}.
    """

    __slots__ = (
        *("_buffer", "_closed", "_cookie", "_drained", "_reactor", "_reset", "_retryRead"),
        *("_retrySend", "_retryWrite", "_socket", "_wantsGone", "_wantsMore", "_wantsReadable"),
        *("_wantsWritable", "_watched", "protocol"),
    )

    _log = Logger()

    def __init__(
        self, reactor: ChanproxyReactor, connected: socket.socket, buffer: PeekBuffer
    ) -> None:
        self._reactor = reactor
        self._socket = connected
        self._buffer = buffer
        self._cookie = 0
        self._watched: int | None = None
        self._wantsReadable = self._wantsWritable = self._wantsGone = self._wantsMore = False
        self._retryRead: IDelayedCall | None = None
        self._retryWrite: IDelayedCall | None = None
        self._retrySend = False
        self._closed = self._drained = self._reset = False
        self.protocol: IProtocol | None = None

    def waitReadable(self, wanted: bool) -> None:
        """See L{IChannel.waitReadable}."""
        if wanted is not self._wantsReadable:
            self._wantsReadable = wanted
            self._watch()

    def waitMore(self, wanted: bool) -> None:
        """
        What can be peeked is too little: C{channelReadable} comes when there is more, and not again
        and again while there is something.
        """
        if wanted is not self._wantsMore:
            self._wantsMore = wanted
            self._watch()

    def nothingFollows(self) -> bool:
        """Whether the end comes right after what is in the queue."""
        return self._closed or bool(calls.hungUp(self.fileno()))

    def waitWritable(self) -> None:
        """See L{IChannel.waitWritable}."""
        if self._closed or self._retryWrite is not None:
            return
        if self._retrySend:
            self._retrySend = False
            self._retryWrite = self._reactor.callLater(RETRY_SECONDS, self._retryWriting)
        elif not self._wantsWritable:
            self._wantsWritable = True
            self._watch()

    def waitGone(self) -> None:
        """See L{IChannel.waitGone}."""
        self._wantsGone = True
        self._watch()

    def _watch(self) -> None:
        """Have the poller watch what is wanted now."""
        if self._closed:
            return
        events: int | None = select.EPOLLOUT if self._wantsWritable else 0
        if self._wantsReadable and self._retryRead is None:
            events = (events or 0) | _READ
            if self._wantsMore:
                events |= select.EPOLLET
        elif not events and not self._wantsGone:
            # Hang-ups are always told, by level: so it must not be watched at all.
            events = None
        if events == self._watched:
            return
        self._watched = events
        poller = self._buffer.poller(self._reactor)
        if events is None:
            poller.unwatch(self.fileno())
        else:
            poller.watch(self.fileno(), events, self._happened)

    def _happened(self, events: int) -> None:
        try:
            if self._wantsWritable and events & _WRITE_OR_ENDED:
                self._wantsWritable = False
                self._becameWritable()
                # Not before: most often it is wanted again at once.
                self._watch()
            if self._closed:
                return
            if self._wantsReadable and self._retryRead is None:
                if events & _READ_OR_ENDED:
                    self._user().channelReadable()
            elif self._wantsGone and events & select.EPOLLHUP:
                self._wantsGone = False
                self._watch()
                self._user().channelReadable()
            elif events & select.EPOLLERR:
                # By level, too, and a reset alone does not say that the peer is gone.
                self._lookForReset()
        except Exception:
            self._log.failure("a channel failed, and is closed")
            self._shut(Failure())

    def _becameWritable(self) -> None:
        self._user().channelWritable()

    def _pauseForDescriptors(self) -> None:
        if self._retryRead is None:
            self._log.warn("out of descriptors: a message waits; raise the limit (ulimit -n)")
            self._retryRead = self._reactor.callLater(RETRY_SECONDS, self._retryReading)
            self._watch()

    def _retryReading(self) -> None:
        self._retryRead = None
        if self._wantsReadable:
            self._watch()
            self._user().channelReadable()

    def _retryWriting(self) -> None:
        self._retryWrite = None
        self._becameWritable()

    def _user(self) -> IChannelUser:
        return cast(IChannelUser, self.protocol)

    def fileno(self) -> int:
        """The socket's descriptor, still owned here; -1 when closed."""
        return self._socket.fileno()

    # The end.

    def finishSending(self) -> None:
        """See L{IChannel.finishSending}."""
        if self._closed:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def finishReceiving(self) -> None:
        """See L{IChannel.finishReceiving}.  Only AF_UNIX tells the peer."""
        if self._socket.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    def peerGone(self) -> bool:
        """See L{IChannel.peerGone}."""
        return self._closed or bool(calls.hungUp(self.fileno()) & select.POLLHUP)

    def close(self) -> None:
        """See L{IChannel.close}."""
        self._shut(Failure(ConnectionDone()))

    def wasReset(self) -> bool:
        """See L{IChannel.wasReset}."""
        return self._reset or self._lookForReset()

    def _lookForReset(self) -> bool:
        """Reading the error clears it."""
        if not self._closed and self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._reset = True
        return self._reset

    def abort(self) -> None:
        """See L{IChannel.abort}; nothing but TCP can say it."""
        self.close()

    def keepAlive(self, keeper: Keeper) -> None:
        """Notice when the peer has vanished; only over TCP can it do so without a word."""

    def _shut(self, reason: Failure) -> None:
        if self._closed:
            return
        self._closed = True
        if self._watched is not None:
            self._buffer.poller(self._reactor).unwatch(self.fileno())
            self._watched = None
        for call in (self._retryRead, self._retryWrite):
            if call is not None:
                call.cancel()
        closeSocket(self._socket, self._drained)
        # Not from inside the caller's own method: the order of events stays simple.
        self._reactor.callLater(0, self._tellLost, reason)

    def _tellLost(self, reason: Failure) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(reason)
