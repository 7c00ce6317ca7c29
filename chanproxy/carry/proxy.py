"""
ChannelProxy: the protocol pair that carries one remote-side channel to one container-side channel.

Peek, count, send, take: a message is never ours.  Knows counters and a policy; knows nothing of
freezers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy import trace
from chanproxy.carry.loop import Direction, Traffic
from chanproxy.carry.pairing import CannotPair, whyNotPaired
from chanproxy.interfaces import (
    ChannelBroken,
    IChannel,
    IChannelUser,
    IHandledPolicy,
)
from chanproxy.wake.counter import CounterError, MessageCounter


@implementer(IChannelUser)
class _Side(Protocol):
    """One end of a channel proxy; silent until it is paired."""

    called: ClassVar[str]
    proxy: ChannelProxy | None = None
    onConnected: Callable[[], None] | None = None

    def connectionMade(self) -> None:
        """The transport is ready."""
        # Once, and it holds what was needed for that.
        connected, self.onConnected = self.onConnected, None
        if connected is not None:
            connected()

    def channelReadable(self) -> None:
        """See L{IChannelUser}."""
        if self.proxy is not None:
            self.proxy.readable(self)

    def channelWritable(self) -> None:
        """See L{IChannelUser}."""
        if self.proxy is not None:
            self.proxy.writable(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is closed."""
        if self.proxy is not None:
            self.proxy.sideLost(self, reason)


class RemoteProtocol(_Side):
    """The end towards the peer outside."""

    called = "remote"


class ContainerProtocol(_Side):
    """The end towards the container."""

    called = "container"


@frozen
class Callbacks:
    """
    What a proxy calls on some occasions; None: nothing.

    @ivar noticed: the remote's end-of-file goes to the container.
    @ivar roomMade: the remote takes again what the container sends.
    @ivar ended: both ends are closed; cheaper than L{ChannelProxy.whenEnded}.
    """

    noticed: Callable[[], None] | None = None
    roomMade: Callable[[], None] | None = None
    ended: Callable[[ChannelProxy], None] | None = None


_NONE = Callbacks()


class ChannelProxy:
    """
    Two channels, a counter, a name; carries messages from its making until one end is done.

    @ivar name: what people read in log lines and resume reasons.
    @ivar counter: counts messages into the container; its owner's, not closed here.
    """

    __slots__ = (
        *("__weakref__", "_container", "_inbound", "_noticed", "_onEnd", "_onRoom", "_outbound"),
        *("_over", "_policy", "_remote", "_waitingForEnd", "counter", "name"),
    )

    _log = Logger()

    def __init__(
        self,
        container: ContainerProtocol,
        remote: RemoteProtocol,
        counter: MessageCounter,
        name: str,
        policy: IHandledPolicy,
        refuseDescriptors: bool = False,
        callbacks: Callbacks = _NONE,
    ) -> None:
        """
        @param container: connected, and not paired yet; as is C{remote}.
        @param policy: told of each counted message; closed with the proxy.
        @param refuseDescriptors: see L{whyNotPaired}.
        @raise CannotPair: see L{whyNotPaired}; nothing has been touched.
        """
        containerEnd: IChannel = container.transport  # type: ignore[assignment]  # see IChannel
        remoteEnd: IChannel = remote.transport  # type: ignore[assignment]  # see IChannel
        wrong = whyNotPaired(containerEnd, remoteEnd, refuseDescriptors)
        if wrong is not None:
            raise CannotPair(wrong)
        self.name = name
        self.counter = counter
        self._policy = policy
        self._container = container
        self._remote = remote
        # Not the object that brought them, of which there would be one for each connection.
        self._noticed = callbacks.noticed
        self._onRoom = callbacks.roomMade
        self._onEnd = callbacks.ended
        self._waitingForEnd: list[Deferred[None]] | None = None
        self._over = False
        self._inbound = Direction(remoteEnd, containerEnd, self, policy, True)
        self._outbound = Direction(containerEnd, remoteEnd, self, policy, False)
        container.proxy = remote.proxy = self
        if trace.active is not None:
            trace.active.channelEntered(name)
        self._run(self._inbound, self._outbound)

    @property
    def inbound(self) -> Traffic:
        """What went into the container."""
        return self._inbound.traffic()

    @property
    def outbound(self) -> Traffic:
        """What came out of it."""
        return self._outbound.traffic()

    def noticedBy(self, noticed: Callable[[], None]) -> bool:
        """Whether that is told of the remote's end-of-file."""
        return self._noticed == noticed

    @property
    def ended(self) -> bool:
        """Whether both ends are closed."""
        return self._over

    @property
    def closedByContainer(self) -> bool:
        """Whether the container has closed its end, or its sending."""
        return self._outbound.ended

    def countIn(self, count: int) -> None:
        """Messages are about to go to the container."""
        self.counter.add(count)
        if trace.active is not None:
            trace.active.counted(self.name, count)
        self._policy.counted(count)

    def roomMade(self) -> None:
        """What the container sends is taken again, and it may have been frozen while it waited."""
        if self._onRoom is not None:
            self._onRoom()

    def inboundEnded(self) -> None:
        """The remote's end-of-file is about to go to the container."""
        if self._noticed is not None:
            self._noticed()

    def readable(self, side: _Side) -> None:
        """A side has something to peek, or its peer has gone."""
        if trace.active is not None and not self._over:
            trace.active.channelReady(self.name, f"{side.called} readable")
        direction = self._inbound if side is self._remote else self._outbound
        self._guard(direction, direction.pump)
        self._afterwards()

    def writable(self, side: _Side) -> None:
        """A side has room again."""
        if trace.active is not None and not self._over:
            trace.active.channelReady(self.name, f"{side.called} writable")
        direction = self._inbound if side is self._container else self._outbound
        self._guard(direction, direction.writable)
        self._afterwards()

    def _run(self, *directions: Direction) -> None:
        for direction in directions:
            self._guard(direction, direction.pump)
        self._afterwards()

    def _guard(self, direction: Direction, step: Callable[[], None]) -> None:
        if self._over:
            return
        try:
            step()
        except (ChannelBroken, CounterError, OSError) as error:
            if trace.active is not None:
                trace.active.channelFailed(self.name, direction.towards, str(error))
            self._log.warn(
                "{name}: closed, {towards} the container: {error}",
                name=self.name,
                towards=direction.towards,
                error=error,
            )
            self._end()

    def _afterwards(self) -> None:
        if self._over:
            return
        inbound, outbound = self._inbound, self._outbound
        # A direction whose source has gone altogether has nobody left to answer, either.
        if (
            (inbound.ended and outbound.ended)
            or (inbound.ended and inbound.source.peerGone())
            or (outbound.ended and outbound.source.peerGone())
        ):
            self._end()
        elif trace.active is not None:
            trace.active.channelWaiting(self.name)

    def sideLost(self, side: _Side, reason: Failure) -> None:
        """A side's transport is closed, by us or by the reactor's end."""
        if not self._over:
            self._log.warn("{name}: closed: {reason}", name=self.name, reason=reason.value)
            self._end()

    def stop(self) -> None:
        """Carry once more what is there now, then close both ends."""
        self._run(self._inbound, self._outbound)
        self._end()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        if trace.active is not None:
            trace.active.channelExited(self.name)
        self._policy.close()
        ends = self._inbound.sink, self._outbound.sink
        # Not as an end in order: what came from the other one may be a part only.
        reset = [end.wasReset() for end in reversed(ends)]
        for end, broken in zip(ends, reset, strict=True):
            (end.abort if broken else end.close)()
        if self._onEnd is not None:
            self._onEnd(self)
        waiting, self._waitingForEnd = self._waitingForEnd, None
        for waiter in waiting or ():
            waiter.callback(None)

    def whenEnded(self) -> Deferred[None]:
        """Fires when both ends are closed; at once if they are.  Cancellable."""
        if self._over:
            return succeed(None)
        if self._waitingForEnd is None:
            self._waitingForEnd = []
        waiter: Deferred[None] = Deferred(self._waitingForEnd.remove)
        self._waitingForEnd.append(waiter)
        return waiter
