"""
Containers of an engine, Docker or Podman, by their names.

Knows engines by what they say, and cgroups by their names.  Loaded only with such a container.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.freezers.runtimes.hosts import Host
from chanproxy.freezers.runtimes.places import byName, expectAlone
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.interfaces.locators import IFollower, IStartingLocator, Location

if TYPE_CHECKING:
    from chanproxy.freezers.runtimes.engine import Engine
    from chanproxy.freezers.runtimes.followed import Found

NEEDS = frozenset({"exec_create", "exec_start", "kill", "stop", "attach", "restart", "resize"})
"""
Events of what a container has to run for.  Docker tells of the first 20 ms before its runtime looks
whether the container is frozen.
"""

_BLOCKING = 5.0
"""Seconds for an answer where nobody but us waits."""

_ALONE = "start it with --cgroup-parent=/SOME/OWN"


@implementer(IStartingLocator)
class EngineLocator:
    """One container, which may come and go under its name."""

    mayWait = True

    def __init__(self, kind: str, name: str, host: Host, reactor: ChanproxyReactor) -> None:
        """@param kind: C{docker} or C{podman}, as the configuration has it."""
        self.spec = f"{kind}:{name}"
        self._kind = kind
        self._name = name
        self._host = host
        self._reactor = reactor
        self._follower: IFollower | None = None
        self._leave: Callable[[], None] = lambda: None

    def check(self) -> None:
        """See L{ILocator.check}."""
        try:
            from chanproxy.freezers.runtimes import followed  # noqa: F401
        except ImportError as error:
            raise FreezerError(
                f"{self.spec}: needs treq ({error}); install it with "
                "pip install 'chanproxy[runtimes]'"
            ) from error

    def follow(self, follower: IFollower) -> None:
        """See L{ILocator.follow}."""
        from chanproxy.freezers.runtimes.engine import engineAt
        from chanproxy.freezers.runtimes.followed import follow

        self._follower = follower
        self._leave = follow(engineAt(self._reactor, self._host), self._name, self)

    def leave(self) -> None:
        """See L{ILocator.leave}."""
        self._follower = None
        self._leave()

    def found(self, what: Found | None, why: str) -> None:
        """What the engine says of it now."""
        if self._follower is not None:
            self._follower.moved(self._located(what, why))

    def happens(self, action: str) -> None:
        """An event of it."""
        if self._follower is not None and action in NEEDS:
            self._follower.expected(f"{self._kind} {action.partition('_')[0]}")

    def _located(self, what: Found | None, why: str) -> Location:
        if what is None:
            return Location(why=why)
        if not what.running:
            return Location(why="is not running")
        return self._at(what.id)

    def _at(self, identity: str) -> Location:
        try:
            cgroup = byName(lambda name: identity in name)
            if cgroup:
                expectAlone(cgroup, _ALONE)
        except FreezerError as error:
            return Location(why=str(error))
        if not cgroup:
            return Location(why=f"has no cgroup of its own that is seen from here; {_ALONE}")
        return Location(cgroup, "")

    def start(self) -> Deferred[None]:
        """See L{IStartingLocator.start}."""
        from chanproxy.freezers.runtimes import starting

        return self._done(starting.start)

    def stop(self) -> Deferred[None]:
        """See L{IStartingLocator.stop}."""
        from chanproxy.freezers.runtimes import starting

        return self._done(starting.stop)

    def _done(self, what: Callable[[Engine, str], Coroutine[Any, Any, None]]) -> Deferred[None]:
        from chanproxy.freezers.runtimes.engine import EngineError, engineAt

        def explained(failure: Failure) -> None:
            failure.trap(EngineError)
            raise FreezerError(f"{self.spec}: {failure.getErrorMessage()}")

        engine = engineAt(self._reactor, self._host)
        return Deferred.fromCoroutine(what(engine, self._name)).addErrback(explained)

    def locate(self) -> Location:
        """See L{ILocator.locate}."""
        try:
            status, body = _asked(self._host, f"/containers/{quote(self._name, safe='')}/json")
            if status == 404:
                return Location(why="there is no such container")
            described = json.loads(body)
            return self._at(described["Id"])
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise FreezerError(
                f"{self.spec}: its engine at {self._host} cannot be asked: {error}"
            ) from error


class _Connection(http.client.HTTPConnection):
    """To wherever an engine listens."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.host or "engine", host.port or None, timeout=_BLOCKING)
        self._path = host.path

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_BLOCKING)
        self.sock.connect(self._path)


def _asked(host: Host, path: str) -> tuple[int, bytes]:
    if host.certificates:
        raise OSError("not without a reactor, over TLS")
    connection = _Connection(host)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
