"""
Requests over HTTP, by treq, in programs that have no reactor: Twisted's runs in a thread here.

Knows URLs and bytes; knows not what is asked for.  Loaded only with a URL.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import treq.client
from attrs import frozen
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    UserError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import blockingCallFromThread
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError  # it has no other name
from twisted.web.client import Agent, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from chanproxy.commands.asked import NOT_OURS
from chanproxy.commands.where import Url
from chanproxy.guest import ServiceGone

T = TypeVar("T")

LARGEST = 1 << 26
"""Bytes of an answer; those of a service with thousands of containers are far smaller."""

QUIET = 45.0
"""Seconds without a word on a stream, on which each service says something three times as often."""

ENDING = 2.0
"""Seconds that the reactor may take to end."""

KEEPALIVE = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
}
"""A sleep may last for days: a machine that is gone meanwhile is noticed within a minute."""

reactor: Any = _reactor

_TimeoutMixin: Any = TimeoutMixin
# Twisted's has no annotations.


@frozen
class Got:
    """
    An answer.

    @ivar leads: to where it sends whoever asks, if it does.
    """

    status: int
    phrase: str
    leads: str
    body: bytes


@implementer(IStreamClientEndpoint)
@frozen
class _Kept:
    """Connects so that the kernel notices when the other end has gone."""

    _endpoint: Any

    def connect(self, factory: Any) -> Any:
        def keep(protocol: Any) -> Any:
            handle = protocol.transport.getHandle()
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                handle.setsockopt(socket.IPPROTO_TCP, option, value)
            return protocol

        return self._endpoint.connect(factory).addCallback(keep)


@implementer(IAgentEndpointFactory)
@frozen
class _There:
    """Leads all requests to one place."""

    _url: Url
    _patience: float

    def endpointForURI(self, uri: Any) -> Any:
        url = self._url
        if url.path:
            path = f"\0{url.path[1:]}" if url.path.startswith("@") else url.path
            return UNIXClientEndpoint(reactor, path, self._patience)
        kept = _Kept(HostnameEndpoint(reactor, url.host, url.port, self._patience))
        return wrapClientTLS(optionsForClientTLS(url.host), kept) if url.tls else kept


class _Body(Protocol, _TimeoutMixin):  # type: ignore[misc]  # see there
    """
    What follows the headers.

    @ivar over: fires at its end; to be cancelled by whoever has heard enough.
    """

    def __init__(self, told: Callable[[bytes], None], quiet: float | None) -> None:
        self._told = told
        self._quiet = quiet
        self.over: Deferred[None] = Deferred(lambda _: self._leave())

    def connectionMade(self) -> None:
        self.setTimeout(self._quiet)

    def dataReceived(self, data: bytes) -> None:
        self.resetTimeout()
        try:
            self._told(data)
        except Exception:
            self._end(Failure())

    def timeoutConnection(self) -> None:
        self._end(Failure(TimeoutError()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        good = reason.check(ResponseDone, PotentialDataLoss)
        self._end(None if good else reason)

    def _leave(self) -> None:
        self.setTimeout(None)
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self, result: Failure | None) -> None:
        if not self.over.called:
            self.over.callback(result)
        self._leave()


class Web:
    """
    Where a service is.

    C{ask} and C{listen} are for the reactor's thread: see L{wait}.
    """

    def __init__(self, url: Url, token: bytes | None, patience: float) -> None:
        """@param patience: seconds, to connect."""
        self._url = url
        self._client = treq.client.HTTPClient(
            Agent.usingEndpointFactory(reactor, _There(url, patience))
        )
        self._headers: dict[bytes | str, bytes | str] = {"Host": url.netloc.encode()}
        if token is not None:
            self._headers["Authorization"] = b"Bearer " + token
        self._thread: Thread | None = None

    def wait(self, function: Callable[..., Deferred[T]], *arguments: Any) -> T:
        """
        Call a function in the reactor's thread, and wait for what comes of it.

        @raise ServiceGone: there is none that answers.
        """
        if self._thread is None:
            # What it may still wait for, as a name that is looked up, does not keep the program.
            self._thread = Thread(target=reactor.run, args=(False,), daemon=True)
            self._thread.start()
        made: Any = partial(function, *arguments)
        found: T = blockingCallFromThread(reactor, made)
        return found

    def close(self) -> None:
        """Disconnect, and end the thread; there is no other one.  Idempotent."""
        if self._thread is not None and self._thread.is_alive():
            reactor.callFromThread(reactor.stop)
            self._thread.join(ENDING)

    def ask(
        self, verb: str, path: str, parameters: Mapping[str, Any], patience: float | None
    ) -> Deferred[Got]:
        """
        One request, and its whole answer.

        @param patience: seconds; None: any number.
        """

        async def whole() -> Got:
            return await self._got(await self._begin(verb, path, parameters))

        asked = Deferred.fromCoroutine(whole())
        if patience is not None:
            asked.addTimeout(patience, reactor)
        return asked.addErrback(self._failed)

    def listen(
        self,
        path: str,
        parameters: Mapping[str, Any],
        told: Callable[[bytes], None],
        patience: float,
    ) -> Deferred[Got]:
        """
        Hear what comes, until it is cancelled or fails; or what was said instead.

        @param patience: seconds until it begins.
        """

        async def all_() -> Got:
            begun = self._begin("GET", path, parameters).addTimeout(patience, reactor)
            response = await begun
            (kind,) = response.headers.getRawHeaders("Content-Type", [""])[:1]
            if response.code != 200 or not kind.startswith("text/event-stream"):
                return await self._got(response).addTimeout(patience, reactor)
            body = _Body(told, QUIET)
            response.deliverBody(body)
            await body.over
            raise ServiceGone(self.sentence("the service has gone or was restarted"))

        return Deferred.fromCoroutine(all_()).addErrback(self._failed)

    def _begin(self, verb: str, path: str, parameters: Mapping[str, Any]) -> Deferred[Any]:
        tls = "s" if self._url.tls else ""
        where = f"http{tls}://{self._url.netloc}{self._url.below}{path}"
        given = {"params": parameters} if verb == "GET" else {"json": dict(parameters)}
        # The token is for this place only.
        begun: Deferred[Any] = self._client.request(
            verb, where, headers=self._headers, allow_redirects=False, unbuffered=True, **given
        )
        return begun

    def _got(self, response: Any) -> Deferred[Got]:
        pieces: list[bytes] = []
        room = LARGEST

        def told(data: bytes) -> None:
            nonlocal room
            room -= len(data)
            if room < 0:
                raise ServiceGone(self.sentence(f"{NOT_OURS}: its answer does not end"))
            pieces.append(data)

        body = _Body(told, None)
        response.deliverBody(body)
        (leads,) = response.headers.getRawHeaders("Location", [""])[:1]
        phrase = response.phrase.decode("latin-1")
        return body.over.addCallback(lambda _: Got(response.code, phrase, leads, b"".join(pieces)))

    def sentence(self, why: str) -> str:
        """What is said when it is not what was expected there."""
        return (
            f"{self._url.text}: {why}; is the service running, and is this its key http? "
            "Give --url URL, or set CHANPROXY_URL"
        )

    def _failed(self, failure: Failure) -> Any:
        """@raise ServiceGone: with a sentence, whatever it was."""
        causes = list(_causes(failure.value))
        if any(isinstance(each, ServiceGone) for each in causes):
            return failure
        for each in causes:
            if isinstance(each, (SSL.Error, VerificationError)):
                raise ServiceGone(f"{self._url.text}: {_tls(each)}") from each
        for kind, why in _WHY:
            for each in causes:
                if isinstance(each, kind):
                    text = self.sentence(_reason(each) or why)
                    if self._url.tls and why is SILENT:
                        text = f"{self._url.text}: {why}; if it speaks no TLS, write http://"
                    raise ServiceGone(text) from each
        return failure


SILENT = "the service does not answer"

_WHY: tuple[tuple[Any, str], ...] = (
    (DNSLookupError, "there is no host of that name"),
    ((TimeoutError, CancelledError, ConnectingCancelledError, UserError), SILENT),
    (ParseError, NOT_OURS),
    (ConnectError, "nobody can be reached there"),
    ((ConnectionClosed, ResponseFailed), "the service has gone or was restarted"),
)
"""What is said of an error; of several, what comes first."""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    if error is not None:
        yield error
    for reason in getattr(error, "reasons", ()):
        yield from _causes(reason.value)


def _reason(error: BaseException) -> str:
    """What the system says of it."""
    number = getattr(error, "osError", None)
    return os.strerror(number) if isinstance(number, int) else ""


def _tls(error: BaseException) -> str:
    if isinstance(error, VerificationError):
        return "its certificate is for another name; write the one that is in it"
    words = ", ".join(str(each[-1]) for each in (error.args[0] if error.args else ()))
    if "certificate" in words:
        return (
            f"its certificate is not trusted here ({words}); "
            "have SSL_CERT_FILE name that of its authority"
        )
    return f"it speaks no TLS that is known here ({words}); if it speaks none, write http://"
