"""
Reports: what is handled is told by whoever is not trusted with the counter itself.

Knows one counter, and the eventfd on which it is told.
"""

from __future__ import annotations

import os
import select

from twisted.internet.interfaces import IReactorFDSet

from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeForeign
from chanproxy.kernel.poller import Poller
from chanproxy.wake.counter import CounterError, MessageCounter


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
