"""
Policies: how it is known that the container is done with a message.

A policy knows one counter and, where it has to look, the container's end of one channel.  It knows
nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

import os
import select
from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from zope.interface import implementer

from chanproxy.interfaces import IHandledPolicy
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeForeign
from chanproxy.kernel.poller import Poller
from chanproxy.wake.counter import CounterError, MessageCounter

SILENCE = 10.0
"""Seconds of silence after which the policy C{idle} takes messages as handled, by default."""


LEAST_LINGER = 0.1
"""
Seconds that something counts at least, where nothing shows when it is handled: a freeze that has
begun has to see it.
"""


class Settling(Protocol):
    """Something that finds out only by looking what has been handled."""

    def settle(self) -> None:
        """Look, and take off what has been handled.  Cheap."""

    def arm(self) -> None:
        """From now on look by yourself, whenever the container reads; until all is handled."""


@define
class Ledger:
    """
    What the policies of one container share.

    @ivar activity: grows with whatever was counted; equal at two instants: nothing came between.
    @ivar unsettled: who has counted something that nobody has been seen to handle.
    """

    activity: int = 0
    unsettled: set[Settling] = field(factory=set)


@implementer(IHandledPolicy)
class Explicit:
    """Whoever holds the counter's descriptor reads it down: nothing to look at."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        self._ledger.activity += count

    def sending(self, waiting: int) -> None:
        """How many counted messages the container's socket has not accepted."""

    def answered(self, count: int) -> None:
        """Replies say nothing here."""

    def close(self) -> None:
        """The channel has ended."""


class Reports:
    """
    Where somebody who is not trusted with a counter writes how many messages it has handled.

    Whoever holds a counter can fill it, and make our own next write wait; this eventfd is only
    read, without waiting.  What is reported beyond the count is ignored.
    """

    def __init__(
        self, reactor: IReactorFDSet, counter: MessageCounter, descriptor: int | None = None
    ) -> None:
        """
        @param descriptor: an eventfd, owned by this object when it is made; without one it makes
            its own.
        @raise CounterError: it is no eventfd, or in semaphore mode: each read would give 1 only.
            The descriptor is the caller's still.
        @raise OSError: out of descriptors; likewise.
        """
        made = descriptor is None
        if descriptor is None:
            descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            info = calls.eventfdInfo(descriptor)
            if "eventfd-id" not in info:
                raise CounterError("not an eventfd: make it with eventfd(2)")
            if info.get("eventfd-semaphore") == "1":
                raise CounterError("the eventfd is in semaphore mode: make it without")
        self.descriptor = descriptor
        self._counter = counter
        self._poller = Poller(reactor)
        try:
            self._poller.watch(descriptor, select.EPOLLIN, self._reported)
        except OSError:
            if made:
                os.close(descriptor)
            raise

    def _reported(self, events: int) -> None:
        self._counter.handled(calls.readEventfd(self.descriptor))

    def duplicate(self) -> int:
        """A duplicate of the descriptor, to hand out; the caller closes it."""
        return os.dup(self.descriptor)

    def close(self) -> None:
        """Read no more, and give back the descriptor.  Idempotent."""
        if self.descriptor >= 0:
            self._poller.unwatch(self.descriptor)
            closeForeign([self.descriptor])
            self.descriptor = -1


@implementer(IHandledPolicy)
class Consumed:
    """
    A message is handled when the container has read it, and all others, from its socket.

    Takes off what it counted itself and never more: others may add to the same counter.
    """

    __slots__ = ("_counter", "_descriptor", "_ledger", "_owed", "_poller", "_waiting")

    def __init__(
        self, reactor: IReactorFDSet, ledger: Ledger, counter: MessageCounter, descriptor: int
    ) -> None:
        """
        @param descriptor: our end of the AF_UNIX connection to the container; the caller's, and
            open until L{close}.
        """
        self._ledger = ledger
        self._counter = counter
        self._descriptor = descriptor
        self._poller = Poller(reactor)
        self._owed = 0
        self._waiting = 0

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        self._ledger.activity += count
        if not self._owed:
            self._ledger.unsettled.add(self)
        self._owed += count

    def owe(self, count: int) -> None:
        """Messages that another policy has counted are this one's from now on."""
        if not self._owed:
            self._ledger.unsettled.add(self)
        self._owed += count
        self.settle()
        # Whoever waits for zero has armed what was unsettled before.
        self.arm()

    def sending(self, waiting: int) -> None:
        """How many counted messages the container's socket has not accepted."""
        self._waiting = waiting

    def answered(self, count: int) -> None:
        """Replies handle nothing here; but who sends is not idle."""
        self._ledger.activity += count

    def settle(self) -> None:
        """See L{Settling.settle}."""
        if self._owed and not self._waiting and calls.unreadBytes(self._descriptor) == 0:
            owed, self._owed = self._owed, 0
            self._ledger.unsettled.discard(self)
            self._poller.unwatch(self._descriptor)
            self._counter.handled(owed)

    def arm(self) -> None:
        """See L{Settling.arm}."""
        if self._owed:
            events = select.EPOLLOUT | select.EPOLLET
            self._poller.watch(self._descriptor, events, self._read)

    def _read(self, events: int) -> None:
        self.settle()

    def close(self) -> None:
        """The channel has ended."""
        self._owed = 0
        self._poller.unwatch(self._descriptor)
        self._ledger.unsettled.discard(self)


@implementer(IHandledPolicy)
class Idle:
    """
    All messages are handled after some seconds of silence in both directions.

    For what nothing shows that the container has read: TCP, or programs that read long before they
    answer.  A message that waits because the container does not read is not handled, however silent
    it is.
    """

    __slots__ = (
        *("_call", "_clock", "_counter", "_last", "_ledger", "_owed", "_seconds", "_waiting"),
    )

    def __init__(
        self, clock: IReactorTime, ledger: Ledger, counter: MessageCounter, seconds: float
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._counter = counter
        self._seconds = seconds
        self._owed = 0
        self._waiting = 0
        self._last = 0.0
        self._call: IDelayedCall | None = None

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        self._ledger.activity += count
        self.owe(count)

    def owe(self, count: int) -> None:
        """Messages that another policy has counted are this one's from now on."""
        self._owed += count
        self._last = self._clock.seconds()
        if self._call is None:
            self._call = self._clock.callLater(self._seconds, self._look)

    def sending(self, waiting: int) -> None:
        """How many counted messages the container's socket has not accepted."""
        self._waiting = waiting
        self._last = self._clock.seconds()
        if self._owed and self._call is None:
            self._call = self._clock.callLater(self._seconds, self._look)

    def answered(self, count: int) -> None:
        """Something came out of the container."""
        self._ledger.activity += count
        if self._owed:
            self._last = self._clock.seconds()

    def _look(self) -> None:
        """Once per such time at most, however busy the channel is."""
        self._call = None
        left = self._last + self._seconds - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
            return
        handled, self._owed = self._owed - self._waiting, self._waiting
        self._counter.handled(handled)

    def close(self) -> None:
        """The channel has ended."""
        self._owed = 0
        if self._call is not None:
            self._call.cancel()
            self._call = None


class Noticed:
    """
    Counts what nothing in the kernel shows as seen: a new connection, an end-of-file, and that what
    the container sends is taken again.

    Each counts as one on a counter of its own and is taken off after the linger time.
    """

    def __init__(
        self, clock: IReactorTime, ledger: Ledger, counter: MessageCounter, linger: float
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._counter = counter
        self._linger = linger
        self._pending: set[IDelayedCall] = set()
        self._room: IDelayedCall | None = None

    def happened(self) -> None:
        """Something that the container has to see."""
        self._ledger.activity += 1
        self._counter.add(1)

        def seen() -> None:
            self._pending.discard(call)
            self._counter.handled()

        call = self._clock.callLater(self._linger, seen)
        self._pending.add(call)

    def roomMade(self) -> None:
        """The container can send again; while that counts, more of it counts no further."""
        if self._room is None:
            self._counter.add(1)
            self._ledger.activity += 1
            self._room = self._clock.callLater(self._linger, self._roomSeen)

    def _roomSeen(self) -> None:
        self._room = None
        self._counter.handled()

    def hold(self) -> None:
        """Count one until L{release}: something is being tried that needs the container awake."""
        self._ledger.activity += 1
        self._counter.add(1)

    def release(self) -> None:
        """Take off what L{hold} counted."""
        self._counter.handled()

    def close(self) -> None:
        """Forget all."""
        for call in self._pending:
            call.cancel()
        self._pending.clear()
        if self._room is not None:
            self._room.cancel()
            self._room = None
