"""
The policy C{consumed}: a message is handled when the container has read it from its socket.

Knows one counter, and the container's end of one channel.
"""

from __future__ import annotations

import select

from twisted.internet.interfaces import IReactorFDSet
from zope.interface import implementer

from chanproxy.carry.ledger import Ledger
from chanproxy.interfaces import IHandledPolicy
from chanproxy.kernel import calls
from chanproxy.kernel.poller import Poller
from chanproxy.wake.counter import MessageCounter


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
