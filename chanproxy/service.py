"""
The service: containers and listeners, made from a configuration.

Below a parent service of any Twisted application, or under C{twistd} by L{chanproxy.tap}.
"""

from __future__ import annotations

import os
from typing import cast

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from chanproxy import config, descriptors
from chanproxy._batch import PeekBuffer
from chanproxy._record import Record
from chanproxy.access import Access, AccessError
from chanproxy.addresses import SeqpacketAddressSpec
from chanproxy.channellistener import CannotStart, ChannelListener, whyNotStartable
from chanproxy.container import Bounds, Container
from chanproxy.control import ControlFactory
from chanproxy.freezers import makeFreezer
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.listening import whyNotBindable
from chanproxy.manager import Manager
from chanproxy.ports import ChannelPort
from chanproxy.recovery import prepareDirectory, runtimeDirectory, thawRecorded


@frozen
class Problem:
    """Why a service cannot start: the configuration's key, and what is wrong and to do."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class StartError(Exception):
    """The service did not start; nothing of it is left.  The text has a line per problem."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def thawNow(spec: str) -> None:
    """Thaw by specification.  @raise FreezerError: it did not work."""
    # Nothing waits here, but making a freezer takes a reactor; any one will do.
    from twisted.internet import reactor

    makeFreezer(spec, cast(ChanproxyReactor, reactor)).thawNow()


def preflight(configuration: config.Configuration, reactor: ChanproxyReactor) -> list[Problem]:
    """
    Look for what would keep the service from starting, without changing anything.

    @return: all problems found.
    """
    problems = []
    for container in configuration.containers:
        path = f"containers.{container.name}"
        try:
            makeFreezer(container.freezer, reactor).check()
        except (FreezerError, ValueError) as error:
            problems.append(Problem(f"{path}.freezer", str(error)))
        for channel in container.channels:
            for key, wrong in whyNotStartable(reactor, channel):
                problems.append(Problem(f"{path}.channels.{channel.name}.{key}", wrong))
    try:
        Access(configuration.access)
    except AccessError as error:
        problems += _accessProblems(error)
    control = configuration.control
    if control is not None and not _madeByUs(control):
        taken = whyNotBindable(control)
        if taken is not None:
            problems.append(Problem("control", taken))
    return problems


def _accessProblems(error: AccessError) -> list[Problem]:
    return [Problem(each.path, f"{each.wrong}; {each.remedy}") for each in error.problems]


def _madeByUs(control: SeqpacketAddressSpec) -> bool:
    """Whether the control socket's directory is the runtime directory, still to be made."""
    directory = os.path.dirname(control.path)
    return directory == runtimeDirectory() and not os.path.exists(directory)


def _bounds(container: config.Container, limits: config.Limits) -> Bounds:
    return Bounds(
        wakeSources=limits.wakeSources,
        wakeLocks=limits.wakeLocks,
        freezeWarning=container.freezeWarning,
        freezeLimit=container.freezeLimit,
        signalInterval=container.signalInterval,
        watchedProcesses=container.watchedProcesses,
    )


class ChanproxyService(Service):
    """
    Runs the containers of a configuration.

    @ivar containers: by name, while running.
    """

    _log = Logger()

    def __init__(self, configuration: config.Configuration, reactor: ChanproxyReactor) -> None:
        Service.setName(self, "chanproxy")
        self._configuration = configuration
        self._reactor = reactor
        self.containers: dict[str, Container] = {}
        self._listeners: list[ChannelListener] = []
        self._control: ChannelPort | None = None
        self._clients: ControlFactory | None = None

    def startService(self) -> None:
        """
        Thaw what a dead predecessor left, then start everything.

        @raise StartError: all that is wrong; nothing is half started.
        """
        thawed, failed = thawRecorded(thawNow, everything=False)
        for spec in thawed:
            self._log.warn("{spec}: left frozen by a predecessor that died; thawed", spec=spec)
        for sentence in failed:
            self._log.error("left frozen by a predecessor, and not thawed: {why}", why=sentence)
        problems: list[Problem] = []
        limits = self._configuration.limits
        descriptors.raiseLimit()
        record = Record(Record.newDescriptor())
        buffer = PeekBuffer(limits.messageBytes, limits.messageDescriptors, record)
        try:
            for container in self._configuration.containers:
                self._startContainer(container, limits, buffer, problems)
            self._startControl(buffer, problems)
            if problems:
                raise StartError(problems)
        except BaseException:
            self._stopAll()
            raise
        for started in self.containers.values():
            started.start()
        Service.startService(self)

    def _startContainer(
        self,
        container: config.Container,
        limits: config.Limits,
        buffer: PeekBuffer,
        problems: list[Problem],
    ) -> None:
        path = f"containers.{container.name}"
        try:
            made = Container(
                self._reactor,
                container.name,
                makeFreezer(container.freezer, self._reactor),
                container.linger,
                container.suspend,
                bounds=_bounds(container, limits),
            )
        except (FreezerError, ValueError) as error:
            problems.append(Problem(f"{path}.freezer", str(error)))
            return
        self.containers[container.name] = made
        for channel in container.channels:
            try:
                listener = ChannelListener(self._reactor, made, channel, limits, buffer)
                listener.start()
            except CannotStart as error:
                key = f"{path}.channels.{channel.name}.{error.key}"
                problems.append(Problem(key, str(error)))
            else:
                self._listeners.append(listener)

    def _startControl(self, buffer: PeekBuffer, problems: list[Problem]) -> None:
        control, limits = self._configuration.control, self._configuration.limits
        if control is None:
            return
        try:
            access = Access(self._configuration.access)
            if _madeByUs(control):
                prepareDirectory(runtimeDirectory())
        except AccessError as error:
            problems += _accessProblems(error)
            return
        except FreezerError as error:
            problems.append(Problem("control", str(error)))
            return
        manager = Manager(self._reactor, lambda: self.containers, buffer)
        clients = ControlFactory(manager, access, limits.controlBytes, limits.controlConnections)
        port = ChannelPort(self._reactor, control, clients, PeekBuffer(limits.controlBytes))
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
        for container in containers.values():
            # Thawed before anything else that could fail.
            try:
                container.suspension.stop()
            except FreezerError as error:
                self._log.error("{name}: {error}", name=container.name, error=error)
        stopping = [listener.stop() for listener in listeners]
        if self._control is not None and self._clients is not None:
            stopping.append(self._control.stopListening())
            self._clients.closeAll()
            self._control = self._clients = None
        stopped = DeferredList(stopping)
        for container in containers.values():
            try:
                container.stop()
            except Exception:
                self._log.failure("{name}: not stopped cleanly", name=container.name)
        return stopped  # type: ignore[return-value]  # a DeferredList is a Deferred of its list
