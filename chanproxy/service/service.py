"""
The service: containers and listeners, made from a configuration.

Below a parent service of any Twisted application, or under C{twistd} by L{chanproxy.service.tap}.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from chanproxy import config
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.inflight import Record
from chanproxy.config import Problem, StartError
from chanproxy.config.together import whyNotApart
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.endpoints.ports import ChannelPort
from chanproxy.freezers import Breadth, makeFreezer
from chanproxy.freezers.frozen import thawRecorded
from chanproxy.freezers.guarding import Guard
from chanproxy.freezers.thawing import thawNow
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.kernel import descriptors
from chanproxy.kernel.closing import closer
from chanproxy.kernel.fewlines import FewLines
from chanproxy.kernel.rundirectory import openDirectory, runtimeDirectory
from chanproxy.manager.access import Access, AccessError
from chanproxy.manager.administration import ServiceManager
from chanproxy.manager.control import ControlFactory, clientsOf, controlPort
from chanproxy.service.guestport import GuestPort
from chanproxy.service.keeping import Keeping
from chanproxy.service.listener import CannotStart, ChannelListener
from chanproxy.service.preflight import madeByUs, placeOf
from chanproxy.service.scheduling import schedule
from chanproxy.service.summary import Summary
from chanproxy.wake.source import WakeSourceError
from chanproxy.words import safe

if TYPE_CHECKING:
    from chanproxy.service.httpport import HttpPort


def _bounds(container: config.Container, limits: config.Limits) -> Bounds:
    """What limits a container, of its own keys and of those of all."""
    found: dict[str, Any] = {
        each.name: value
        for each in attrs.fields(Bounds)
        if (value := getattr(container, each.name, getattr(limits, each.name, None))) is not None
    }
    found["descriptors"] = limits.containerDescriptors or descriptors.limit() // 4
    return Bounds(**found)


def _closed(result: object) -> object:
    closer.finish()
    return result


def _startHttp(
    service: ChanproxyService,
    configuration: config.Configuration,
    reactor: ChanproxyReactor,
    buffer: PeekBuffer,
    problems: list[Problem],
) -> HttpPort | None:
    if configuration.http is None:
        return None
    # Not before: who does not ask for it does not pay for it.
    from chanproxy.service.httpport import HttpPort

    try:
        access = Access(configuration.access)
        port = HttpPort(reactor, configuration, access, lambda: service.containers, buffer)
        port.start()
    except AccessError as error:
        # They may have been found for the control socket.
        problems += [each for each in error.problems if each not in problems]
    except CannotStart as error:
        problems.append(Problem(error.key, str(error)))
    else:
        return port
    return None


class ChanproxyService(Service):
    """
    Runs the containers of a configuration.

    @ivar containers: by name, while running.
    @ivar summary: how many there are.
    """

    _log = Logger()

    def __init__(self, configuration: config.Configuration, reactor: ChanproxyReactor) -> None:
        """@param configuration: may be empty; containers can be added while running."""
        Service.setName(self, "chanproxy")
        self._configuration = configuration
        self._reactor = reactor
        self.containers: dict[str, Container] = {}
        self.summary = Summary()
        self._places: dict[str, str] = {}
        self._listeners: list[ChannelListener] = []
        self._guests: list[GuestPort] = []
        self._control: ChannelPort | None = None
        self._clients: ControlFactory | None = None
        self._http: HttpPort | None = None
        self._buffer: PeekBuffer | None = None
        self._signals = SignalTrace(reactor)
        self._guard = Guard(reactor, configuration.watchdog)
        self._keeping = Keeping(reactor, configuration.history, lambda: self.containers)

    def startService(self) -> None:
        """
        Thaw what a dead predecessor left, then start everything.

        @raise StartError: all that is wrong; nothing is half started.
        """
        thawed, failed = thawRecorded(lambda spec: thawNow(spec, self._reactor), everything=False)
        for spec in thawed:
            self._log.warn(
                "{spec}: left frozen by a predecessor that died; thawed", spec=safe(spec)
            )
        for sentence in failed:
            self._log.error(
                "what a predecessor wrote down is not thawed: {why}", why=safe(sentence)
            )
        schedule(self._configuration.scheduling)
        problems: list[Problem] = []
        limits = self._configuration.limits
        descriptors.raiseLimit()
        closer.watchedBy(self._reactor)
        closer.prepare()
        self._keeping.prepare()
        record = Record(Record.newDescriptor())
        buffer = PeekBuffer(limits.messageBytes, limits.messageDescriptors, record)
        self._buffer = buffer
        try:
            for container in self._configuration.containers:
                self._startContainer(container, limits, buffer, problems)
            self._startControl(buffer, problems)
            self._http = _startHttp(self, self._configuration, self._reactor, buffer, problems)
            if problems:
                raise StartError(problems)
        except BaseException:
            self._stopAll()
            raise
        for started in self.containers.values():
            started.start()
        self._keeping.start()
        Service.startService(self)

    @property
    def mostContainers(self) -> int:
        """Up to how many containers can be added."""
        return self._configuration.limits.containers

    @property
    def mostTraceBytes(self) -> int:
        """The largest trace."""
        return self._configuration.limits.traceBytes

    def addContainer(self, container: config.Container) -> Container:
        """
        Run one more container, until L{removeContainer}, or until the service stops.

        @raise StartError: all that is wrong; nothing of it is left.
        """
        path = f"containers.{container.name}"
        if not self.running or self._buffer is None:
            raise StartError([Problem(path, "the service does not run")])
        if container.name in self.containers:
            raise StartError([Problem(path, "is there already")])
        if len(self.containers) >= self.mostContainers:
            raise StartError([Problem("limits.containers", "there are as many already; raise it")])
        problems: list[Problem] = []
        try:
            self._startContainer(container, self._configuration.limits, self._buffer, problems)
            if problems:
                raise StartError(problems)
        except BaseException:
            if container.name in self.containers:
                self.removeContainer(container.name)
            raise
        made = self.containers[container.name]
        made.start()
        return made

    def removeContainer(self, name: str) -> Deferred[object]:
        """
        Thaw a container, end its channels, forget it.

        @return: fires when it listens no more; all else is done at once.
        @raise KeyError: there is none of that name.
        """
        container = self.containers.pop(name)
        self._places.pop(f"containers.{name}.freezer", None)
        mine = [listener for listener in self._listeners if listener.container is container]
        self._listeners = [listener for listener in self._listeners if listener not in mine]
        guests = [port for port in self._guests if port.container is container]
        self._guests = [port for port in self._guests if port not in guests]
        return self._stop([container], [*mine, *guests])

    def _startContainer(
        self,
        container: config.Container,
        limits: config.Limits,
        buffer: PeekBuffer,
        problems: list[Problem],
    ) -> None:
        path = f"containers.{container.name}"
        try:
            breadth = Breadth(limits.cgroups, limits.processes, limits.cgroupDepth)
            freezer = makeFreezer(container.freezer, self._reactor, breadth)
            place = placeOf(freezer)
            clash = whyNotApart(place, self._places) if place else None
            if clash is not None:
                problems.append(Problem(f"{path}.freezer", clash))
                return
            made = Container(
                self._reactor,
                container.name,
                freezer,
                container.suspend,
                _bounds(container, limits),
                adoption=container.adoption,
                around=Surroundings(signals=self._signals, tally=self._keeping.tally),
            )
        except (FreezerError, ValueError) as error:
            problems.append(Problem(f"{path}.freezer", str(error)))
            return
        self._guard.add(made.freezer)
        self.containers[container.name] = made
        self.summary.add(made)
        if place:
            self._places[f"{path}.freezer"] = place
        if container.control is not None:
            guests = GuestPort(self._reactor, made, container.control, limits, buffer)
            try:
                guests.start()
            except CannotStart as error:
                problems.append(Problem(f"{path}.{error.key}", str(error)))
            else:
                self._guests.append(guests)
        for channel in container.channels:
            try:
                listener = ChannelListener(self._reactor, made, channel, limits, buffer)
                listener.start()
            except CannotStart as error:
                key = f"{path}.channels.{channel.name}.{error.key}"
                problems.append(Problem(key, str(error)))
            except WakeSourceError as error:
                # Each channel is some of them.
                problems.append(Problem("limits.wake-sources", str(error)))
            else:
                self._listeners.append(listener)

    def _startControl(self, buffer: PeekBuffer, problems: list[Problem]) -> None:
        control, limits = self._configuration.control, self._configuration.limits
        if control is None:
            return
        try:
            access = Access(self._configuration.access)
            if madeByUs(control):
                os.close(openDirectory(runtimeDirectory()))
        except AccessError as error:
            problems += error.problems
            return
        except FreezerError as error:
            problems.append(Problem("control", str(error)))
            return
        manager = ServiceManager(self._reactor, self, buffer)
        lines = FewLines(self._log, self._reactor, "control", limits.logLines)
        clients = clientsOf(self._reactor, manager, access, limits, lines)
        port = controlPort(self._reactor, control, clients, limits.logLines)
        try:
            port.startListening()
        except CannotListenError as error:
            problems.append(Problem("control", str(error.socketError)))
        else:
            self._control, self._clients = port, clients

    def stopService(self) -> Deferred[object]:
        """Thaw every container, carry what can still be carried, close everything."""
        Service.stopService(self)
        return self._stopAll()

    def _stopAll(self) -> Deferred[object]:
        containers, self.containers = self.containers, {}
        listeners, self._listeners = self._listeners, []
        self._places.clear()
        guests, self._guests = self._guests, []
        # Before the control socket is closed: who waits for a resume is answered.
        self._thaw(containers.values())
        self._keeping.end(containers.values())
        self._buffer = None
        control: list[Deferred[Any]] = []
        if self._http is not None:
            control.append(self._http.stop())
            self._http = None
        if self._control is not None and self._clients is not None:
            control.append(self._control.stopListening())
            self._clients.closeAll()
            self._control = self._clients = None
        stopped = self._stop(list(containers.values()), [*listeners, *guests], control)
        self._signals.close()
        return stopped.addBoth(lambda _: self._keeping.stop()).addBoth(_closed)

    def _thaw(self, containers: Iterable[Container]) -> None:
        """For good, and before anything else that could fail."""
        for container in containers:
            try:
                container.suspension.stop()
            except FreezerError as error:
                self._log.error("{name}: {error}", name=container.name, error=safe(str(error)))

    def _stop(
        self,
        containers: list[Container],
        listeners: Sequence[ChannelListener | GuestPort],
        others: Sequence[Deferred[Any]] = (),
    ) -> Deferred[object]:
        self._thaw(containers)
        stopped = DeferredList([*others, *(listener.stop() for listener in listeners)])
        for container in containers:
            try:
                container.stop()
            except Exception:
                self._log.failure("{name}: not stopped cleanly", name=container.name)
            self._guard.remove(container.freezer)
            self.summary.remove(container)
        if not self.containers:
            self._guard.stop()
        return stopped  # type: ignore[return-value]  # a DeferredList is a Deferred of its list
