"""
The server: connections and requests, and what bounds them.

Knows no resources: whoever answers is handed each request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol, cast

from attrs import frozen
from twisted.internet.interfaces import IAddress, IFileDescriptorReceiver
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.fewlines import FewLines
from chanproxy.kernel.foreign import closeForeign
from chanproxy.manager.access import IAccess
from chanproxy.manager.crowds import Crowd, Terms
from chanproxy.manager.errors import CallTooLarge, LimitExceeded, VarlinkError
from chanproxy.manager.http.doors import IDoor, Peer
from chanproxy.manager.http.errors import statusOf
from chanproxy.words import safe

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of each answer."""

LINGERING, DRAINING = 2.0, 64
"""
Seconds for which somebody who was refused is still read, unheard, and how many are at a time: what
is closed with something unread takes its last answer along (RFC 9112, 9.6).
"""


class IAnswering(Protocol):
    """What answers; see L{chanproxy.manager.http.resources.Resources}."""

    def answer(self, asked: HttpRequest, peer: Peer) -> None: ...


_Request: Any = Request
_Channel: Any = HTTPChannel
# Twisted's have no annotations.


@frozen
class Bounds:
    """
    What one client may take.

    @ivar body: bytes.
    @ivar timeout: seconds in which a request has to be there.
    """

    body: int
    timeout: float


class HttpRequest(_Request):  # type: ignore[misc]  # see there
    """
    One request, handed on when it is there as a whole, and its user has a turn.

    @ivar gone: nobody waits for the answer any more.
    """

    gone = False
    _room = 0
    _refused = False

    @property
    def factory(self) -> HttpFactory:
        """What its connection is of."""
        return cast(HttpFactory, self.channel.factory)

    def gotLength(self, length: int | None) -> None:
        """The headers are there."""
        self._room = self.factory.bounds.body
        # In memory: no larger than its bound.
        super().gotLength(0)
        if length is not None and length > self._room:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        self._room -= len(data)
        if self._refused:
            return
        if self._room < 0:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def _refuse(self) -> None:
        """It is too large: said at once, and not waited for."""
        self._refused = True
        error = CallTooLarge(self.factory.bounds.body, "limits.http-bytes")
        self.channel.refuse(error)

    def process(self) -> None:
        """It is there."""
        channel = self.channel
        if self._refused or channel.peer is None:
            return
        self._peer = self.factory.door.asks(channel.peer, self)
        account = self._peer.account
        if account.owes:
            account.wait(self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        began = time.thread_time()
        try:
            self.factory.answering.answer(self, self._peer)
        finally:
            self._peer.account.charge(time.thread_time() - began)

    def connectionLost(self, reason: Failure) -> None:
        """The client has gone."""
        self.gone = True
        peer = getattr(self, "_peer", None)
        if peer is not None:
            peer.account.leave(self._begin)
        super().connectionLost(reason)

    def begin(self, status: int, kind: str, headers: dict[str, str]) -> None:
        """Say what follows."""
        self.setResponseCode(status, HTTPStatus(status).phrase.encode())
        for name, value in {**HEADERS, "Content-Type": kind, **headers}.items():
            self.setHeader(name, value)

    def succeed(self, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
        """The whole answer."""
        if not self.gone:
            self.begin(status, kind, {**headers, "Content-Length": str(len(body))})
            self.write(body)
            self.finish()

    def reply(self, parameters: Mapping[str, Any]) -> None:
        """The answer is an object."""
        body = json.dumps(parameters, allow_nan=False).encode("ascii")
        self.succeed(200, "application/json", body, {})

    def drop(self) -> None:
        """End its connection at once."""
        self.channel.transport.abortConnection()

    def fail(self, error: VarlinkError) -> None:
        """The answer is an error."""
        headers = dict(getattr(error, "headers", {}))
        self.succeed(statusOf(error), "application/json", error.encode(), headers)


@implementer(IFileDescriptorReceiver)
class HttpConnection(_Channel):  # type: ignore[misc]  # see there
    """
    One connection.

    @ivar peer: who it is; L{None}: it was not let in, or has gone.
    """

    factory: HttpFactory
    requestFactory = HttpRequest
    peer: Peer | None = None
    _refused = False

    def connectionMade(self) -> None:
        """Somebody connected."""
        super().connectionMade()
        peer = self.factory.door.connected(self.transport.getHandle())
        if not self.factory.admit(self, peer):
            self.factory.lines.warn("http: {who} refused: too many connections", who=peer.who)
            self.refuse(LimitExceeded("limits.http-connections"), 503)
            return
        self.peer = peer

    def refuse(self, error: VarlinkError, status: int = 0) -> None:
        """Say so, and hear no more."""
        body = error.encode()
        self.transport.write(
            b"HTTP/1.1 %d Refused\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (status or statusOf(error), len(body), body)
        )
        self._refused = True
        if self.factory.drains(self):
            self.setTimeout(LINGERING)
            self.transport.loseWriteConnection()
        else:
            self.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Whoever was refused is not heard."""
        if not self._refused:
            super().dataReceived(data)

    def resetTimeout(self) -> None:
        """
        Not by each byte: a request has to be there in time as a whole, however slowly it comes.
        """

    def timeoutConnection(self) -> None:
        """It was not there in time, or the answer was not read; no line for each that does so."""
        self.transport.abortConnection()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Nobody asked for it."""
        closeForeign([descriptor])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has ended."""
        super().connectionLost(reason)
        self.factory.left(self)
        self.peer = None


class HttpFactory(Factory):
    """Makes a L{HttpConnection} of each client."""

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        answering: IAnswering,
        door: IDoor,
        crowd: Crowd,
        bounds: Bounds,
        lines: FewLines,
    ) -> None:
        """
        @param crowd: what clients may take.
        @param lines: where it is said who was refused.
        """
        self._reactor = reactor
        self.answering = answering
        self.door = door
        self.bounds = bounds
        self.lines = lines
        self._crowd = crowd
        self._open: dict[HttpConnection, Peer] = {}
        self._draining: set[HttpConnection] = set()

    def buildProtocol(self, address: IAddress | None) -> Any:
        """A client connected."""
        connection = HttpConnection()
        connection.factory = self
        connection.callLater = self._reactor.callLater
        connection.timeOut = self.bounds.timeout
        return connection

    def admit(self, connection: HttpConnection, peer: Peer) -> bool:
        """Whether there is room for one more connection."""
        if not self._crowd.admit(peer.account):
            return False
        self._open[connection] = peer
        return True

    def drains(self, connection: HttpConnection) -> bool:
        """Whether one that was refused may still be read for a while."""
        if len(self._draining) >= DRAINING:
            return False
        self._draining.add(connection)
        return True

    def left(self, connection: HttpConnection) -> None:
        """A connection has ended."""
        self._draining.discard(connection)
        peer = self._open.pop(connection, None)
        if peer is not None:
            self._crowd.left(peer.account)

    def limit(self, terms: Terms, bounds: Bounds) -> None:
        """Have others; those of a connection that stands stay, as to its time."""
        self._crowd.change(terms)
        self.bounds = bounds

    def allow(self, access: IAccess) -> None:
        """From now on others may do other things; whoever may do less is disconnected."""
        self.door.allow(access)
        for connection, peer in list(self._open.items()):
            if not self.door.covers(peer):
                self.lines.warn("http: {who} has lost access: closed", who=peer.who)
                connection.transport.abortConnection()

    def log(self, request: Any) -> None:
        """Twisted's own log of each request: not kept, for others could fill it."""

    def failed(self, request: HttpRequest, failure: Failure) -> None:
        """A mistake of ours."""
        path = safe(request.path.decode("latin-1"))
        self._log.failure("http: a request for {path} failed", failure, path=path)

    def closeAll(self) -> None:
        """The service stops; what was answered is sent still."""
        for connection in list(self._draining):
            connection.transport.abortConnection()
        for connection in list(self._open):
            connection.loseConnection()

    def stopFactory(self) -> None:
        """Nobody connects any more."""
        self.lines.close()
        self._crowd.close()
