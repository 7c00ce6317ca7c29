"""
Checked: whoever only asks whether a container is well does not wake it.

A request for one path is answered with what the container said last, or is put to it, and what it
says is remembered.  A connection that ends without a word asks as much.  All others are let in,
with all that they have said.  Knows channels, and HTTP as far as that; nothing of containers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol as Interface
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.carry.opening import (
    LINE,
    REQUEST,
    Opening,
    Words,
    look,
    mayBecomeRequest,
    textOf,
)
from chanproxy.interfaces import Batch, ChannelBroken, ChannelClosed, IChannel, IChannelUser

SILENT = 0.2
"""Seconds after which whoever has connected and says nothing waits for the container to speak."""

LARGEST = 65536
"""Bytes of an answer that is remembered; one that is larger is none to such a question."""

PATIENCE = 30.0
"""Seconds for such an answer."""

_END = re.compile(rb"\r?\n\r?\n")
_METHODS = (b"GET", b"HEAD")
_OWN = re.compile(rb"^(?:connection|keep-alive|proxy-connection)[ \t]*:", re.IGNORECASE)
"""What is between two neighbours, and not from end to end: RFC 9110, 7.6.1."""

_WELL = re.compile(rb"HTTP/1\.[01] 2\d\d(?:[ \r\n]|$)")

_CHUNKED = re.compile(rb"^transfer-encoding[ \t]*:", re.IGNORECASE | re.MULTILINE)


@frozen
class Question:
    """
    A request that is one.

    @ivar what: the same for all that have the same answer.
    @ivar text: all of it.
    """

    what: bytes
    text: bytes

    def forwarded(self) -> bytes:
        """As it goes to the container, so that the answer ends with its connection."""
        head, *rest = re.split(rb"\r?\n", self.text.rstrip(b"\r\n"))
        kept = [line for line in rest if not _OWN.match(line)]
        return b"\r\n".join([head, *kept, b"Connection: close", b"", b""])


def question(said: bytes, path: bytes) -> Question | bool:
    """
    What somebody asks.

    @param path: for which a request is such a question; empty: no request is.
    @return: True: it is not known yet; False: it is something else.
    """
    first = REQUEST.match(said)
    if first is None:
        return bool(path) and mayBecomeRequest(said)
    method, target = first[1], first[2]
    if not path or method not in _METHODS or target.partition(b"?")[0] != path:
        return False
    end = _END.search(said)
    if end is None:
        return len(said) < LINE
    # With a body, or another request behind it, it asks for more than that.
    return Question(method + b" " + target, said) if end.end() == len(said) else False


@frozen
class Answered:
    """
    What a container has said to a question.

    @ivar text: all of it, as it came.
    """

    text: bytes

    def again(self, mark: bytes) -> bytes:
        """
        The same, said by somebody else.

        @param mark: a line for its head that says so.
        """
        end = _END.search(self.text)
        assert end is not None
        lines = re.split(rb"\r?\n", self.text[: end.start()])
        kept = [line for line in lines if not _OWN.match(line)]
        head = b"\r\n".join([*kept, mark, b"Connection: close"])
        return head + b"\r\n\r\n" + self.text[end.end() :]


class Keeper(Interface):
    """Who knows what a container has said, and asks it."""

    def known(self, question: Question) -> bytes | None:
        """What is said for it; None: it is to be asked."""

    def ask(self, question: Question) -> Deferred[Answered]:
        """Ask it, and keep what it says."""

    def letIn(self, channel: IChannel) -> None:
        """This is no question: connect it."""


class Checked(Opening):
    """One peer, as long as it is not known what it wants."""

    def __init__(
        self,
        clock: IReactorTime,
        path: bytes,
        keeper: Keeper,
        came: Callable[[Opening], None],
        left: Callable[[Opening], None],
    ) -> None:
        """@param path: see L{question}."""
        super().__init__(clock, SILENT, came, left)
        self._path = path
        self._keeper = keeper
        self._asking: Deferred[Answered] | None = None

    def spoken(self, said: bytes, ended: bool) -> bool:
        """See L{Opening}."""
        if not said:
            if ended:
                # It has seen that somebody listens.
                self._channel.close()
            return False
        found = question(said, self._path)
        if isinstance(found, Question):
            self._put(found)
            return False
        if found and not ended:
            return True
        self._letIn()
        return False

    def _put(self, question: Question) -> None:
        known = self._keeper.known(question)
        if known is not None:
            self._say(known, question)
            return
        self._stopCalls()
        self._channel.waitReadable(False)
        self._asking = asking = self._keeper.ask(question)
        asking.addCallbacks(lambda answer: self._say(answer.text, question), self._notAnswered)

    def _say(self, text: bytes, question: Question) -> None:
        self._asking = None
        try:
            self.answer(text, len(question.text))
        except (ChannelBroken, ChannelClosed):
            self._end()
        else:
            self._stopCalls()
            self._call = self._clock.callLater(PATIENCE, self._expired)

    def _notAnswered(self, failure: Failure) -> None:
        self._asking = None
        # Whoever carries it says what is wrong.
        self._letIn()

    def expired(self) -> None:
        """See L{Opening}."""
        if self._answered:
            self._end()
        else:
            self._letIn()

    def _letIn(self) -> None:
        channel = self._channel
        if self.transport is None or self._answered:
            return
        self._stopCalls()
        channel.waitReadable(False)
        self.transport = None
        self._left(self)
        self._keeper.letIn(channel)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        super().connectionLost(reason)
        self.transport = None
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()


@implementer(IChannelUser)
class Asking(Protocol):
    """
    One question to a container.

    @ivar answered: fires when its connection has ended in order, with all that was said.
    """

    def __init__(self, clock: IReactorTime, question: Question) -> None:
        self._clock = clock
        self._left = question.forwarded()
        self._heard = b""
        self._call: IDelayedCall | None = None
        self.answered: Deferred[Answered] = Deferred(lambda _: self._end())

    @property
    def _channel(self) -> IChannel:
        return cast(IChannel, self.transport)

    def connectionMade(self) -> None:
        """Ask."""
        self._call = self._clock.callLater(PATIENCE, self._end)
        self._channel.waitReadable(True)
        self.channelWritable()

    def channelWritable(self) -> None:
        """See L{IChannelUser}."""
        try:
            sent = self._channel.send(Words(self._left)) if self._left else 0
        except (ChannelBroken, ChannelClosed):
            self._end()
            return
        self._left = self._left[sent:]
        if self._left:
            self._channel.waitWritable()

    def channelReadable(self) -> None:
        """See L{IChannelUser}."""
        look(self._channel, self._read, self._end)

    def _read(self, batch: Batch) -> None:
        self._heard += textOf(batch)
        self._channel.take(len(batch))
        if batch.ended and not self._channel.wasReset():
            self._isAnswered()
        elif batch.ended or len(self._heard) > LARGEST:
            self._end()

    def _isAnswered(self) -> None:
        if self._heard and not self.answered.called:
            self.answered.callback(Answered(self._heard))
        self._end()

    def _end(self) -> None:
        if self.transport is not None:
            self._channel.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        self.transport = cast(ITransport, None)
        if not self.answered.called:
            self.answered.errback(reason)


def isRemembered(answer: Answered) -> bool:
    """Whether it may be said again: it says that all is well, and has an end of its own."""
    head, *rest = _END.split(answer.text, 1)
    return bool(_WELL.match(head) and rest) and not _CHUNKED.search(head)
