"""
Opening: what a peer says first is looked at before anybody is connected for it; nothing of that is
taken.

Knows one channel, and the first lines of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.interfaces import Batch, ChannelBroken, ChannelClosed, IChannel, IChannelUser

LINE = 8192
"""Bytes of a request that are waited for, as most servers do."""

PAUSE = 0.01
"""Seconds between looks at what is not whole: it is readable all the time."""

REQUEST = re.compile(rb"([A-Z]{3,20}) ([^\r\n ]+) HTTP/1\.[01]\r?\n")
"""The first line of a request: RFC 9112, 3; methods that anybody uses have so many letters."""


class Words:
    """What is sent of our own: see L{Batch}."""

    family, ended, more = "bytes", False, False

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def messagesIn(self, units: int) -> int:
        """It is none of those that are counted."""
        return 0

    def descriptorsIn(self, units: int) -> int:
        """None."""
        return 0

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """In one piece."""
        yield memoryview(self._data), []

    def close(self) -> None:
        """Nothing is held."""


def look(channel: IChannel, read: Callable[[Batch], None], broken: Callable[[], None]) -> None:
    """
    Read what is there now.

    @param broken: called when it, or what is done with it, cannot be.
    """
    try:
        batch = channel.peek()
    except ChannelBroken:
        broken()
        return
    try:
        read(batch)
    except (ChannelBroken, ChannelClosed):
        broken()
    finally:
        batch.close()


def textOf(batch: Batch) -> bytes:
    """All of a stream's batch, in one piece."""
    return b"".join(bytes(data) for data, _ in batch.messages())


@implementer(IChannelUser)
class Opening(Protocol):
    """One peer."""

    def __init__(
        self,
        clock: IReactorTime,
        patience: float,
        came: Callable[[Opening], None],
        left: Callable[[Opening], None],
    ) -> None:
        """
        @param patience: seconds until it is decided without more words.
        @param came: called when it is connected.
        @param left: called when its connection has ended, or is somebody else's.
        """
        self._clock = clock
        self._patience = patience
        self._came, self._left = came, left
        self._rest = b""
        self._call: IDelayedCall | None = None
        self._pause: IDelayedCall | None = None
        self._answered = False

    @property
    def _channel(self) -> IChannel:
        # It is no stream transport, and what it was made for asks for no more.
        return cast(IChannel, self.transport)

    def connectionMade(self) -> None:
        """It may speak first."""
        self._came(self)
        self._call = self._clock.callLater(self._patience, self._expired)
        self._channel.waitReadable(True)

    def channelReadable(self) -> None:
        """See L{IChannelUser}."""
        look(self._channel, self._read, self._end)

    def _read(self, batch: Batch) -> None:
        if self._answered:
            # Or what is unread would turn the answer into a reset, before the peer has read it.
            self._channel.take(len(batch))
            if batch.ended:
                self._channel.close()
        elif self.spoken(textOf(batch), batch.ended):
            self._channel.waitReadable(False)
            self._pause = self._clock.callLater(PAUSE, self._lookAgain)

    def _lookAgain(self) -> None:
        self._pause = None
        self._channel.waitReadable(True)

    def spoken(self, said: bytes, ended: bool) -> bool:
        """
        What it has said so far.

        @param ended: it says no more.
        @return: whether more of it is waited for.
        """
        raise NotImplementedError

    def expired(self) -> None:
        """It has had its time."""
        raise NotImplementedError

    def _expired(self) -> None:
        self._call = None
        self.expired()

    def answer(self, text: bytes, heard: int) -> None:
        """
        Say this, and no more.

        @param heard: bytes that were said before.
        @raise ChannelClosed: it does not listen; or L{ChannelBroken}.
        """
        self._answered, self._rest = True, text
        self._sendOn()
        self._channel.take(heard)
        self._channel.waitReadable(True)

    def _sendOn(self) -> None:
        self._rest = self._rest[self._channel.send(Words(self._rest)) :]
        if self._rest:
            self._channel.waitWritable()
        else:
            self._channel.finishSending()

    def _stopCalls(self) -> None:
        for call in (self._call, self._pause):
            if call is not None:
                call.cancel()
        self._call = self._pause = None

    def _end(self) -> None:
        # No end in order: nobody was there.
        (self._channel.close if self._answered else self._channel.abort)()

    def channelWritable(self) -> None:
        """See L{IChannelUser}."""
        try:
            if self._rest:
                self._sendOn()
        except (ChannelBroken, ChannelClosed):
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        self._stopCalls()
        self._left(self)


def mayBecomeRequest(said: bytes) -> bool:
    """Whether it may be the beginning of such a line, of which more comes."""
    return b"\n" not in said and len(said) < LINE and re.match(rb"[A-Z]*( |$)", said) is not None
