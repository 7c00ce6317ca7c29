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
from chanproxy.interfaces import (
    Batch,
    ChannelBroken,
    ChannelClosed,
    IChannel,
    IChannelUser,
    IHandledPolicy,
)
from chanproxy.wake.counter import CounterError, MessageCounter

TURN = 4
"""
Batches that one direction carries before others have their turn: 256 packets, or a MiB of a stream.
While few channels are busy, the poller goes round some more times before the reactor has its turn.
"""


class CannotPair(Exception):
    """Two channels cannot be connected as they are; the text says why, and what could be done."""


def whyNotPaired(
    container: IChannel, remote: IChannel, refuseDescriptors: bool = False
) -> str | None:
    """
    Whether one end can carry what the other brings.

    @param refuseDescriptors: it is meant that a message with descriptors ends the connection, where
        only one end carries them.
    @return: what is wrong and what could be done, or L{None}.
    """
    if container.family != remote.family:
        return "only one end keeps message boundaries; give two ends of the same kind"
    if container.carriesDescriptors != remote.carriesDescriptors and not refuseDescriptors:
        return "only one end can carry descriptors; give two ends that can, or two that cannot"
    return None


@frozen
class Traffic:
    """What went through in one direction, up to an instant."""

    messages: int = 0
    descriptors: int = 0


class _Direction:
    """
    One loop of four verbs, from one channel to the other.

    @ivar messages: what went through, and C{descriptors} likewise.
    """

    __slots__ = (
        *("_blocked", "_counted", "_policy", "_proxy", "_told", "descriptors", "ended"),
        *("inbound", "messages", "sink", "source"),
    )

    def __init__(
        self,
        source: IChannel,
        sink: IChannel,
        proxy: ChannelProxy,
        policy: IHandledPolicy,
        inbound: bool,
    ) -> None:
        """@param inbound: messages are counted before they are sent; others answer them."""
        self.source = source
        self.sink = sink
        self.inbound = inbound
        self.ended = False
        self.messages = 0
        self.descriptors = 0
        # Not their methods: a bound one for each would be memory that idle channels pay for.
        self._proxy = proxy
        self._policy = policy
        self._counted = 0
        self._told = 0
        self._blocked = False

    @property
    def towards(self) -> str:
        """C{to} or C{from} the container."""
        return "to" if self.inbound else "from"

    def traffic(self) -> Traffic:
        """What went through until now."""
        return Traffic(self.messages, self.descriptors)

    def writable(self) -> None:
        """The sink has room again."""
        if self._blocked:
            self._blocked = False
            self.pump()
            if not self.inbound:
                self._proxy.roomMade()

    def pump(self) -> None:
        """Carry what is there, until nothing is, the sink is full, or others want their turn."""
        if self.ended or self._blocked:
            return
        source = self.source
        for _ in range(TURN):
            batch = source.peek()
            try:
                if len(batch) == 0:
                    if batch.ended:
                        self._finish()
                        return
                    break
                if not (self._carry if trace.active is None else self._carryTraced)(batch):
                    return
                # Without more, it is cheaper to be told than to look.
                if not batch.more:
                    break
            finally:
                batch.close()
        source.waitReadable(True)

    def _carryTraced(self, batch: Batch) -> bool:
        tracing = trace.active
        assert tracing is not None
        name = self._proxy.name
        tracing.forwarding(name, self.towards, batch.messagesIn(len(batch)))
        try:
            return self._carry(batch)
        finally:
            tracing.forwarded(name)

    def _carry(self, batch: Batch) -> bool:
        """Count, send, take one batch; whether all of it went."""
        units = len(batch)
        if self.inbound:
            self._countUpTo(batch.messagesIn(units))
        try:
            sent = self.sink.send(batch)
        except ChannelClosed:
            # What is left here can never arrive.  The other direction finds the end, after all
            # that the sink's peer sent before it went.
            self.ended = True
            self.source.waitReadable(False)
            self.source.finishReceiving()
            self.source.waitGone()
            return False
        self.source.take(sent)
        went = batch.messagesIn(sent)
        self.messages += went
        self.descriptors += batch.descriptorsIn(sent)
        if self.inbound:
            self._counted -= went
            if sent < units:
                # The rest of a run is a message of its own; of packets, it is counted already.
                self._countUpTo(1)
            if self._counted != self._told:
                self._told = self._counted
                self._policy.sending(self._counted)
        else:
            # Also what the remote does not take yet: the container has sent it.
            self._policy.answered(went)
        if sent < units:
            self._blocked = True
            self.source.waitReadable(False)
            self.sink.waitWritable()
            return False
        return True

    def _countUpTo(self, messages: int) -> None:
        """Count what is not counted yet of the messages at the head."""
        if messages > self._counted:
            self._proxy.countIn(messages - self._counted)
            self._counted = messages

    def _finish(self) -> None:
        self.ended = True
        self.source.waitReadable(False)
        if self.inbound:
            self._proxy.inboundEnded()
        if not self.source.peerGone():
            # Only half closed: its peer may still receive.
            self.sink.finishSending()
            self.source.waitGone()
            outboundEnded = getattr(self._policy, "outboundEnded", None)
            if outboundEnded is not None and not self.inbound:
                outboundEnded()


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
        noticed: Callable[[], None] | None = None,
        refuseDescriptors: bool = False,
        onEnd: Callable[[ChannelProxy], None] | None = None,
        onRoom: Callable[[], None] | None = None,
    ) -> None:
        """
        @param container: connected, and not paired yet; as is C{remote}.
        @param policy: told of each counted message; closed with the proxy.
        @param noticed: called when the remote's end-of-file goes to the container.
        @param refuseDescriptors: see L{whyNotPaired}.
        @param onRoom: called when the remote takes again what the container sends.
        @param onEnd: called when both ends are closed; cheaper than L{whenEnded}.
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
        self._onEnd = onEnd
        self._onRoom = onRoom
        self._waitingForEnd: list[Deferred[None]] | None = None
        self._over = False
        self._noticed = noticed
        self._inbound = _Direction(remoteEnd, containerEnd, self, policy, True)
        self._outbound = _Direction(containerEnd, remoteEnd, self, policy, False)
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

    def _run(self, *directions: _Direction) -> None:
        for direction in directions:
            self._guard(direction, direction.pump)
        self._afterwards()

    def _guard(self, direction: _Direction, step: Callable[[], None]) -> None:
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
