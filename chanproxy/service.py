"""
The service: containers and listeners, made from a configuration.

Below a parent service of any Twisted application, or under C{twistd} by L{chanproxy.tap}.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import cast

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocol
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import config, descriptors
from chanproxy._batch import PeekBuffer
from chanproxy._record import Record
from chanproxy.access import Access, AccessError
from chanproxy.addresses import SeqpacketAddressSpec, parseSeqpacket
from chanproxy.administration import ServiceManager
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.container import Bounds, Container
from chanproxy.control import ControlFactory
from chanproxy.endpoints import SeqpacketClientEndpoint, SeqpacketPort, whyNotBindable
from chanproxy.freezers import makeFreezer
from chanproxy.handled import Noticed
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.recovery import prepareDirectory, runtimeDirectory, thawRecorded
from chanproxy.scheduling import schedule


class _Only(Factory):
    """Gives one protocol, which does not keep the factory."""

    noisy = False

    def __init__(self, side: ContainerProtocol | RemoteProtocol) -> None:
        self._side = side

    def buildProtocol(self, address: object) -> ContainerProtocol | RemoteProtocol:
        """The one."""
        return self._side


class ChannelListener(Factory):
    """Makes one channel proxy of each connection to a channel's C{listen} address."""

    _log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: ChanproxyReactor,
        container: Container,
        channel: config.Channel,
        limits: config.Limits,
        buffer: PeekBuffer,
    ) -> None:
        self._reactor = reactor
        self._container = container
        self._channel = channel
        self._name = f"{container.name}/{channel.name}"
        self._opened = 0
        self._dials: dict[Deferred[IProtocol], ContainerProtocol | RemoteProtocol] = {}
        explicit = channel.handled == "explicit"
        # One for all its connections, so that its users need not know them apart.
        self._counter = container.keepCounter(channel.name, channel.initial) if explicit else None
        self._noticed: Noticed = container.notices(self._name)
        self._unhandled = channel.initial == 1 and not explicit
        if self._unhandled:
            self._noticed.hold()
        self._endpoint = SeqpacketClientEndpoint(
            reactor,
            parseSeqpacket(channel.connect, listening=False),
            buffer,
            limits.connectTimeout,
            bare=True,
        )
        self._port = SeqpacketPort(
            reactor, parseSeqpacket(channel.listen, listening=True), self, buffer, bare=True
        )

    def start(self) -> None:
        """Listen.  @raise CannotListenError: what is wrong, and what to do."""
        self._port.startListening()
        if self._channel.handled == "explicit":
            self._log.info(
                "{name}: handled = explicit: the container stays awake from a message on, until "
                "whoever holds the channel's counter (OpenCounter, {channel}) reads it down",
                name=self._name,
                channel=self._channel.name,
            )

    def stop(self) -> Deferred[None]:
        """Accept no more, give up what is being connected; channels that stand are not touched."""
        for dial, accepted in list(self._dials.items()):
            dial.cancel()
            self._hangUp(accepted)
        return self._port.stopListening()

    @property
    def container(self) -> Container:
        """Whose channel it is."""
        return self._container

    @property
    def port(self) -> IListeningPort:
        """What listens."""
        return self._port

    def buildProtocol(self, address: object) -> ContainerProtocol | RemoteProtocol:
        """Somebody connected to C{listen}."""
        accepted = ContainerProtocol() if self._fromContainer else RemoteProtocol()
        accepted.onConnected = lambda: self._dial(accepted)
        return accepted

    @property
    def _fromContainer(self) -> bool:
        return self._channel.initiator == "container"

    def _dial(self, accepted: ContainerProtocol | RemoteProtocol) -> None:
        self._opened += 1
        name = f"{self._name}#{self._opened}"
        if not self._fromContainer and self._counter is None:
            self._noticed.happened()
        other = RemoteProtocol() if self._fromContainer else ContainerProtocol()
        dial = self._endpoint.connect(_Only(other))
        if not dial.called:
            # The backlog is full: only an awake container empties it.
            self._noticed.hold()
            self._dials[dial] = accepted

            def over(result: object) -> object:
                del self._dials[dial]
                self._noticed.release()
                return result

            dial.addBoth(over)
        dial.addCallback(lambda _: self._pair(name, accepted, other))
        dial.addErrback(self._failed, name, accepted)

    def _pair(
        self,
        name: str,
        accepted: ContainerProtocol | RemoteProtocol,
        dialled: ContainerProtocol | RemoteProtocol,
    ) -> None:
        container, remote = (accepted, dialled) if self._fromContainer else (dialled, accepted)
        assert isinstance(container, ContainerProtocol)
        assert isinstance(remote, RemoteProtocol)
        noticed = self._noticed if self._counter is None else None
        try:
            self._container.proxy(
                container,
                remote,
                name,
                self._counter,
                noticed,
                handled=self._channel.handled,
                onHandled=self._firstHandled if self._unhandled else None,
            )
        except Exception:
            self._hangUp(dialled)
            raise
        self._log.info("{name}: open", name=name)

    def _firstHandled(self) -> None:
        if self._unhandled:
            self._unhandled = False
            self._noticed.release()

    def _failed(
        self, failure: Failure, name: str, accepted: ContainerProtocol | RemoteProtocol
    ) -> None:
        if not failure.check(CancelledError):
            self._log.warn(
                "{name}: connection closed: {why} "
                "(containers.{container}.channels.{channel}.connect)",
                name=name,
                why=failure.getErrorMessage(),
                container=self._container.name,
                channel=self._channel.name,
            )
        self._hangUp(accepted)

    def _hangUp(self, side: IProtocol) -> None:
        transport = getattr(side, "transport", None)
        if transport is not None:
            transport.close()


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


def thawNow(spec: str, reactor: ChanproxyReactor | None = None) -> None:
    """
    Thaw by specification.

    @param reactor: nothing waits here, but making a freezer takes one; without it the global one.
    @raise FreezerError: it did not work.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast(ChanproxyReactor, installed)
    makeFreezer(spec, reactor).thawNow()


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
        wrong = whyNotAdopt() if container.adoption is not None else None
        if wrong is not None:
            problems.append(Problem(f"{path}.wake-on", wrong))
        for channel in container.channels:
            spec: SeqpacketAddressSpec = parseSeqpacket(channel.listen, listening=True)
            wrong = whyNotBindable(spec)
            if wrong is not None:
                problems.append(Problem(f"{path}.channels.{channel.name}.listen", wrong))
    try:
        Access(configuration.access)
    except AccessError as error:
        problems += _accessProblems(error)
    control = configuration.control
    if control is not None and not _madeByUs(control):
        wrong = whyNotBindable(control)
        if wrong is not None:
            problems.append(Problem("control", wrong))
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
        wakeWatchers=limits.wakeWatchers,
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
        """@param configuration: may be empty; containers can be added while running."""
        Service.setName(self, "chanproxy")
        self._configuration = configuration
        self._reactor = reactor
        self.containers: dict[str, Container] = {}
        self._listeners: list[ChannelListener] = []
        self._control: SeqpacketPort | None = None
        self._clients: ControlFactory | None = None
        self._buffer: PeekBuffer | None = None

    def startService(self) -> None:
        """
        Thaw what a dead predecessor left, then start everything.

        @raise StartError: all that is wrong; nothing is half started.
        """
        thawed, failed = thawRecorded(lambda spec: thawNow(spec, self._reactor), everything=False)
        for spec in thawed:
            self._log.warn("{spec}: left frozen by a predecessor that died; thawed", spec=spec)
        for sentence in failed:
            self._log.error("left frozen by a predecessor, and not thawed: {why}", why=sentence)
        schedule(self._configuration.scheduling)
        problems: list[Problem] = []
        limits = self._configuration.limits
        descriptors.raiseLimit()
        record = Record(Record.newDescriptor())
        buffer = PeekBuffer(limits.messageBytes, limits.messageDescriptors, record)
        self._buffer = buffer
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
        mine = [listener for listener in self._listeners if listener.container is container]
        self._listeners = [listener for listener in self._listeners if listener not in mine]
        return self._stop([container], mine)

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
                adoption=container.adoption,
                longest=container.maxAsleep or None,
            )
        except (FreezerError, ValueError) as error:
            problems.append(Problem(f"{path}.freezer", str(error)))
            return
        self.containers[container.name] = made
        for channel in container.channels:
            listener = ChannelListener(self._reactor, made, channel, limits, buffer)
            try:
                listener.start()
            except CannotListenError as error:
                problems.append(
                    Problem(f"{path}.channels.{channel.name}.listen", str(error.socketError))
                )
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
        manager = ServiceManager(self._reactor, self, buffer)
        clients = ControlFactory(manager, access, limits.controlBytes, limits.controlConnections)
        port = SeqpacketPort(self._reactor, control, clients, PeekBuffer(limits.controlBytes))
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
        # Before the control socket is closed: who waits for a resume is answered.
        self._thaw(containers.values())
        self._buffer = None
        control: list[Deferred[None]] = []
        if self._control is not None and self._clients is not None:
            control.append(self._control.stopListening())
            self._clients.closeAll()
            self._control = self._clients = None
        return self._stop(list(containers.values()), listeners, control)

    def _thaw(self, containers: Iterable[Container]) -> None:
        """For good, and before anything else that could fail."""
        for container in containers:
            try:
                container.suspension.stop()
            except FreezerError as error:
                self._log.error("{name}: {error}", name=container.name, error=error)

    def _stop(
        self,
        containers: list[Container],
        listeners: list[ChannelListener],
        others: Sequence[Deferred[None]] = (),
    ) -> Deferred[object]:
        self._thaw(containers)
        stopped = DeferredList([*others, *(listener.stop() for listener in listeners)])
        for container in containers:
            try:
                container.stop()
            except Exception:
                self._log.failure("{name}: not stopped cleanly", name=container.name)
        return stopped  # type: ignore[return-value]  # a DeferredList is a Deferred of its list
