"""
The loop of one direction: four verbs, from one channel to the other.

Knows channels and policies by their interfaces; knows nothing of who ends it.
"""

from __future__ import annotations

from typing import Protocol as TypingProtocol

from attrs import frozen

from chanproxy import trace
from chanproxy.interfaces import (
    Batch,
    ChannelClosed,
    IChannel,
    IHandledPolicy,
)

TURN = 4
"""
Batches that one direction carries before others have their turn: 256 packets, or a MiB of a stream.
While few channels are busy, the poller goes round some more times before the reactor has its turn.
"""


@frozen
class Traffic:
    """What went through in one direction, up to an instant."""

    messages: int = 0
    descriptors: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.messages + other.messages, self.descriptors + other.descriptors)


class Carrying(TypingProtocol):
    """The proxy that two directions are of."""

    name: str

    def countIn(self, count: int) -> None: ...
    def roomMade(self) -> None: ...
    def inboundEnded(self) -> None: ...


class Direction:
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
        proxy: Carrying,
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
