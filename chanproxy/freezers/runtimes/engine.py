"""
Engine: Docker's API, which Podman's service speaks as well, over HTTP by treq.

One for each address, however many follow something there.  It is connected while somebody does, by
its stream of events; and again, when that has ended.
Knows neither containers nor cgroups.  Loaded only with a container of an engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary

import treq.client
from attrs import define, field, frozen
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone

from chanproxy.freezers.runtimes.hosts import Host
from chanproxy.freezers.runtimes.there import PATIENCE, There
from chanproxy.interfaces import ChanproxyReactor

AWAY = (0.1, 5.0)
"""Seconds until the next try to reach an engine: at first, and at the most."""

STEADY = 5.0
"""Seconds after which an engine that tells of events is one that is there."""

LONGEST = 16 << 20
"""Bytes of an event, or of an answer; a container is described in some kilobytes."""


class EngineError(Exception):
    """An engine does not answer as it should; the text says how."""


@frozen
class Event:
    """
    What has happened to a container.

    @ivar action: C{exec_create}, C{kill}, C{start}.
    @ivar id: the container's, of 64 hexadecimal digits.
    @ivar names: what it is called, and was called before, if that has changed.
    """

    action: str
    id: str
    names: frozenset[str]


class Watcher(Protocol):
    """Who follows an engine."""

    def connected(self) -> None:
        """Events come from now on; what has been before is to be asked for."""

    def away(self, why: str) -> None:
        """It cannot be reached now; tried again."""

    def happens(self, event: Event) -> None:
        """To any container."""


@frozen
class Answer:
    """What is said to a request."""

    code: int
    body: bytes

    def parsed(self) -> Any:
        """
        What it holds.

        @raise EngineError: it is no good news.
        """
        if self.code >= 300:
            text = self.body[:200].decode(errors="replace").strip()
            raise EngineError(f"it answers {self.code}: {text}")
        try:
            return json.loads(self.body) if self.body.strip() else None
        except ValueError as error:
            raise EngineError(f"it answers what is no JSON: {error}") from error


class _Body(protocol.Protocol):
    """What an engine sends, until that has ended, or somebody does not want it any more."""

    def __init__(self, heard: Callable[[bytes], object]) -> None:
        self._heard = heard
        self.done: Deferred[None] = Deferred(lambda _: self._end())

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """See L{protocol.Protocol}."""
        try:
            self._heard(data)
        except Exception:
            self._end()
            if not self.done.called:
                self.done.errback(Failure())

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """See L{protocol.Protocol}."""
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(None)
        else:
            self.done.errback(reason)


class _Lines:
    """Pieces of a stream, line by line."""

    def __init__(self, heard: Callable[[bytes], object]) -> None:
        self._heard = heard
        self._rest = b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            raise EngineError(f"a line is longer than {LONGEST} bytes")
        for line in lines:
            if line.strip():
                self._heard(line)


@define(eq=False)
class Engine:
    """
    One engine.

    @ivar reactor: where it is asked.
    @ivar host: where it listens.
    """

    reactor: ChanproxyReactor
    host: Host
    _watchers: list[Watcher] = field(factory=list)
    _stream: Deferred[Any] | None = None
    _call: IDelayedCall | None = None
    _connected: bool = False
    _since: float = 0.0
    _delay: float = 0.0
    _logged: str = ""

    _log = Logger()

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """
        Tell of its containers from now on.

        @return: to be called when it is to tell no more; idempotent.
        """
        self._watchers.append(watcher)
        if self._connected:
            watcher.connected()
        elif self._stream is None and self._call is None:
            self._connect()

        def leave() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
                if not self._watchers:
                    self._disconnect()

        return leave

    def ask(
        self, path: str, method: str = "GET", patience: float | None = PATIENCE
    ) -> Deferred[Answer]:
        """
        Ask it something.

        @param path: with the query.
        @param patience: seconds; None: as long as it takes.
        @return: fails when it does not answer in time; L{reasonOf} says why.  Cancellable.
        """
        asking = self._request(method, path).addErrback(_cancelled).addCallback(_whole)
        if patience is not None:
            # For all of it: an answer may end in its middle.
            asking.addTimeout(patience, self.reactor)
        return cast("Deferred[Answer]", asking)

    async def askPlainly(
        self, path: str, method: str = "GET", patience: float | None = PATIENCE
    ) -> Answer:
        """
        Likewise, for those who are told in words why it does not answer.

        @raise EngineError: it does not.
        """
        try:
            return await self.ask(path, method, patience)
        except CancelledError:
            raise
        except Exception as error:
            raise EngineError(self._unasked(reasonOf(Failure(error)))) from error

    def _unasked(self, why: str) -> str:
        return f"its engine at {self.host} cannot be asked: {why}"

    @property
    def connected(self) -> bool:
        """Whether it is there, as far as its events tell."""
        return self._connected

    def _request(self, method: str, path: str, **more: Any) -> Any:
        # What cannot even be tried, as without a certificate, fails as well.
        return maybeDeferred(self._requested, method, path, **more)

    def _requested(self, method: str, path: str, **more: Any) -> Any:
        # Kept connections would outlive whoever is served, in delayed calls.
        reactor: Any = self.reactor
        pool = HTTPConnectionPool(reactor, persistent=False)
        where = There(reactor, self.host)
        client = treq.client.HTTPClient(Agent.usingEndpointFactory(reactor, where, pool))
        url = f"http://engine{path}"
        # What is kept of an answer is ours to say.
        return client.request(method, url, reactor=reactor, unbuffered=True, **more)

    # Its events.

    def _connect(self) -> None:
        self._call = None
        path = f"/events?{filtered('type', 'container')}"
        self._stream = stream = self._request("GET", path, timeout=PATIENCE)
        stream.addCallback(self._listen)
        stream.addBoth(self._ended, stream)

    def _listen(self, response: Any) -> Any:
        if response.code != 200:
            return _whole(response).addCallback(Answer.parsed)
        self._connected = True
        self._since = self.reactor.seconds()
        for watcher in list(self._watchers):
            watcher.connected()
        return _collect(response, _Lines(self._heard).take)

    def _ended(self, result: object, stream: Deferred[Any]) -> None:
        if self._stream is not stream:
            # It was left.
            return
        self._stream = None
        was, self._connected = self._connected, False
        if was and self.reactor.seconds() - self._since >= STEADY:
            self._delay, self._logged = 0.0, ""
        failure = result if isinstance(result, Failure) else None
        wrong = failure is not None and failure.check(EngineError)
        why = "it has ended" if was and not wrong else reasonOf(failure)
        if why != self._logged:
            # Once, however often it is tried.
            self._logged = why
            self._log.info("{host} is not there: {why}; tried again", host=self.host, why=why)
        if not was:
            for watcher in list(self._watchers):
                watcher.away(self._unasked(why))
        if self._watchers:
            self._delay = min(max(self._delay * 2, AWAY[0]), AWAY[1])
            self._call = self.reactor.callLater(self._delay, self._connect)

    def _disconnect(self) -> None:
        self._connected = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def _heard(self, line: bytes) -> None:
        try:
            event = _event(json.loads(line))
        except (ValueError, TypeError, AttributeError) as error:
            raise EngineError(f"it tells what is no event: {error}") from error
        for watcher in list(self._watchers):
            if watcher in self._watchers:
                watcher.happens(event)


def filtered(name: str, *values: str) -> str:
    """The part of a query by which an engine says only what has all of these."""
    return f"filters={quote(json.dumps({name: values}))}"


def _event(told: Any) -> Event:
    actor = told.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    names = (str(attributes.get(each, "")).lstrip("/") for each in ("name", "oldName"))
    # C{exec_create: COMMAND} of Docker.
    action = str(told.get("Action") or told.get("status") or "").partition(":")[0]
    return Event(action, str(actor.get("ID", "")), frozenset(filter(None, names)))


def _collect(response: Any, heard: Callable[[bytes], object]) -> Deferred[None]:
    body = _Body(heard)
    response.deliverBody(body)
    return body.done


def _whole(response: Any) -> Deferred[Answer]:
    """All that is answered."""
    body = bytearray()

    def heard(data: bytes) -> None:
        body.extend(data)
        if len(body) > LONGEST:
            raise EngineError(f"it answers with more than {LONGEST} bytes")

    done = _collect(response, heard)
    return done.addCallback(lambda _: Answer(response.code, bytes(body)))


def _cancelled(failure: Failure) -> Failure:
    """A request that was cancelled says so, and not what became of its connection by that."""
    reasons = getattr(failure.value, "reasons", None) or [failure]
    return Failure(CancelledError()) if reasons[0].check(CancelledError) else failure


def reasonOf(failure: Failure | None) -> str:
    """Why a request has failed; Twisted keeps it inside."""
    if failure is None:
        return "it has ended"
    if failure.check(TimeoutError):
        return "it does not answer in time"
    reasons = getattr(failure.value, "reasons", None)
    inner = reasons[0] if reasons else failure
    return str(inner.getErrorMessage()) or type(inner.value).__name__


_engines: WeakKeyDictionary[Any, dict[Host, Engine]] = WeakKeyDictionary()


def engineAt(reactor: ChanproxyReactor, host: Host) -> Engine:
    """The engine of an address: one for all who follow something there."""
    return _engines.setdefault(reactor, {}).setdefault(host, Engine(reactor, host))
