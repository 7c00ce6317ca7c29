"""
TurnedAway: whoever connects for a container that is paused is told so, and waits for nothing.

A peer that speaks HTTP first gets an answer in words; each other one sees that the connection ends
at once.  Knows one channel; knows nothing of why it is turned away.
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

PATIENCE = 1.0
"""Seconds that a peer has to speak first, and then to read its answer."""

HTTP = re.compile(rb"[A-Z]{3,20} [^\r\n ]+ HTTP/1\.[01]\r?\n")
"""The first line of a request: RFC 9112, 3; methods that anybody uses have so many letters."""

LINE = 8192
"""Bytes of it that are waited for, as most servers do."""


class _Answer:
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


@implementer(IChannelUser)
class TurnedAway(Protocol):
    """One peer."""

    def __init__(
        self,
        clock: IReactorTime,
        why: str,
        came: Callable[[TurnedAway], None],
        left: Callable[[TurnedAway], None],
    ) -> None:
        """
        @param why: a sentence, for a peer that can read it.
        @param came: called when it is connected.
        @param left: called when its connection has ended.
        """
        self._clock = clock
        self._why = why
        self._came, self._left = came, left
        self._call: IDelayedCall | None = None
        self._answered = False

    @property
    def _channel(self) -> IChannel:
        # It is no stream transport, and what it was made for asks for no more.
        return cast(IChannel, self.transport)

    def connectionMade(self) -> None:
        """It may speak first."""
        self._came(self)
        self._call = self._clock.callLater(PATIENCE, self._expired)
        if self._channel.family == "bytes":
            self._channel.waitReadable(True)
        else:
            self._end()

    def channelReadable(self) -> None:
        """See L{IChannelUser}."""
        try:
            batch = self._channel.peek()
        except ChannelBroken:
            self._end()
            return
        try:
            self._read(batch)
        except (ChannelBroken, ChannelClosed):
            self._end()
        finally:
            batch.close()

    def _read(self, batch: Batch) -> None:
        if self._answered:
            # Or what is unread would turn the answer into a reset, before the peer has read it.
            self._channel.take(len(batch))
            if batch.ended:
                self._channel.close()
            return
        said = b"".join(bytes(data) for data, _ in batch.messages())
        if HTTP.match(said):
            self._channel.send(_Answer(self._inWords()))
            self._channel.take(len(batch))
            self._channel.finishSending()
            self._answered = True
        elif batch.ended or not _mayBecome(said):
            self._end()

    def _inWords(self) -> bytes:
        body = f"{self._why}\n".encode(errors="backslashreplace")
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body

    def channelWritable(self) -> None:
        """See L{IChannelUser}; an answer has room, or its peer is none that waits for it."""

    def _expired(self) -> None:
        self._call = None
        self._end()

    def _end(self) -> None:
        # No end in order: nobody was there.
        (self._channel.close if self._answered else self._channel.abort)()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._left(self)


def _mayBecome(said: bytes) -> bool:
    """Whether it may be the beginning of such a line, of which more comes."""
    return b"\n" not in said and len(said) < LINE and re.match(rb"[A-Z]*( |$)", said) is not None
