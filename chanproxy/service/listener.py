"""
ChannelListener: what listens for a channel's connections, and makes a channel proxy of each.

Below the service, above containers and endpoints.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import config
from chanproxy.carry.noticed import Noticed
from chanproxy.carry.pairing import CannotPair
from chanproxy.carry.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.channels.adapter import EndpointFactory
from chanproxy.channels.base import SocketChannel
from chanproxy.channels.buffered import EndpointChannel
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.framed import FramedChannel
from chanproxy.channels.kinds import hangUp
from chanproxy.container import Container
from chanproxy.container.channels import Carriage
from chanproxy.endpoints.addresses import Address, SocketAddress
from chanproxy.endpoints.ports import ChannelPort
from chanproxy.interfaces import ChanproxyReactor, IByteChannel, IChannel, PluginError
from chanproxy.kernel.descriptors import whyScarce
from chanproxy.kernel.keepalive import Keeper
from chanproxy.service.connecting import Connecting
from chanproxy.service.doorkeeper import Doorkeeper, Ways
from chanproxy.service.ondemand import OnDemand, reach
from chanproxy.service.startable import (
    CannotStart,
    makeServer,
    whyNotSuited,
    whyNotUsable,
)
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.source import WakeSourceError
from chanproxy.words import safe

CONNECTION = 3
"""Descriptors that a connection takes: its two ends, and its counter."""


_log = Logger()


class ChannelListener(Factory):
    """Makes one channel proxy of each connection to a channel's C{listen} address."""

    noisy = False

    def __init__(
        self,
        reactor: ChanproxyReactor,
        container: Container,
        channel: config.Channel,
        limits: config.Limits,
        buffer: PeekBuffer,
        demand: OnDemand | None = None,
    ) -> None:
        """
        @param demand: what has the container started, if something can.
        @raise WakeSourceError: the container has too many.
        @raise CannotStart: see L{start}.
        """
        self._reactor = reactor
        self._container = container
        self._channel = channel
        self._name = f"{container.name}/{channel.name}"
        self._opened = 0
        self._demand = demand if channel.initiator == "remote" else None
        self._dials: dict[Deferred[IProtocol], ContainerProtocol | RemoteProtocol] = {}
        self._limits = limits
        self._connecting = Connecting(reactor, channel, limits, buffer)
        self._buffer = buffer
        self._keeper = Keeper(reactor, channel.keepalive)
        self._port: IListeningPort | None = None
        self._opening: Deferred[IListeningPort] | None = None
        self._noticed: Noticed = container.channels.notices(self._name)
        ways = Ways(self._connecting.ask, self._letIn)
        self._door = Doorkeeper(reactor, container, channel, self._name, self._noticed, ways)
        self._counter: MessageCounter | None = None
        explicit = channel.handled == "explicit"
        if explicit:
            # One for all its connections, so that its users need not know them apart.
            try:
                self._counter = container.channels.keepCounter(channel.name, channel.initial)
            except WakeSourceError:
                container.channels.drop(self._noticed, None)
                raise
        self._unhandled = channel.initial == 1 and not explicit
        if self._unhandled:
            self._noticed.hold()

    def start(self) -> None:
        """
        Listen.

        @raise CannotStart: what is wrong, and what to do; nothing is left behind.
        """
        listen = self._channel.listen
        for key, wrong in whyNotUsable(self._reactor, self._channel):
            raise CannotStart(key, wrong)
        if isinstance(listen, SocketAddress):
            self._listen(listen)
        else:
            self._open(listen)
        if self._channel.handled == "explicit":
            _log.info(
                "{name}: handled = explicit: the container stays awake from a message on, until "
                "whoever holds the channel's counter (OpenCounter, {channel}) reads it down",
                name=self._name,
                channel=self._channel.name,
            )

    def _listen(self, address: SocketAddress) -> None:
        if address.traits.family is None and address.whyNotBindable() is None:
            for key, wrong in whyNotSuited(self._channel, address):
                raise CannotStart(key, wrong)
        port = ChannelPort(
            self._reactor,
            address,
            self,
            self._buffer,
            bare=True,
            room=self._whyNoRoom,
            lines=self._limits.logLines,
        )
        try:
            port.startListening()
        except CannotListenError as error:
            raise CannotStart("listen", str(error.socketError)) from error
        self._port = port

    def _whyNoRoom(self) -> str:
        """Why no connection can be accepted now; empty: one can."""
        wrong = self._container.whyNoRoom(CONNECTION, owner=True)
        return whyScarce() if wrong is None else str(wrong)

    def _open(self, address: Address) -> None:
        endpoint = makeServer(self._reactor, address)
        factory = EndpointFactory(self._reactor, self, self._limits.endpointBuffer)
        failed: list[Failure] = []
        self._opening = endpoint.listen(factory)
        self._opening.addCallbacks(self._listens, failed.append)
        if failed:
            raise CannotStart("listen", failed[0].getErrorMessage())
        if self._opening is not None:
            # Rare: most endpoints listen at once, and whoever does not says late that it cannot.
            self._opening.addCallback(lambda _: _sayWhyNot(self._name, failed))

    def _listens(self, port: IListeningPort) -> None:
        self._port, self._opening = port, None

    def stop(self) -> Deferred[None]:
        """Accept no more, give up what is being connected; what stands is not touched."""
        for dial, accepted in list(self._dials.items()):
            dial.cancel()
            hangUp(accepted)
        self._door.stop()
        if self._opening is not None:
            self._opening.cancel()
        if self._port is None:
            return succeed(None)
        return cast("Deferred[None]", maybeDeferred(self._port.stopListening))

    def end(self) -> Deferred[None]:
        """Likewise, and end those that stand, carrying first what can be carried."""
        stopped = self.stop()
        self._container.channels.drop(self._noticed, self._counter)
        return stopped

    def limit(self, limits: config.Limits) -> None:
        """Other limits, of which some are for connections that are made from now on."""
        self._limits = limits
        self._connecting.limit(limits)
        if isinstance(self._port, ChannelPort):
            self._port.lines.most = limits.logLines

    @property
    def container(self) -> Container:
        """Whose channel it is."""
        return self._container

    @property
    def port(self) -> IListeningPort | None:
        """What listens; L{None} before and, with some endpoints, shortly after L{start}."""
        return self._port

    def buildProtocol(self, address: object) -> Protocol:
        """Somebody connected to C{listen}."""
        return self._door.meet() or self._accepted()

    def _accepted(self) -> ContainerProtocol | RemoteProtocol:
        accepted = ContainerProtocol() if self._fromContainer else RemoteProtocol()
        accepted.onConnected = lambda: self._dial(accepted)
        return accepted

    def _letIn(self, channel: IChannel) -> None:
        """Somebody who has been looked at, and has not been answered."""
        at = cast(IByteChannel, channel)
        at.protocol = accepted = self._accepted()
        cast(IProtocol, accepted).makeConnection(cast(ITransport, channel))

    @property
    def _fromContainer(self) -> bool:
        return self._channel.initiator == "container"

    def _dial(self, accepted: ContainerProtocol | RemoteProtocol) -> None:
        self._opened += 1
        name = f"{self._name}#{self._opened}"
        if not self._fromContainer and self._counter is None:
            self._noticed.happened()
        other = RemoteProtocol() if self._fromContainer else ContainerProtocol()
        try:
            dial = reach(self._demand, partial(self._connecting.dial, other, accepted))
        except OSError as error:
            self._failed(Failure(error), name, accepted)
            return
        if not dial.called:
            # Perhaps the backlog is full: only an awake container empties it.
            self._noticed.hold()
            self._container.dialling += 1
            self._dials[dial] = accepted

            def over(result: object) -> object:
                del self._dials[dial]
                self._container.dialling -= 1
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
        channel = self._channel
        try:
            for side in (container, remote):
                cast(SocketChannel | EndpointChannel, side.transport).keepAlive(self._keeper)
            if channel.framing != "none":
                _frame(container, self._limits.messageBytes)
                _frame(remote, self._limits.messageBytes)
            carriage = Carriage(
                channel.handled,
                channel.silence,
                # Who dials asks: what comes in to a container that did is the answer.
                0.0 if self._fromContainer else channel.unanswered,
                self._firstHandled if self._unhandled else None,
                channel.descriptors == "refuse",
            )
            self._container.channels.proxy(
                container, remote, name, self._counter, noticed, carriage=carriage
            )
        except Exception:
            hangUp(dialled)
            raise
        self._container.lines.info("{name}: open", name=name)

    def _firstHandled(self) -> None:
        if self._unhandled:
            self._unhandled = False
            self._noticed.release()

    def _failed(
        self, failure: Failure, name: str, accepted: ContainerProtocol | RemoteProtocol
    ) -> None:
        if not failure.check(CancelledError):
            self._container.lines.warn(
                "{name}: connection closed: {why} "
                "(containers.{container}.channels.{channel}.{key})",
                name=name,
                why=safe(failure.getErrorMessage()),
                key=_keyOf(failure),
                container=self._container.name,
                channel=self._channel.name,
            )
        # No end in order: nobody was there.
        hangUp(accepted, abort=True)


def _sayWhyNot(name: str, failed: list[Failure]) -> None:
    for failure in failed:
        if not failure.check(CancelledError):
            why = safe(failure.getErrorMessage())
            _log.error("{name}: does not listen: {why}", name=name, why=why)


def _frame(side: ContainerProtocol | RemoteProtocol, messageBytes: int) -> None:
    """Have a stream keep message boundaries."""
    below = cast(IByteChannel, side.transport)
    if below.family == "bytes":
        side.transport = cast(ITransport, FramedChannel(below, messageBytes))


def _keyOf(failure: Failure) -> str:
    """Which key of a channel a connection has failed for."""
    if failure.check(PluginError):
        return "handled"
    return "descriptors" if failure.check(CannotPair) else "connect"
