"""
Followed: one container of an engine, by its name, whatever becomes of it.

Events come first, then it is asked after; and again, after any event of it.  While the engine is
away, what is known stays.  Knows nothing of cgroups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import quote

from attrs import frozen

from chanproxy.freezers.runtimes.asked import Asked
from chanproxy.freezers.runtimes.engine import Answer, Engine, EngineError, Event, filtered

NONE = "there is no such container"
"""What is said then."""


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


class _Followed:
    def __init__(self, engine: Engine, name: str, follower: Follower) -> None:
        self._name = name
        self._follower = follower
        self._id = ""
        self._asked = Asked(engine, name, pathOf(name), described, self._told)
        self._leave = engine.watch(self)

    def leave(self) -> None:
        self._asked.end()
        self._leave()

    def connected(self) -> None:
        """See L{Watcher}."""
        self._asked.ask()

    def away(self, why: str) -> None:
        """See L{Watcher}."""
        if not self._id:
            self._follower.found(None, why)

    def happens(self, event: Event) -> None:
        """See L{Watcher}."""
        ours = bool(self._id) and self._id == event.id
        if ours:
            self._follower.happens(event.action)
        if (ours or self._name in event.names) and not event.action.startswith("exec_"):
            self._asked.happened()

    def _told(self, container: Any) -> None:
        if container is None:
            self._id = ""
            self._follower.found(None, NONE)
        else:
            found = Found(str(container["Id"]), isRunning(container))
            self._id = found.id
            self._follower.found(found, "")


def follow(engine: Engine, name: str, follower: Follower) -> Callable[[], None]:
    """
    Tell of a container from now on.

    @param name: its name, or an id.
    @return: to be called when it is to tell no more; idempotent.
    """
    return _Followed(engine, name, follower).leave


def pathOf(name: str) -> str:
    """Where a container is described."""
    return f"/containers/{quote(name, safe='')}/json"


def pathOfAll(*labels: str) -> str:
    """Where all containers are listed that have some labels, running or not."""
    return f"/containers/json?all=true&{filtered('label', *labels)}"


def described(answer: Answer) -> Any:
    """
    How a container is described; None: there is none.

    @raise EngineError: it is not known.
    """
    if answer.code == 404 or (answer.code == 500 and b"no such container" in answer.body):
        # The second is Podman's, for one that goes just now.
        return None
    container = answer.parsed()
    if not isinstance(container, dict) or not isinstance(container.get("Id"), str):
        raise EngineError("it describes a container without an Id")
    if not isinstance(container.get("State", {}), dict):
        raise EngineError("it describes a container without a State")
    return container


async def describe(engine: Engine, name: str) -> Any:
    """
    How a container is described that has to be there.

    @raise EngineError: there is none, or it is not known.
    """
    container = described(await engine.askPlainly(pathOf(name)))
    if container is None:
        raise EngineError(NONE)
    return container


def isRunning(container: Any) -> bool:
    """Whether one has processes, of its description."""
    state = container.get("State", {})
    return bool(state.get("Running") or state.get("Paused"))
