"""
The connection of a client: one call after the other, their answers, and one that goes on.

Knows no methods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from chanproxy.channels.transport import MessageProtocol
from chanproxy.interfaces import ChannelBroken
from chanproxy.kernel.calls import closeAll
from chanproxy.manager.errors import VarlinkError
from chanproxy.manager.varlink import parseReply


@define
class Answer:
    """
    What a call was answered.

    @ivar descriptors: with the answer; now the receiver's, which closes them.
    """

    parameters: Mapping[str, Any]
    descriptors: list[int]


class Connection(MessageProtocol):
    """Answers come in the order of the calls."""

    def __init__(self) -> None:
        self._waiting: deque[Deferred[Answer]] = deque()
        self._lost = False
        self.onAnswer: Callable[[Answer], None] | None = None
        self.onEnd: Callable[[Failure], None] | None = None

    def send(self, data: bytes, descriptors: Sequence[int]) -> Deferred[Answer]:
        if self._lost or self.transport.disconnecting:
            why = "this client was closed, or its service has gone; connect another one"
            return fail(ConnectionDone(why))
        try:
            self.transport.sendMessage(data, descriptors)
        except (ChannelBroken, OSError) as error:
            return fail(error)
        answer: Deferred[Answer] = Deferred()
        self._waiting.append(answer)
        return answer

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        try:
            reply = parseReply(data)
        except VarlinkError as error:
            closeAll(descriptors)
            if self._waiting:
                self._waiting.popleft().errback(error)
            else:
                self.end(Failure(error))
            return
        answer = Answer(reply.parameters, descriptors)
        if self.onAnswer is not None:
            self.onAnswer(answer)
        elif self._waiting:
            waiting = self._waiting.popleft()
            if waiting.called:
                # It was cancelled: nobody takes the descriptors.
                closeAll(descriptors)
            waiting.callback(answer)
        else:
            closeAll(descriptors)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            answer.errback(reason)
        self.end(reason)

    def end(self, reason: Failure) -> None:
        """Whoever listens to the answers hears no more of them."""
        onEnd, self.onEnd = self.onEnd, None
        if onEnd is not None:
            self.transport.loseConnection()
            onEnd(reason)


class Watch:
    """
    A wake watcher at work.

    @ivar ended: fires with L{None} after L{stop}, and fails when the service has dropped it or
        gone, or with what C{changed} has raised.
    """

    def __init__(
        self, connection: Connection, changed: Callable[[str, tuple[str, ...]], None]
    ) -> None:
        self._connection = connection
        self._changed = changed
        self._stopping = False
        self.ended: Deferred[None] = Deferred()
        connection.onAnswer = self._answered
        connection.onEnd = self._over

    def _answered(self, answer: Answer) -> None:
        closeAll(answer.descriptors)
        try:
            self._changed(answer.parameters["state"], tuple(answer.parameters["reasons"]))
        except Exception:
            self._connection.end(Failure())

    def _over(self, reason: Failure) -> None:
        if self._stopping:
            self.ended.callback(None)
        else:
            self.ended.errback(reason)

    def stop(self) -> Deferred[None]:
        """Hear no more; fires when the connection is closed.  Idempotent."""
        self._stopping = True
        self._connection.transport.loseConnection()
        return self.ended
