"""
Engine: Docker's API, which Podman's service speaks as well, over HTTP by treq.

One for each address, however many containers are followed.  Its stream of events comes first, then
each is asked after; and again, after any event of it.  While the engine is away, what is known
stays.
Knows nothing of cgroups.  Loaded only with a container of an engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote
from weakref import WeakKeyDictionary

import treq
import treq.client
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from chanproxy.freezers.runtimes.hosts import Host
from chanproxy.interfaces import ChanproxyReactor

AWAY = (0.1, 5.0)
"""Seconds until the next try to reach an engine: at first, and at the most."""

PATIENCE = 10.0
"""Seconds for an answer; a container that starts keeps its engine from answering for 0.2."""

LONGEST = 1 << 20
"""Bytes of an event, or of a container's description; those are of some kilobytes."""


@frozen
class Found:
    """
    What an engine says of a container.

    @ivar id: of 64 hexadecimal digits.
    @ivar running: it has processes, paused or not.
    """

    id: str
    running: bool


class Follower(Protocol):
    """Who is told of one container."""

    def found(self, what: Found | None, why: str) -> None:
        """What it is now; None: there is none, or it is not known, and why."""

    def happens(self, action: str) -> None:
        """Of an event: C{exec_create}, C{kill}, C{start}."""


@define(eq=False)
class _Followed:
    name: str
    follower: Follower
    id: str = ""
    asking: Deferred[None] | None = None
    again: bool = False
    call: IDelayedCall | None = None


@implementer(IAgentEndpointFactory)
@frozen
class _There:
    """Leads all requests to one place."""

    reactor: Any
    host: Host

    def endpointForURI(self, uri: Any) -> Any:
        host = self.host
        if host.path:
            return UNIXClientEndpoint(self.reactor, host.path, PATIENCE)
        endpoint = HostnameEndpoint(self.reactor, host.host, host.port, PATIENCE)
        return wrapClientTLS(_options(host), endpoint) if host.certificates else endpoint


def _options(host: Host) -> Any:
    """Who we are, and whom we believe."""
    from twisted.internet.ssl import (
        Certificate,
        PrivateCertificate,
        optionsForClientTLS,
        trustRootFromCertificates,
    )

    def read(*names: str) -> bytes:
        texts = []
        for name in names:
            with open(os.path.join(host.certificates, name), "rb") as file:
                texts.append(file.read())
        return b"\n".join(texts)

    return optionsForClientTLS(
        host.host,
        trustRootFromCertificates([Certificate.loadPEM(read("ca.pem"))]),
        PrivateCertificate.loadPEM(read("key.pem", "cert.pem")),
    )


@define(eq=False)
class Engine:
    """One engine."""

    _reactor: ChanproxyReactor
    _host: Host
    _followed: list[_Followed] = field(factory=list)
    _stream: Deferred[Any] | None = None
    _call: IDelayedCall | None = None
    _connected: bool = False
    _delay: float = AWAY[0]
    _logged: str = ""
    _rest: bytes = b""

    _log = Logger()

    def follow(self, name: str, follower: Follower) -> Callable[[], None]:
        """
        Tell of a container from now on.

        @param name: its name, or an id.
        @return: to be called when it is to tell no more; idempotent.
        """
        followed = _Followed(name, follower)
        self._followed.append(followed)
        if self._connected:
            self._ask(followed)
        elif self._stream is None and self._call is None:
            self._connect()

        def leave() -> None:
            if followed in self._followed:
                self._followed.remove(followed)
                self._forget(followed)
                if not self._followed:
                    self._disconnect()

        return leave

    def _client(self) -> Any:
        # Kept connections would outlive whoever is served, in delayed calls.
        pool = HTTPConnectionPool(self._reactor, persistent=False)
        where = _There(self._reactor, self._host)
        return treq.client.HTTPClient(Agent.usingEndpointFactory(self._reactor, where, pool))

    def _get(self, path: str, **more: Any) -> Any:
        url = f"http://engine{path}"
        return self._client().get(url, reactor=self._reactor, **more)

    # Its events.

    def _connect(self) -> None:
        self._call = None
        self._rest = b""
        filters = quote(json.dumps({"type": ["container"]}))
        self._stream = stream = self._get(f"/events?filters={filters}", unbuffered=True)
        stream.addCallback(self._listen)
        stream.addBoth(self._ended, stream)

    def _listen(self, response: Any) -> Any:
        if response.code != 200:
            raise EngineError(f"it answers {response.code} when asked for its events")
        self._connected = True
        self._logged = ""
        self._delay = AWAY[0]
        for followed in list(self._followed):
            self._ask(followed)
        return response.collect(self._heard)

    def _ended(self, result: object, stream: Deferred[Any]) -> None:
        if self._stream is not stream:
            # It was left.
            return
        self._stream = None
        was, self._connected = self._connected, False
        failure = result if isinstance(result, Failure) else None
        why = "it has ended" if was else _reason(failure)
        if why != self._logged:
            # Once, however often it is tried.
            self._logged = why
            self._log.info("{host} is not there: {why}; tried again", host=self._host, why=why)
        if not was:
            unasked = f"its engine at {self._host} cannot be asked: {why}"
            for followed in list(self._followed):
                if not followed.id:
                    followed.follower.found(None, unasked)
        self._call = self._reactor.callLater(self._delay, self._connect)
        self._delay = min(self._delay * 2, AWAY[1])

    def _disconnect(self) -> None:
        self._connected = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()

    def _heard(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            raise EngineError("an event is longer than a megabyte")
        for line in lines:
            if line.strip():
                self._event(json.loads(line))

    def _event(self, event: Any) -> None:
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        names = {str(attributes.get(each, "")).lstrip("/") for each in ("name", "oldName")}
        # C{exec_create: COMMAND} of Docker.
        action = str(event.get("Action") or event.get("status") or "").partition(":")[0]
        for followed in list(self._followed):
            ours = followed.id and followed.id == actor.get("ID")
            if not ours and followed.name not in names:
                continue
            if ours:
                followed.follower.happens(action)
            if followed in self._followed and not action.startswith("exec_"):
                self._ask(followed)

    # One container.

    def _ask(self, followed: _Followed) -> None:
        """After whatever is known of it by now; one question at a time."""
        if followed.asking is not None:
            followed.again = True
            return
        if followed.call is not None:
            followed.call.cancel()
            followed.call = None
        name = quote(followed.name, safe="")
        asking = self._get(f"/containers/{name}/json", timeout=PATIENCE)
        followed.asking = asking
        asking.addCallback(self._answered)
        asking.addCallbacks(
            self._told, self._failed, callbackArgs=[followed], errbackArgs=[followed]
        )
        asking.addErrback(lambda failure: self._log.failure("an engine's answer", failure))

    @staticmethod
    def _answered(response: Any) -> Any:
        def parsed(body: bytes) -> Found | None:
            if response.code == 404 or (response.code == 500 and b"no such container" in body):
                # The second is Podman's, for one that goes just now.
                return None
            if response.code != 200:
                raise EngineError(
                    f"it answers {response.code}: {body[:200].decode(errors='replace')}"
                )
            return _parsed(json.loads(body))

        return treq.content(response).addCallback(parsed)

    def _told(self, found: Found | None, followed: _Followed) -> None:
        followed.asking = None
        if followed not in self._followed:
            return
        followed.id = "" if found is None else found.id
        if followed.again:
            followed.again = False
            self._ask(followed)
            return
        followed.follower.found(found, "there is no such container" if found is None else "")

    def _failed(self, failure: Failure, followed: _Followed) -> None:
        followed.asking = None
        if followed not in self._followed:
            return
        followed.again = False
        self._log.info(
            "{name} cannot be asked after at {host}: {why}",
            name=followed.name,
            host=self._host,
            why=_reason(failure),
        )
        followed.call = self._reactor.callLater(AWAY[1], self._askAgain, followed)

    def _askAgain(self, followed: _Followed) -> None:
        followed.call = None
        self._ask(followed)

    def _forget(self, followed: _Followed) -> None:
        if followed.call is not None:
            followed.call.cancel()
            followed.call = None
        if followed.asking is not None:
            followed.asking.cancel()


class EngineError(Exception):
    """An engine does not answer as it should; the text says how."""


def _parsed(described: Any) -> Found:
    state = described.get("State") or {}
    return Found(str(described["Id"]), bool(state.get("Running") or state.get("Paused")))


def _reason(failure: Failure | None) -> str:
    """Of a request that failed; Twisted keeps it inside."""
    if failure is None:
        return "it has ended"
    reasons = getattr(failure.value, "reasons", None)
    inner = reasons[0] if reasons else failure
    return str(inner.getErrorMessage()) or type(inner.value).__name__


_engines: WeakKeyDictionary[Any, dict[Host, Engine]] = WeakKeyDictionary()


def engineAt(reactor: ChanproxyReactor, host: Host) -> Engine:
    """The engine of an address: one for all who follow something there."""
    return _engines.setdefault(reactor, {}).setdefault(host, Engine(reactor, host))
