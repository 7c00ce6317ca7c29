"""
Fleet: the containers that run, and what listens for them; each is started and stopped by itself.

Knows tables of a configuration, and not the file; nothing of the manager.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from chanproxy import config
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.config import Problem
from chanproxy.config.changes import Piece, piecesOf
from chanproxy.config.setting import settings
from chanproxy.config.tables import join
from chanproxy.config.together import whyNotApart
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.freezers import Breadth, makeFreezer
from chanproxy.freezers.guarding import Guard
from chanproxy.interfaces import (
    ChanproxyReactor,
    FreezerError,
    IFreezer,
    ILocatedFreezer,
)
from chanproxy.kernel import descriptors
from chanproxy.service.groups import Groups
from chanproxy.service.guestport import GuestPort
from chanproxy.service.listener import ChannelListener
from chanproxy.service.ondemand import Demands
from chanproxy.service.preflight import placeOf, whyFailed
from chanproxy.service.startable import CannotStart
from chanproxy.service.summary import Summary
from chanproxy.wake.history.figures import Tally
from chanproxy.wake.source import WakeSourceError
from chanproxy.words import safe


def _bounds(container: config.Container, limits: config.Limits) -> Bounds:
    """What limits a container, of its own keys and of those of all."""
    found: dict[str, Any] = {
        each.name: value
        for each in attrs.fields(Bounds)
        if (value := getattr(container, each.name, getattr(limits, each.name, None))) is not None
    }
    found["descriptors"] = limits.containerDescriptors or descriptors.limit() // 4
    return Bounds(**found)


class Fleet:
    """
    Those of one service.

    @ivar containers: by name.
    @ivar tables: what they were made from, or changed to.
    @ivar written: the same, without what was set while they run.
    @ivar places: what they freeze, by the keys that name it.
    @ivar listeners: of their channels, by the names of both.
    @ivar limits: for what is started.
    @ivar summary: how many there are.
    """

    _log = Logger()

    def __init__(self, reactor: ChanproxyReactor, signals: SignalTrace, guard: Guard) -> None:
        self._reactor = reactor
        self._signals = signals
        self._guard = guard
        self._buffer: PeekBuffer | None = None
        self.containers: dict[str, Container] = {}
        self.tables: dict[str, config.Container] = {}
        self.written: dict[str, config.Container] = {}
        self.places: dict[str, str] = {}
        self.listeners: dict[tuple[str, str], ChannelListener] = {}
        self._guests: dict[str, GuestPort] = {}
        self._demands = Demands(reactor)
        self._groups = Groups()
        self.limits = config.Limits()
        self.summary = Summary()
        self._tally: Tally | None = None

    def open(self, limits: config.Limits, buffer: PeekBuffer, tally: Tally | None = None) -> None:
        """
        From now on containers can be started, until L{stopAll}.

        @param tally: what is written down of their sleep goes there; None: nothing is.
        """
        self.limits, self._buffer, self._tally = limits, buffer, tally

    @property
    def isOpen(self) -> bool:
        """Whether containers can be started."""
        return self._buffer is not None

    def start(self, piece: Piece, problems: list[Problem]) -> None:
        """
        Start something that does not run.

        @param problems: what is wrong is added; the rest of a container runs all the same.
        """
        if isinstance(piece.what, config.Container):
            if self._startContainer(piece, piece.what, problems):
                for each in piecesOf(piece.what):
                    self.start(each, problems)
        elif isinstance(piece.what, config.Channel):
            self._startChannel(piece, piece.what, problems)
        else:
            self._startGuests(piece, piece.what, problems)

    def _startContainer(
        self, piece: Piece, container: config.Container, problems: list[Problem]
    ) -> bool:
        path = _freezerOf(container.name)
        limits = self.limits
        try:
            breadth = Breadth(limits.cgroups, limits.processes, limits.cgroupDepth)
            freezer = makeFreezer(container.freezer, self._reactor, breadth)
            place = placeOf(freezer)
            clash = whyNotApart(place, self.places) if place else None
            if clash is not None:
                problems.append(Problem(path, clash))
                return False
            around = Surroundings(signals=self._signals, tally=self._tally)
            made = _made(self._reactor, container, freezer, limits, around)
        except Exception as error:
            problems.append(Problem(path, whyFailed(container.freezer, error)))
            return False
        _guarded(self._guard, made)
        self.containers[container.name] = made
        self._demands.add(made, freezer, container)
        self._groups.add(made, container)
        self.summary.add(made)
        self.tables[container.name] = self.written[container.name] = container
        if place:
            self.places[path] = place
        return True

    def begin(self, names: Iterable[str], problems: list[Problem]) -> None:
        """
        Have containers be suspended from now on, which a plugin's freezer may fail at.

        @param problems: what is wrong is added; the others go on.
        """
        for name in names:
            try:
                self.containers[name].start()
            except Exception as error:
                why = whyFailed(self.tables[name].freezer, error)
                problems.append(Problem(_freezerOf(name), why))

    def _startChannel(self, piece: Piece, channel: config.Channel, problems: list[Problem]) -> None:
        assert self._buffer is not None
        made = self.containers[piece.container]
        try:
            demand = self._demands.get(piece.container)
            listener = ChannelListener(
                self._reactor, made, channel, self.limits, self._buffer, demand
            )
            try:
                listener.start()
            except BaseException:
                listener.end()
                raise
        except CannotStart as error:
            problems.append(Problem(f"{piece.path}.{error.key}", str(error)))
        except WakeSourceError as error:
            # Each channel is some of them.
            problems.append(Problem("limits.wake-sources", str(error)))
        else:
            self.listeners[piece.container, channel.name] = listener

    def _startGuests(
        self, piece: Piece, spec: SeqpacketAddressSpec, problems: list[Problem]
    ) -> None:
        assert self._buffer is not None
        made = self.containers[piece.container]
        guests = GuestPort(self._reactor, made, spec, self.limits, self._buffer)
        try:
            guests.start()
        except CannotStart as error:
            problems.append(Problem(piece.path, str(error)))
        else:
            self._guests[piece.container] = guests

    def runs(self, piece: Piece) -> bool:
        """Whether it runs."""
        if isinstance(piece.what, config.Container):
            return piece.container in self.containers
        if isinstance(piece.what, config.Channel):
            return (piece.container, piece.what.name) in self.listeners
        return piece.container in self._guests

    def stop(self, piece: Piece) -> Deferred[object]:
        """
        Stop something: thaw it first, carry what can be carried, forget it.  Idempotent.

        @return: fires when it listens no more; all else is done at once.
        """
        name = piece.container
        if isinstance(piece.what, config.Container):
            return self.remove([name])
        stopped: list[Deferred[None]] = []
        if name in self.containers:
            # Whoever is inside is to see the end of its connections.
            self.containers[name].reconfigured()
        if isinstance(piece.what, config.Channel):
            listener = self.listeners.pop((name, piece.what.name), None)
            if listener is not None:
                stopped.append(listener.end())
        else:
            guests = self._guests.pop(name, None)
            if guests is not None:
                stopped.append(guests.stop())
        return _all(stopped)

    def remove(
        self, names: Iterable[str], others: Sequence[Deferred[None]] = ()
    ) -> Deferred[object]:
        """
        Stop containers, and what listens for them.

        @param others: what else is waited for.
        @return: see L{stop}.
        """
        containers = {name: self.containers.pop(name) for name in names if name in self.containers}
        for name in containers:
            self._groups.remove(name)
        self.thaw(containers.values())
        stopping: list[ChannelListener | GuestPort] = []
        for name in containers:
            self.tables.pop(name, None)
            self.written.pop(name, None)
            self.places.pop(_freezerOf(name), None)
            self._demands.remove(name)
            mine = [key for key in self.listeners if key[0] == name]
            stopping += [self.listeners.pop(key) for key in mine]
            stopping += [self._guests.pop(name)] if name in self._guests else []
        stopped = _all([*others, *(each.stop() for each in stopping)])
        for name, container in containers.items():
            try:
                container.stop()
            except Exception:
                self._log.failure("{name}: not stopped cleanly", name=name)
            self._guard.remove(container.freezer)
            self.summary.remove(container)
        if not self.containers:
            self._guard.stop()
        return stopped

    def thaw(self, containers: Iterable[Container]) -> None:
        """For good, and before anything else that could fail."""
        for container in containers:
            try:
                container.suspension.stop()
            except FreezerError as error:
                self._log.error("{name}: {error}", name=container.name, error=safe(str(error)))
            except Exception:
                # A plugin's.  What is left of others is stopped all the same.
                self._log.failure("{name}: not thawed", name=container.name)

    def stopAll(self, others: Sequence[Deferred[None]] = ()) -> Deferred[object]:
        """See L{remove}; nothing can be started any more."""
        self._buffer = None
        return self.remove(list(self.containers), others)

    def change(self, table: config.Container, written: config.Container | None = None) -> None:
        """
        Have a container that runs go on by another table, as far as that is its own keys.

        @param written: the same without what is set while it runs; None: nothing is.
        """
        made = self.containers[table.name]
        self.tables[table.name] = table
        self.written[table.name] = written = written or table
        made.settings = settings(written, table)
        self._demands.change(table)
        self._groups.change(table)
        made.change(table.suspend, _bounds(table, self.limits), table.adoption)

    def write(self, tables: Iterable[config.Container]) -> None:
        """What runs by these tables runs as they are written, also where that was set before."""
        for table in tables:
            if self.tables.get(table.name) == table:
                self.written[table.name] = table
                self.containers[table.name].settings = ()

    def limit(self, limits: config.Limits) -> None:
        """Have other limits, for all that runs and for what is started."""
        self.limits = limits
        for name, table in self.tables.items():
            self.change(table, self.written[name])
        for listener in self.listeners.values():
            listener.limit(limits)
        for guests in self._guests.values():
            guests.limit(limits)


def running(fleet: Fleet, table: config.Container) -> config.Container | None:
    """That part of a table which runs; L{None}: nothing of it."""
    if table.name not in fleet.containers:
        return None
    channels = [each for each in table.channels if fleet.runs(Piece(table.name, each))]
    control = table.control
    if control is not None and not fleet.runs(Piece(table.name, control)):
        control = None
    return attrs.evolve(table, channels=tuple(channels), control=control)


def _freezerOf(name: str) -> str:
    """The key that names what a container freezes."""
    return f"{join('containers', name)}.freezer"


def _made(
    reactor: ChanproxyReactor,
    table: config.Container,
    freezer: IFreezer,
    limits: config.Limits,
    around: Surroundings,
) -> Container:
    bounds, adoption = _bounds(table, limits), table.adoption
    return Container(
        reactor, table.name, freezer, table.suspend, bounds, adoption=adoption, around=around
    )


def _guarded(guard: Guard, made: Container) -> None:
    """Thawed by others when the service cannot, or somebody looks; but not while it is paused."""
    located: ILocatedFreezer | None = ILocatedFreezer(made.freezer, None)

    def stays() -> bool:
        return made.suspension.paused is not None

    def unseen() -> bool:
        return stays() or (located is not None and not located.mayWait)

    guard.add(made.freezer, unseen)
    made.suspension.addWatcher(lambda state, reasons: guard.look(made.freezer))
    if located is not None:
        located.letBe(stays)


def _all(stopping: Iterable[Deferred[None]]) -> Deferred[object]:
    return DeferredList(list(stopping))  # type: ignore[return-value]  # of its list
