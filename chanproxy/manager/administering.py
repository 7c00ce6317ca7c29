"""
Administering: the part of L{chanproxy.manager.client.ManagerClient} that is about the service
itself: which containers it runs, its configuration, and its traces.

For who may stop the service anyway; knows no connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from chanproxy.words import meant


class Administering(ABC):
    """The calls for root, and for the user that the service runs as."""

    @abstractmethod
    def _plain(
        self, method: str, parameters: Mapping[str, Any], descriptors: Sequence[int] = ()
    ) -> Deferred[Mapping[str, Any]]:
        """A call whose answer has no descriptors."""

    def addContainer(
        self,
        name: str,
        freezer: str,
        channels: Mapping[str, Mapping[str, Any]] | None = None,
        lifetime: str = "service",
        **keys: Any,
    ) -> Deferred[Mapping[str, Any]]:
        """
        Have the service run one more container.

        @param channels: by name, each with the keys of the configuration.
        @param keys: other keys of the container, as in the configuration but for their spelling:
            C{maxAsleep} for C{max-asleep}.
        @raise TypeError: there is no such key.
        """
        parameters = {_parameter(each): value for each, value in keys.items()}
        parameters |= {"name": name, "freezer": freezer, "channels": channels}
        return self._plain("AddContainer", {**parameters, "lifetime": lifetime})

    def removeContainer(self, name: str) -> Deferred[Mapping[str, Any]]:
        """Have a container that was added thawed and forgotten."""
        return self._plain("RemoveContainer", {"name": name})

    def setContainer(
        self, name: str, back: Sequence[str] = (), **keys: Any
    ) -> Deferred[Mapping[str, Any]]:
        """
        Change keys of a container that runs; C{changed} says which, until the next reload.

        @param back: keys that are to be again as they are written, spelled as the others.
        @param keys: see L{addContainer}.
        @raise TypeError: there is no such key.
        """
        parameters = {_parameter(each): value for each, value in keys.items()}
        again = [_parameter(each) for each in back]
        return self._plain("SetContainer", {**parameters, "name": name, "back": again or None})

    def reload(self) -> Deferred[Mapping[str, Any]]:
        """Have it read its file again: C{added}, C{removed}, C{changed}, C{applied}, C{restart}."""
        return self._plain("Reload", {})

    def startTrace(self, descriptor: int, format: str = "json") -> Deferred[Mapping[str, Any]]:
        """
        Have the service trace, until L{stopTrace} or until this client is closed.

        @param descriptor: a regular file, opened for writing.
        @param format: C{json} or C{perfetto}.
        """
        return self._plain("StartTrace", {"format": format}, [descriptor])

    def stopTrace(self) -> Deferred[Mapping[str, Any]]:
        """End the trace; C{events}, C{bytes}, and whether it is C{complete}."""
        return self._plain("StopTrace", {})


def _parameter(attribute: str) -> str:
    """What a key of a container's is called in a call."""
    # Only this call has to do with the configuration, which is half of the package.
    from chanproxy.config.containers import ALL
    from chanproxy.config.keys import hyphened

    name = hyphened(attribute)
    known = {key.name: key for key in ALL}
    if name not in known:
        raise TypeError(f"a container has no key {name}; {meant(name, known)}")
    return known[name].parameter
