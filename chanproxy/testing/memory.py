"""
A channel without a kernel: packets in a queue of this process, for tests that need no sockets.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import Self, cast

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.interfaces import Batch, ChannelClosed, IChannel, IChannelUser
from chanproxy.kernel.calls import closeAll

CAPACITY = 16
"""Packets that one direction holds: few, so that tests meet a full one."""


@define(eq=False)
class _Queue:
    """One direction: what was sent and not taken."""

    packets: deque[tuple[bytes, list[int]]] = field(factory=deque)
    ended: bool = False
    deaf: bool = False

    def send(self, data: bytes, descriptors: list[int]) -> bool:
        """Whether it was accepted; it has duplicates of the descriptors then."""
        if self.ended or self.deaf:
            raise ChannelClosed("the peer receives no more")
        if len(self.packets) >= CAPACITY:
            return False
        self.packets.append((data, [os.dup(fd) for fd in descriptors]))
        return True

    def drop(self) -> None:
        """Nobody will ever receive it."""
        self.deaf = True
        while self.packets:
            closeAll(self.packets.popleft()[1])


@define(eq=False)
class MemoryBatch:
    """Packets that a L{MemoryChannel} peeked."""

    packets: list[tuple[bytes, list[int]]] = field(factory=list)
    ended: bool = False
    more: bool = False

    family = "packets"

    def __len__(self) -> int:
        return len(self.packets)

    def messagesIn(self, units: int) -> int:
        """Each packet is a message."""
        return units

    def descriptorsIn(self, units: int) -> int:
        """How many the first packets have."""
        return sum(len(descriptors) for _, descriptors in self.packets[:units])

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """Each packet with its descriptors."""
        for data, descriptors in self.packets:
            yield memoryview(data), descriptors

    def close(self) -> None:
        """Close the duplicates."""
        for _, descriptors in self.packets:
            closeAll(descriptors)
            descriptors.clear()


@implementer(IChannel)
class MemoryChannel:
    """One end of a pair."""

    family = "packets"
    carriesDescriptors = True
    showsUnread = False

    def __init__(self, clock: IReactorTime, incoming: _Queue, outgoing: _Queue) -> None:
        self._clock = clock
        self._incoming = incoming
        self._outgoing = outgoing
        self._other: MemoryChannel | None = None
        self._closed = False
        self._wantsReadable = self._wantsWritable = self._wantsGone = False
        self._scheduled = False
        self.protocol: IProtocol | None = None

    @classmethod
    def pair(cls, clock: IReactorTime) -> tuple[Self, Self]:
        """Two connected ends; events come by the clock's next turns."""
        there, back = _Queue(), _Queue()
        one, other = cls(clock, there, back), cls(clock, back, there)
        one._other, other._other = other, one
        return one, other

    def peek(self) -> MemoryBatch:
        """See L{IChannel.peek}."""
        waiting = self._incoming.packets
        return MemoryBatch(
            [(data, [os.dup(fd) for fd in descriptors]) for data, descriptors in waiting],
            self._incoming.ended and not waiting,
        )

    def send(self, batch: Batch) -> int:
        """See L{IChannel.send}."""
        sent = 0
        for data, descriptors in batch.messages():
            if not self._outgoing.send(bytes(data), descriptors):
                break
            sent += 1
        self._changed()
        return sent

    def take(self, count: int) -> None:
        """See L{IChannel.take}."""
        for _ in range(count):
            closeAll(self._incoming.packets.popleft()[1])
        self._changed()

    def waitReadable(self, wanted: bool) -> None:
        """See L{IChannel.waitReadable}."""
        self._wantsReadable = wanted
        self._schedule()

    def waitWritable(self) -> None:
        """See L{IChannel.waitWritable}."""
        self._wantsWritable = True
        self._schedule()

    def waitGone(self) -> None:
        """See L{IChannel.waitGone}."""
        self._wantsGone = True
        self._schedule()

    def _changed(self) -> None:
        for end in (self, self._other):
            if end is not None:
                end._schedule()

    def _schedule(self) -> None:
        if not (self._scheduled or self._closed) and (self._readable() or self._writable()):
            self._scheduled = True
            self._clock.callLater(0, self._tell)

    def _readable(self) -> bool:
        here = self._wantsReadable and bool(self._incoming.packets or self._incoming.ended)
        return here or (self._wantsGone and self.peerGone())

    def _writable(self) -> bool:
        out = self._outgoing
        return self._wantsWritable and (len(out.packets) < CAPACITY or out.deaf)

    def _tell(self) -> None:
        self._scheduled = False
        user = cast(IChannelUser, self.protocol)
        if not self._closed and self._writable():
            self._wantsWritable = False
            user.channelWritable()
        if not self._closed and self._readable():
            self._wantsGone = self._wantsGone and not self.peerGone()
            user.channelReadable()
        # By level: as long as it is wanted and true.
        self._schedule()

    def finishSending(self) -> None:
        """See L{IChannel.finishSending}."""
        self._outgoing.ended = True
        self._changed()

    def finishReceiving(self) -> None:
        """See L{IChannel.finishReceiving}."""
        self._incoming.drop()
        self._changed()

    def peerGone(self) -> bool:
        """See L{IChannel.peerGone}."""
        return self._closed or (self._incoming.ended and self._outgoing.deaf)

    def close(self) -> None:
        """See L{IChannel.close}."""
        if self._closed:
            return
        self._closed = True
        self._outgoing.ended = True
        self._incoming.drop()
        self._changed()
        self._clock.callLater(0, self._tellLost)

    def wasReset(self) -> bool:
        """See L{IChannel.wasReset}."""
        return False

    def abort(self) -> None:
        """See L{IChannel.abort}."""
        self.close()

    def _tellLost(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(ConnectionDone()))

    def fileno(self) -> int:
        """There is none."""
        return -1
