"""
The service: containers and listeners, made from a configuration.

Below a parent service of any Twisted application, or under C{twistd} by L{chanproxy.service.tap}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from chanproxy import config
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.inflight import Record
from chanproxy.config import Problem, Reloaded, ReloadError, StartError
from chanproxy.config.changes import Piece
from chanproxy.config.checking import problemsOf, problemsOfContainer
from chanproxy.config.setting import Setting
from chanproxy.container import Container
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.freezers.frozen import thawRecorded
from chanproxy.freezers.guarding import Guard
from chanproxy.freezers.thawing import thawNow
from chanproxy.interfaces import AnyReactor, expectReactor
from chanproxy.kernel import descriptors
from chanproxy.kernel.closing import closer
from chanproxy.manager.access import Access, AccessError
from chanproxy.manager.administration import ServiceManager
from chanproxy.service.callports import CallPorts
from chanproxy.service.discovering import Discovering, LeftAlone
from chanproxy.service.fleet import Fleet
from chanproxy.service.keeping import Keeping
from chanproxy.service.reloading import Reloading
from chanproxy.service.scheduling import schedule
from chanproxy.service.startable import CannotStart, whyNotDiscovered
from chanproxy.service.summary import Summary
from chanproxy.words import safe

if TYPE_CHECKING:
    from chanproxy.service.httpport import HttpPort

NO_FILE = (
    "there is none to be read again: the service was started with options, or by a program",
    "restart it, or start it with --config FILE",
)
"""What is said to those who want to have the configuration read again."""


def _closed(result: object) -> object:
    closer.finish()
    return result


class ChanproxyService(Service):
    """
    Runs the containers of a configuration.

    @ivar source: where its configuration is read when somebody asks to have it read again; called
        in another thread, and may raise L{config.ConfigurationError}.  None: nobody may.
    """

    _log = Logger()

    def __init__(self, configuration: config.Configuration, reactor: AnyReactor) -> None:
        """@param configuration: may be empty; containers can be added while running."""
        reactor = expectReactor(reactor)
        Service.setName(self, "chanproxy")
        self._reactor = reactor
        self._signals = SignalTrace(reactor)
        self._guard = Guard(reactor, configuration.watchdog)
        self._fleet = Fleet(reactor, self._signals, self._guard)
        self._reloading = Reloading(reactor, self._fleet, configuration)
        self._keeping = Keeping(reactor, configuration.history, lambda: self.containers)
        self._calls: CallPorts | None = None
        self._http: HttpPort | None = None
        self._discovering = [Discovering(reactor, each, self) for each in configuration.discovery]
        self.source: Callable[[], config.Configuration] | None = None

    @property
    def configuration(self) -> config.Configuration:
        """The one in force."""
        return self._reloading.configuration

    @property
    def limits(self) -> config.Limits:
        """How much of everything there may be."""
        return self.configuration.limits

    @property
    def containers(self) -> dict[str, Container]:
        """By name, while running."""
        return self._fleet.containers

    @property
    def leftAlone(self) -> Sequence[LeftAlone]:
        """Those that have a label, and are not run."""
        return [each for discovering in self._discovering for each in discovering.leftAlone]

    @property
    def summary(self) -> Summary:
        """How many there are."""
        return self._fleet.summary

    def startService(self) -> None:
        """
        Thaw what a dead predecessor left, then start everything.

        @raise StartError: all that is wrong; nothing is half started.
        """
        problems = problemsOf(self.configuration)
        problems += whyNotDiscovered(self.configuration)
        if self.running:
            problems.append(Problem("the service", "runs already"))
        if problems:
            raise StartError(problems)
        thawed, failed = thawRecorded(lambda spec: thawNow(spec, self._reactor), everything=False)
        for spec in thawed:
            self._log.warn(
                "{spec}: left frozen by a predecessor that died; thawed", spec=safe(spec)
            )
        for sentence in failed:
            self._log.error(
                "what a predecessor wrote down is not thawed: {why}", why=safe(sentence)
            )
        schedule(self.configuration.scheduling)
        limits = self.limits
        descriptors.raiseLimit()
        closer.watchedBy(self._reactor)
        closer.prepare()
        self._keeping.prepare()
        record = Record(Record.newDescriptor())
        buffer = PeekBuffer(limits.messageBytes, limits.messageDescriptors, record)
        self._fleet.open(limits, buffer, self._keeping.tally)
        try:
            for container in self.configuration.containers:
                self._fleet.start(Piece(container.name, container), problems)
            self._startCalls(buffer, problems)
            self._startHttp(buffer, problems)
            if not problems:
                self._fleet.begin(list(self.containers), problems)
            if problems:
                raise StartError(problems)
        except BaseException:
            self._stopAll()
            raise
        self._keeping.start()
        Service.startService(self)
        for discovering in self._discovering:
            discovering.start()

    def addContainer(self, container: config.Container) -> Container:
        """
        Run one more container, until L{removeContainer}, or until the service stops.

        @raise StartError: all that is wrong; nothing of it is left.
        """
        problems = problemsOfContainer(container)
        if problems:
            raise StartError(problems)
        path = f"containers.{container.name}"
        if not self.running or not self._fleet.isOpen:
            raise StartError([Problem(path, "the service does not run")])
        if container.name in self.containers:
            raise StartError([Problem(path, "is there already")])
        if len(self.containers) >= self.limits.containers:
            raise StartError([Problem("limits.containers", "there are as many already; raise it")])
        try:
            self._fleet.start(Piece(container.name, container), problems)
            if not problems:
                self._fleet.begin([container.name], problems)
            if problems:
                raise StartError(problems)
        except BaseException:
            if container.name in self.containers:
                self.removeContainer(container.name)
            raise
        return self.containers[container.name]

    def removeContainer(self, name: str) -> Deferred[object]:
        """
        Thaw a container, end its channels, forget it.

        @return: fires when it listens no more; all else is done at once.
        @raise KeyError: there is none of that name.
        """
        if name not in self.containers:
            raise KeyError(name)
        return self._fleet.remove([name])

    def setContainer(
        self, name: str, keys: Mapping[str, Any], back: Collection[str] = ()
    ) -> Deferred[tuple[Setting, ...]]:
        """
        Have a container go on with other values of some keys, until the next reload at the longest.

        @param keys: by their names, as in a file.
        @param back: names of keys that are to be again as they are written.
        @return: what has changed; fails with L{config.ConfigurationError}, and nothing has, or with
            L{KeyError}: there is no container of that name.
        """
        return self._reloading.set(name, keys, back)

    def reload(self, configuration: config.Configuration) -> Deferred[Reloaded]:
        """
        Follow another configuration; what is the same in both is not touched.

        Containers that were added while running stay.  What cannot change while it runs stays as it
        is, see L{Reloaded.restart}.

        @return: fails with L{config.ReloadError}: all that is wrong; the configuration of before is
            in force, as far as that does not say otherwise.
        """
        return self._reloading.reload(lambda: configuration)

    def reread(self) -> Deferred[Reloaded]:
        """
        Likewise, the one that L{source} gives now.

        @return: fails with L{config.ReloadError}, too, when there is no source.
        """
        if self.source is None:
            return fail(ReloadError([Problem("file", *NO_FILE)]))
        return self._reloading.reload(self.source)

    def rereadSoon(self) -> Deferred[None] | None:
        """
        Likewise; asked for again before that has begun, it is done once.  The log says how.

        @return: see L{Reloading.reloadSoon}.
        """
        return None if self.source is None else self._reloading.reloadSoon(self.source)

    def _startCalls(self, buffer: PeekBuffer, problems: list[Problem]) -> None:
        configuration = self.configuration
        if configuration.control is None and configuration.varlink is None:
            return
        manager = ServiceManager(self._reactor, self, buffer)
        try:
            access = Access(configuration.access)
            ports = CallPorts(self._reactor, configuration, access, manager)
            ports.start()
        except AccessError as error:
            problems += error.problems
        except CannotStart as error:
            problems.append(Problem(error.key, str(error)))
        else:
            self._calls = ports
            self._reloading.served.append(ports)

    def _startHttp(self, buffer: PeekBuffer, problems: list[Problem]) -> None:
        configuration = self.configuration
        if configuration.http is None:
            return
        # Not before: who does not ask for it does not pay for it.
        from chanproxy.service.httpport import HttpPort

        try:
            access = Access(configuration.access)
            port = HttpPort(self._reactor, configuration, access, lambda: self.containers, buffer)
            port.start()
        except AccessError as error:
            # They may have been found for the control socket.
            problems += [each for each in error.problems if each not in problems]
        except CannotStart as error:
            problems.append(Problem(error.key, str(error)))
        else:
            self._http = port
            self._reloading.served.append(port)

    def stopService(self) -> Deferred[object]:
        """Thaw every container, carry what can still be carried, close everything."""
        Service.stopService(self)
        return self._stopAll()

    def _stopAll(self) -> Deferred[object]:
        for discovering in self._discovering:
            discovering.stop()
        # Before the control socket is closed: who waits for a resume is answered.
        self._fleet.thaw(self.containers.values())
        self._keeping.end(self.containers.values())
        self._reloading.served.clear()
        control: list[Deferred[None]] = []
        if self._http is not None:
            control.append(self._http.stop())
            self._http = None
        if self._calls is not None:
            control += self._calls.stop()
            self._calls = None
        stopped = self._fleet.stopAll(control)
        self._guard.close()
        self._signals.close()
        return stopped.addBoth(lambda _: self._keeping.stop()).addBoth(_closed)
