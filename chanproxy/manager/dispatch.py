"""
Manager: the methods of C{org.chanproxy.Manager}, on the containers of a service.

A call and its descriptors in, a reply out; knows no sockets but those that it is handed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chanproxy.carry.ledger import Reports
from chanproxy.carry.proxy import CannotPair, ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.container import Container
from chanproxy.container.lifecycle import AlreadySuspended, Resumed, SuspendFailure, WakeLocksExist
from chanproxy.container.watchers import PipeWatcher, TooManyWatchers
from chanproxy.interfaces import ChanproxyReactor, IWakeWatcher
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.manager import errors
from chanproxy.manager.access import Rights
from chanproxy.manager.attached import Handed, polledSafely
from chanproxy.manager.crowds import Account
from chanproxy.manager.describe import description, fitting, portion, summary
from chanproxy.manager.errors import (
    MANAGER,
    SERVICE,
    ContainerNotFound,
    CounterNotFound,
    ExpectedMore,
    InterfaceNotFound,
    InvalidParameter,
    LimitExceeded,
    MethodNotFound,
    PermissionDenied,
    VarlinkError,
    WakeLockNotHeld,
    WakeSourceNotFound,
)
from chanproxy.manager.parameters import Parameters
from chanproxy.manager.varlink import Call, interfaceDescription
from chanproxy.wake.alarms import TooManyAlarms
from chanproxy.wake.counter import CounterError, MessageCounter
from chanproxy.wake.locks import TooManyWakeLocks, WakeLockError
from chanproxy.wake.sources import (
    EVENTS,
    TooManyWakeSources,
    WakeSource,
    WakeSourceError,
    WakeSourceExists,
)

_PROXY = 3
"""Descriptors that a channel takes: its two ends, and its counter."""

LONGEST = 10 * 365 * 86400.0
"""Seconds: ten years; a longer timeout is a mistake in the unit."""


@define
class Reply:
    """
    What a method answers.

    @ivar descriptors: go with the reply; owned by it.
    """

    parameters: Mapping[str, Any] = field(factory=dict)
    descriptors: list[int] = field(factory=list)


@define(eq=False)
class Caller:
    """
    One connection, as the methods see it.

    @ivar who: for people: process and user.
    @ivar watch: makes the connection a watcher, which answers again and again.
    @ivar account: its user's.
    @ivar home: the container that its socket is for; none: it says which one it means.
    @ivar ending: what else to do when it is gone, by a name for taking it back.
    """

    who: str
    rights: Rights
    watch: Callable[[Callable[[IWakeWatcher], None]], IWakeWatcher]
    account: Account
    home: str | None = None
    sources: dict[WakeSource, Container] = field(factory=dict, init=False)
    proxies: set[ChannelProxy] = field(factory=set, init=False)
    holding: set[Container] = field(factory=set, init=False)
    ending: dict[str, Callable[[], object]] = field(factory=dict, init=False)

    def gone(self) -> None:
        """The connection has ended, and with it what was made for its time."""
        for end in list(self.ending.values()):
            end()
        self.ending.clear()
        for proxy in list(self.proxies):
            proxy.stop()
        for source, container in self.sources.items():
            if source in container.sources:
                container.sources.remove(source)
        self.sources.clear()
        for container in self.holding:
            container.sources.locks.releaseAll(self)
        self.holding.clear()


Method = Callable[[Any, Caller, Call, Parameters, Handed], "Reply | Deferred[Reply] | None"]


class Manager:
    """Carries out calls."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        containers: Callable[[], Mapping[str, Container]],
        buffer: PeekBuffer,
    ) -> None:
        """
        @param containers: those of the service at this moment, by name.
        @param buffer: shared by the channels.
        """
        self._reactor = reactor
        self._containers = containers
        self._buffer = buffer

    def dispatch(
        self, caller: Caller, call: Call, handed: Handed
    ) -> Reply | Deferred[Reply] | None:
        """
        Carry out one call.

        @param handed: the call's descriptors; what the method does not take is the caller's still.
        @return: the reply, now or later; L{None} when the connection itself goes on answering.
        @raise VarlinkError: the error reply.  A Deferred may fail with it, too.
        """
        methods = self.methods().get(call.interface)
        if methods is None:
            raise InterfaceNotFound(call.interface)
        method = methods.get(call.name)
        if method is None:
            raise MethodNotFound(call.method)
        if not caller.rights.any and call.interface == MANAGER:
            raise noAccess(caller.who)
        return method(self, caller, call, Parameters(call.parameters), handed)

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """What can be called, by interface and name."""
        return METHODS

    def _container(self, caller: Caller, parameters: Parameters) -> Container:
        if caller.home is None:
            name = parameters.text("container")
        else:
            name = parameters.text("container", caller.home)
        if not caller.rights.allows(name):
            if caller.home is not None:
                raise PermissionDenied(
                    f"{caller.who} has no access to the container {name!r}: this socket is for "
                    f"{caller.home} alone"
                )
            raise PermissionDenied(
                f"{caller.who} has no access to the container {name!r}; "
                "the configuration gives it in a table [access.NAME]"
            )
        containers = self._containers()
        if name not in containers:
            raise ContainerNotFound(name)
        return containers[name]

    def _expectRoom(self, caller: Caller, container: Container, count: int) -> None:
        """
        See that so many descriptors may be kept.

        @raise VarlinkError: they may not; it names the limit.
        """
        wrong = container.whyNoRoom(count, caller.rights.administers)
        try:
            if wrong is not None:
                raise wrong
            caller.account.expect(count)
        except TooManyDescriptors as error:
            raise LimitExceeded(error.limit, str(error)) from error

    # org.varlink.service

    def getInfo(self, caller: Caller, call: Call, parameters: Parameters, handed: Handed) -> Reply:
        """What answers here."""
        from chanproxy import __version__

        parameters.end()
        handed.expect()
        return Reply(
            {
                "vendor": "chanproxy",
                "product": "chanproxy",
                "version": __version__,
                "url": "",
                "interfaces": [SERVICE, MANAGER],
            }
        )

    def getInterfaceDescription(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """The interface file."""
        interface = parameters.text("interface")
        parameters.end()
        handed.expect()
        if interface not in METHODS:
            raise InterfaceNotFound(interface)
        return Reply({"description": interfaceDescription(interface)})

    # org.chanproxy.Manager

    def proxyWakeChannel(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Carry messages between two sockets that somebody else connected."""
        container = self._container(caller, parameters)
        name = parameters.text("name")
        kind = parameters.choice("counter", "shared", "shared", "handled")
        initial = parameters.whole("initial", 0, 0, 1)
        lifetime = lifetimeOf(parameters)
        parameters.end()
        handed.expect("container_channel", "remote_channel", "counter")
        if kind == "shared" and not caller.rights.trusts(container.name):
            raise PermissionDenied(
                f"{caller.who} is not trusted with a shared counter: give an eventfd to which "
                "handled messages are written, and counter = handled; or set trusted = true "
                "in its table [access.NAME]"
            )
        if kind == "shared" and initial:
            raise InvalidParameter(
                "initial", "a shared counter is given with its value; make the eventfd with 1"
            )
        self._expectRoom(caller, container, _PROXY)
        handed.channel("container_channel")
        handed.channel("remote_channel")
        handed.different("remote_channel", "container_channel")
        counter, reports = self._counterOf(handed, kind, initial)
        ends = [
            handed.connect("container_channel", ContainerProtocol(), self._reactor, self._buffer),
            handed.connect("remote_channel", RemoteProtocol(), self._reactor, self._buffer),
        ]
        inner, outer = ends
        assert isinstance(inner, ContainerProtocol)
        assert isinstance(outer, RemoteProtocol)
        try:
            proxy = container.channels.proxy(inner, outer, name, counter, None, reports)
        except BaseException as error:
            for end in ends:
                end.transport.close()  # type: ignore[union-attr]  # as just made
            _dispose(counter, reports)
            if isinstance(error, CannotPair):
                raise InvalidParameter("remote_channel", str(error)) from error
            if isinstance(error, WakeSourceError):
                raise _sourceError("counter", name, error) from error
            raise
        caller.account.keep(_PROXY, lambda: not proxy.ended)
        if lifetime == "connection":
            caller.proxies.add(proxy)
            proxy.whenEnded().addCallback(lambda _: caller.proxies.discard(proxy))
        return Reply()

    def _counterOf(
        self, handed: Handed, kind: str, initial: int
    ) -> tuple[MessageCounter, Reports | None]:
        descriptor = handed.peek("counter")
        if kind == "shared":
            try:
                counter = MessageCounter.fromDescriptor(self._reactor, descriptor)
            except CounterError as error:
                raise InvalidParameter("counter", str(error)) from error
            handed.taken("counter")
            return counter, None
        counter = MessageCounter(self._reactor, initial)
        try:
            reports = Reports(self._reactor, counter, descriptor)
        except CounterError as error:
            counter.close()
            raise InvalidParameter("counter", str(error)) from error
        except BaseException:
            counter.close()
            raise
        handed.taken("counter")
        return counter, reports

    def addWakeSource(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Register a descriptor."""
        container = self._container(caller, parameters)
        name = parameters.text("name")
        events = parameters.names("events", EVENTS)
        lifetime = lifetimeOf(parameters)
        parameters.end()
        handed.expect("source")
        descriptor = handed.peek("source")
        if not caller.rights.trusts(container.name) and not polledSafely(descriptor):
            raise InvalidParameter(
                "source",
                f"{caller.who} may give sockets, pipes, eventfds, timerfds, signalfds, pidfds and "
                "inotify descriptors only: asking others for events can take for ever",
            )
        self._expectRoom(caller, container, 1)
        mask = 0
        for event in events:
            mask |= EVENTS[event]
        try:
            source = container.sources.addDescriptor(name, descriptor, mask)
        except WakeSourceError as error:
            raise _sourceError("source", name, error) from error
        caller.account.keep(1, lambda: source in container.sources)
        if lifetime == "connection":
            caller.sources[source] = container
        return Reply()

    def removeWakeSource(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Remove it again."""
        container = self._container(caller, parameters)
        parameters.end()
        handed.expect("source")
        descriptor = handed.peek("source")
        if not caller.rights.trusts(container.name) and not polledSafely(descriptor):
            # It cannot have been registered by one who is not trusted.
            raise WakeSourceNotFound()
        try:
            source = container.sources.find(descriptor)
        except WakeSourceError as error:
            raise _sourceError("source", "", error) from error
        if source is None:
            raise WakeSourceNotFound()
        container.sources.remove(source)
        caller.sources.pop(source, None)
        return Reply()

    def registerWakeWatcher(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply | None:
        """Tell of each change."""
        container = self._container(caller, parameters)
        pipe = parameters.flag("pipe", False)
        parameters.end()
        handed.expect()
        try:
            container.watchers.expectOne()
        except TooManyWatchers as error:
            raise LimitExceeded("limits.wake-watchers", str(error)) from error
        if pipe:
            self._expectRoom(caller, container, 2)
            watcher = PipeWatcher(self._reactor, container.watchers)
            caller.account.keep(1, lambda: not watcher.ended)
            return Reply(descriptors=[watcher.handOver()])
        if not call.more or call.oneway:
            raise ExpectedMore()
        container.watchers.add(caller.watch(container.watchers.remove))
        return None

    def suspendContainer(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Deferred[Reply]:
        """Suspend, and answer after the resume."""
        container = self._container(caller, parameters)
        timeout = parameters.number("timeout", None, 0, LONGEST)
        parameters.end()
        held: WakeSource | None = None
        if len(handed):
            handed.expect("wake_locks")
            self._expectRoom(caller, container, 1)
            descriptor = handed.peek("wake_locks")
            if not caller.rights.trusts(container.name) and not polledSafely(descriptor):
                raise InvalidParameter("wake_locks", "give a socket, a pipe or an eventfd")
            try:
                if container.sources.find(descriptor) is None:
                    held = container.sources.addDescriptor("wake locks", descriptor, EVENTS["in"])
            except WakeSourceError as error:
                raise _sourceError("wake_locks", "wake locks", error) from error

        def over(result: Resumed | Failure) -> Reply:
            if held is not None and held in container.sources:
                container.sources.remove(held)
            if isinstance(result, Failure):
                raise _suspendError(container, result)
            return Reply({"suspend_time": result.asleep, "resume_reason": fitting(result.reason)})

        return container.suspend(timeout).addBoth(over)

    def resumeContainer(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Deferred[Reply]:
        """Wake it, and answer when it is awake."""
        container = self._container(caller, parameters)
        reason = parameters.text("reason", "ResumeContainer")
        parameters.end()
        handed.expect()
        return container.resume(reason).addCallback(lambda _: Reply())

    def acquireWakeLock(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Keep it awake by name."""
        container = self._container(caller, parameters)
        name = parameters.text("name")
        timeout = parameters.number("timeout", None, 0, LONGEST)
        lifetime = lifetimeOf(parameters)
        parameters.end()
        handed.expect()
        holder = caller if lifetime == "connection" else None
        try:
            container.sources.locks.acquire(name, timeout, holder)
        except TooManyWakeLocks as error:
            raise LimitExceeded("limits.wake-locks", str(error)) from error
        if holder is not None:
            caller.holding.add(container)
        return Reply()

    def releaseWakeLock(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Let go of it."""
        container = self._container(caller, parameters)
        name = parameters.text("name")
        lifetime = lifetimeOf(parameters)
        parameters.end()
        handed.expect()
        try:
            container.sources.locks.release(name, caller if lifetime == "connection" else None)
        except WakeLockError as error:
            raise WakeLockNotHeld(name) from error
        return Reply()

    def openCounter(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Hand out a counter, or where to report what is handled."""
        container = self._container(caller, parameters)
        name = parameters.text("name")
        trusted = caller.rights.trusts(container.name)
        kind = parameters.choice("kind", "shared" if trusted else "handled", "shared", "handled")
        parameters.end()
        handed.expect()
        if kind == "shared" and not trusted:
            raise PermissionDenied(
                f"{caller.who} is not trusted with the counter itself: ask for kind = handled"
            )
        counter = container.channels.openCounter(name)
        if counter is None:
            raise CounterNotFound(name)
        if kind == "shared":
            return Reply({"kind": kind}, [counter.duplicate()])
        reports = container.channels.openReports(name)
        assert reports is not None
        return Reply({"kind": kind}, [reports.duplicate()])

    def wakeAt(self, caller: Caller, call: Call, parameters: Parameters, handed: Handed) -> Reply:
        """Set an alarm, or cancel it."""
        container = self._container(caller, parameters)
        name = parameters.text("name", "alarm")
        at = parameters.number("at", None, 0, 2.0**33)
        parameters.end()
        handed.expect()
        if at is None:
            container.alarms.cancel(name)
            return Reply()
        known = name in container.alarms
        if not known:
            self._expectRoom(caller, container, 1)
        try:
            container.alarms.set(name, at)
        except TooManyAlarms as error:
            raise LimitExceeded("limits.wake-locks", str(error)) from error
        if not known:
            caller.account.keep(1, lambda: name in container.alarms)
        return Reply()

    def listContainers(
        self, caller: Caller, call: Call, parameters: Parameters, handed: Handed
    ) -> Reply:
        """Those that the caller has access to."""
        first = parameters.whole("first_container", 0, 0, 2**31)
        parameters.end()
        handed.expect()
        allowed = (
            summary(container)
            for name, container in self._containers().items()
            if caller.rights.allows(name)
        )
        found, following = portion(allowed, first)
        more = {} if following is None else {"next_container": following}
        return Reply({"containers": found, **more})

    def describe(self, caller: Caller, call: Call, parameters: Parameters, handed: Handed) -> Reply:
        """What a container does, and why."""
        container = self._container(caller, parameters)
        first = parameters.whole("first_source", 0, 0, 2**31)
        parameters.end()
        handed.expect()
        return Reply(description(container, first))


METHODS: dict[str, dict[str, Method]] = {
    SERVICE: {
        "GetInfo": Manager.getInfo,
        "GetInterfaceDescription": Manager.getInterfaceDescription,
    },
    MANAGER: {
        "ProxyWakeChannel": Manager.proxyWakeChannel,
        "AddWakeSource": Manager.addWakeSource,
        "RemoveWakeSource": Manager.removeWakeSource,
        "RegisterWakeWatcher": Manager.registerWakeWatcher,
        "SuspendContainer": Manager.suspendContainer,
        "ResumeContainer": Manager.resumeContainer,
        "AcquireWakeLock": Manager.acquireWakeLock,
        "ReleaseWakeLock": Manager.releaseWakeLock,
        "OpenCounter": Manager.openCounter,
        "WakeAt": Manager.wakeAt,
        "ListContainers": Manager.listContainers,
        "Describe": Manager.describe,
    },
}


def noAccess(who: str) -> PermissionDenied:
    """For those who may do nothing at all."""
    return PermissionDenied(
        f"{who} has no access; the configuration gives it in a table [access.NAME]"
    )


def lifetimeOf(parameters: Parameters) -> str:
    """Until the connection ends, or longer."""
    return parameters.choice("lifetime", "service", "service", "connection")


def _dispose(counter: MessageCounter, reports: Reports | None) -> None:
    counter.close()
    if reports is not None:
        reports.close()


def _sourceError(field: str, name: str, error: WakeSourceError) -> Exception:
    if isinstance(error, WakeSourceExists):
        return errors.WakeSourceExists(name)
    if isinstance(error, TooManyWakeSources):
        return LimitExceeded("limits.wake-sources", str(error))
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
        return LimitExceeded("fs.epoll.max_user_watches", str(error))
    if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        # It is not the descriptor that is wrong.
        return cause
    return InvalidParameter(field, str(error))


def _suspendError(container: Container, failure: Failure) -> VarlinkError:
    error = failure.value
    if isinstance(error, WakeLocksExist):
        names, _ = portion(error.names, 0)
        return errors.WakeLocksExist(names)
    if isinstance(error, AlreadySuspended):
        return errors.AlreadySuspended(container.suspension.state)
    if isinstance(error, SuspendFailure):
        return errors.SuspendFailure(str(error))
    failure.raiseException()
    raise AssertionError
