"""
MessageCounter: how many messages went in and are not handled yet, on an eventfd.

The kernel keeps the number (C{EFD_SEMAPHORE}: a write of n adds n, a read takes one), so it can be
shared with another process by passing the descriptor.  Knows nothing of channels or containers.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from twisted.internet.defer import Deferred

from chanproxy.interfaces import AnyReactor, expectReactor
from chanproxy.kernel import calls
from chanproxy.kernel.poller import Poller

MAXIMUM = 2**64 - 2
"""The largest value of an eventfd, C{eventfd(2)}."""


class CounterError(Exception):
    """The counter cannot do what was asked; its value is unchanged."""


class MessageCounter:
    """
    A count that is either positive or zero, and says when it becomes one or the other.

    @ivar identity: the kernel's name for the eventfd; equal for all duplicates of it.
    @ivar added: messages added through this object, ever.
    @ivar onHandled: when set, called as soon as L{handled} has taken something off.
    """

    __slots__ = (
        *("__weakref__", "_fd", "_given", "_poller", "_waitingPositive", "_waitingZero"),
        *("_watched", "added", "identity", "onHandled"),
    )

    def __init__(self, reactor: AnyReactor, initial: int = 0) -> None:
        """
        Make a counter of our own.

        @param initial: messages that count as not handled from the start; 1 keeps a container
            awake until its first "handled".
        """
        made = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        try:
            self._adopt(reactor, made)
            if initial:
                self.add(initial)
        except BaseException:
            os.close(made)
            raise

    def _adopt(self, reactor: AnyReactor, fd: int) -> None:
        self._fd = fd
        self._given = False
        self.added = 0
        self.onHandled: Callable[[], None] | None = None
        self._poller = Poller(expectReactor(reactor))
        self._watched = 0
        self._waitingPositive: list[Deferred[None]] = []
        self._waitingZero: list[Deferred[None]] = []
        self.identity: str = f"eventfd:{calls.eventfdInfo(fd)['eventfd-id']}"

    @classmethod
    def fromDescriptor(cls, reactor: AnyReactor, fd: int) -> MessageCounter:
        """
        Use a counter that somebody else made, and can be trusted with.

        Whoever holds it can fill it and take off C{O_NONBLOCK}, and our next L{add} may then have
        to wait.

        @param fd: an eventfd in semaphore mode; owned by the counter when this returns, left to
            the caller when it raises.
        @raise CounterError: it is not that.
        @raise OSError: out of descriptors.
        """
        try:
            info = calls.eventfdInfo(fd)
        except FileNotFoundError as error:
            raise CounterError(f"descriptor {fd} is not open") from error
        if "eventfd-id" not in info:
            raise CounterError("not an eventfd: make it with eventfd(2) and EFD_SEMAPHORE")
        if info.get("eventfd-semaphore") != "1":
            raise CounterError("the eventfd is not in semaphore mode: make it with EFD_SEMAPHORE")
        self = cls.__new__(cls)
        self._adopt(reactor, fd)
        # Whether it blocks is its maker's choice, and the flag is shared with all duplicates.
        self._given = True
        return self

    def fileno(self) -> int:
        """The counter's own descriptor, still owned by it; readable while the count is positive."""
        return self._fd

    def duplicate(self) -> int:
        """
        A duplicate of the descriptor, to hand out; the caller closes it.

        @raise CounterError: the counter is closed.
        """
        self._expectOpen()
        return os.dup(self._fd)

    def add(self, count: int) -> None:
        """
        Add messages.

        @raise CounterError: the count would overflow or is negative, or the counter is closed.
        """
        self._expectOpen()
        if not 0 <= count <= MAXIMUM:
            raise CounterError(f"adding {count}: a number from 0 to {MAXIMUM} can be added")
        try:
            if self._given and not self._hasRoom(count):
                raise BlockingIOError
            os.eventfd_write(self._fd, count)
            self.added += count
        except BlockingIOError:
            raise CounterError(f"adding {count} would overflow the counter") from None
        except OSError as error:
            raise CounterError(f"adding {count}: {error.strerror}") from error

    def _expectOpen(self) -> None:
        if self._fd < 0:
            raise CounterError("the counter is closed")

    def _hasRoom(self, count: int) -> bool:
        """Whether adding would not have to wait, on an eventfd that may be a blocking one."""
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        # POLLOUT says that 1 can be added.
        return bool(poller.poll(0)) and (count <= 1 or self.value() + count <= MAXIMUM)

    def handled(self, count: int = 1) -> int:
        """
        Take off handled messages, never below zero.

        @return: how many were taken off.
        @raise CounterError: the counter is closed.
        """
        self._expectOpen()
        taken = 0
        while taken < count and calls.readEventfd(self._fd):
            taken += 1
        # At once, not by the edge alone: before that is seen the next message may be counted, and
        # who waits for zero would never hear of this one.
        if taken and self._waitingZero and not self.positive():
            self._changed(0)
        if taken and self.onHandled is not None:
            self.onHandled()
        return taken

    def value(self) -> int:
        """
        The count, unchanged by looking.

        @raise CounterError: the counter is closed.
        """
        self._expectOpen()
        return int(calls.eventfdInfo(self._fd)["eventfd-count"], 16)

    def positive(self) -> bool:
        """
        Whether any message is not handled yet.

        @raise CounterError: the counter is closed.
        """
        self._expectOpen()
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(0))

    def whenPositive(self) -> Deferred[None]:
        """
        Wait until the count is positive; fires at once if it is.  Cancellable.

        @raise CounterError: the counter is closed.
        """
        return self._wait(self._waitingPositive, True)

    def whenZero(self) -> Deferred[None]:
        """
        Wait until the count is zero; fires at once if it is.  Cancellable.

        While somebody waits, each read of the counter by anybody costs one event here.

        @raise CounterError: the counter is closed.
        """
        return self._wait(self._waitingZero, False)

    def _wait(self, waiting: list[Deferred[None]], positive: bool) -> Deferred[None]:
        def cancel(waiter: Deferred[None]) -> None:
            waiting.remove(waiter)
            self._rearm()

        self._expectOpen()
        result: Deferred[None] = Deferred(cancel)
        if self.positive() == positive:
            result.callback(None)
        else:
            waiting.append(result)
            self._rearm()
        return result

    def _rearm(self) -> None:
        # EPOLLIN by level says positive.  A read by anybody gives an edge of EPOLLOUT, and only
        # that tells of a zero.  Both with edges wake us on each write of our own: only when both
        # are waited for.
        if self._waitingPositive and self._waitingZero:
            events = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET
        elif self._waitingPositive:
            events = select.EPOLLIN
        elif self._waitingZero:
            events = select.EPOLLOUT | select.EPOLLET
        else:
            events = 0
        # Arming an edge again reports the present state again: only on a change.
        if events != self._watched:
            self._watched = events
            if events:
                self._poller.watch(self._fd, events, self._changed)
            else:
                self._poller.unwatch(self._fd)

    def _changed(self, events: int) -> None:
        waiting = self._waitingPositive if self.positive() else self._waitingZero
        ready = waiting[:]
        del waiting[:]
        self._rearm()
        for waiter in ready:
            waiter.callback(None)

    def close(self) -> None:
        """
        Let go of the descriptor; duplicates live on.  Idempotent.

        Those who wait get a L{CounterError}, as does whoever uses it afterwards.
        """
        if self._fd < 0:
            return
        self._poller.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        waiting = self._waitingPositive + self._waitingZero
        self._waitingPositive, self._waitingZero = [], []
        for waiter in waiting:
            waiter.errback(CounterError("the counter was closed"))
