"""
Listed: all containers of an engine that have a label.

They are asked for when the engine is connected, and after each event by which there may be others.
Loaded only where containers are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from chanproxy.freezers.runtimes.asked import Asked
from chanproxy.freezers.runtimes.engine import Answer, Engine, EngineError, Event, engineAt
from chanproxy.freezers.runtimes.followed import pathOfAll
from chanproxy.freezers.runtimes.hosts import hostOf
from chanproxy.interfaces import ChanproxyReactor

CHANGES = frozenset({"create", "init", "start", "rename", "destroy", "remove"})
"""Events after which there may be others; C{init} and C{remove} are Podman's."""

_PASSING = re.compile(r"[0-9a-f]{12}_.+")
"""What Compose calls one that it is about to replace, or to put in the place of another."""


@frozen
class Listed:
    """A container, running or not."""

    name: str
    labels: Mapping[str, str]


class Listing:
    """
    Those of one engine.

    Nothing is told while it is away.
    """

    def __init__(
        self, engine: Engine, label: str, told: Callable[[Sequence[Listed]], None]
    ) -> None:
        """
        @param label: those that have it, whatever its value is.
        @param told: called with all of them, again and again, also when none has changed.
        """
        name = f"containers with {label}"
        self._asked = Asked(engine, name, pathOfAll(label), _parsed, told)
        self._leave = engine.watch(self)

    def again(self) -> None:
        """Tell once more."""
        self._asked.ask()

    def end(self) -> None:
        """Tell no more.  Idempotent."""
        self._asked.end()
        self._leave()

    def connected(self) -> None:
        """See L{Watcher}."""
        self._asked.ask()

    def away(self, why: str) -> None:
        """See L{Watcher}: the engine says so itself."""

    def happens(self, event: Event) -> None:
        """See L{Watcher}."""
        if event.action in CHANGES:
            self._asked.happened()


def _parsed(answer: Answer) -> Sequence[Listed]:
    try:
        containers = [_container(each) for each in answer.parsed() or ()]
    except (TypeError, AttributeError, ValueError) as error:
        raise EngineError(f"it lists what is no container: {error}") from error
    return [each for each in containers if not _PASSING.fullmatch(each.name)]


def _container(listed: Mapping[str, object]) -> Listed:
    names, labels = listed.get("Names"), listed.get("Labels") or {}
    if not isinstance(names, list) or not isinstance(labels, dict):
        raise TypeError("it has no names, or no labels")
    # Links of old give others more of them: C{/web/db}.
    name = min((str(each).strip("/") for each in names), key=lambda each: each.count("/"))
    return Listed(name, {str(k): str(v) for k, v in labels.items()})


def listing(
    kind: str, label: str, told: Callable[[Sequence[Listed]], None], reactor: ChanproxyReactor
) -> Listing:
    """
    Follow the engine of a kind.

    @raise Wrong: it listens at nothing that can be used.
    """
    return Listing(engineAt(reactor, hostOf(kind)), label, told)
