"""
Discovering: containers that have a label are run for as long as they have it.

Knows engines by what they list, and a service by what can be added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import config
from chanproxy.config import ConfigurationError, StartError
from chanproxy.config.labels import ENABLE, containerOf, isEnabled
from chanproxy.container import Container
from chanproxy.freezers.runtimes.composed import inOrder
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.words import safe

if TYPE_CHECKING:
    from chanproxy.freezers.runtimes.listed import Listed, Listing


class IService(Protocol):
    """What containers are added to."""

    @property
    def containers(self) -> Mapping[str, Container]: ...
    def addContainer(self, container: config.Container) -> Container: ...
    def removeContainer(self, name: str) -> Deferred[object]: ...


@frozen
class LeftAlone:
    """
    A container that says by its labels that it wants to sleep, and does so wrongly.

    @ivar engine: whose it is.
    @ivar why: what is wrong.
    @ivar labels: all of them.
    """

    name: str
    engine: str
    why: str
    labels: Mapping[str, str]


class Discovering:
    """Those of one engine."""

    _log = Logger()

    def __init__(
        self, reactor: ChanproxyReactor, table: config.Discovery, service: IService
    ) -> None:
        self._reactor = reactor
        self._table = table
        self._service = service
        self._listing: Listing | None = None
        self._has: dict[str, tuple[Mapping[str, str], Container]] = {}
        self._refused: dict[str, LeftAlone] = {}
        self._leaving = 0

    def start(self) -> None:
        """Look from now on; L{whyNotAsked} has found nothing."""
        from chanproxy.freezers.runtimes.listed import listing

        label = f"{self._table.prefix}.{ENABLE}"
        self._listing = listing(self._table.name, label, self._told, self._reactor)

    @property
    def leftAlone(self) -> Sequence[LeftAlone]:
        """Those that have the label, and are not run."""
        return list(self._refused.values())

    def stop(self) -> None:
        """Look no more; what runs is the service's to stop.  Idempotent."""
        listing, self._listing = self._listing, None
        if listing is not None:
            listing.end()
        self._has.clear()
        self._refused.clear()

    def _told(self, found: Sequence[Listed]) -> None:
        listed = {each.name: each.labels for each in found}
        for name in self._refused.keys() - listed:
            del self._refused[name]
        for name, (labels, container) in list(self._has.items()):
            if listed.get(name) != labels:
                self._remove(name, container)
        # Where one listens that goes, one that comes may want to.
        if not self._leaving:
            for each in inOrder(found, lambda each: each.labels):
                self._look(each.name, each.labels)

    def _remove(self, name: str, container: Container) -> None:
        del self._has[name]
        if self._service.containers.get(name) is not container:
            return
        self._log.info("{name}: leaves, as {kind} says", name=name, kind=self._table.name)
        self._leaving += 1
        self._service.removeContainer(name).addBoth(self._hasLeft)

    def _hasLeft(self, result: object) -> None:
        if isinstance(result, Failure):
            self._log.failure("not removed", result)
        self._leaving -= 1
        # It may be another one's by now, after a stop.
        if self._listing is not None:
            self._listing.again()

    def _look(self, name: str, labels: Mapping[str, str]) -> None:
        if name in self._has:
            return
        kind, prefix = self._table.name, self._table.prefix
        try:
            if not isEnabled(labels, prefix):
                self._refused.pop(name, None)
                return
            table = containerOf(self._table, name, labels)
            container = self._service.addContainer(table)
        except (ConfigurationError, StartError) as error:
            self._refuse(name, labels, "; ".join(map(str, error.problems)))
        except Exception as error:
            # Others are not left alone for it.
            self._refuse(name, labels, repr(error))
        else:
            self._refused.pop(name, None)
            self._has[name] = labels, container
            self._log.info("{name}: comes, as {kind} says", name=name, kind=kind)

    def _refuse(self, name: str, labels: Mapping[str, str], why: str) -> None:
        before = self._refused.get(name)
        self._refused[name] = refused = LeftAlone(name, self._table.name, why, labels)
        if before != refused:
            # Once, however often it is listed.
            self._log.error(
                "{name} of {kind} is left alone: {why}",
                name=name,
                kind=self._table.name,
                why=safe(why),
            )
