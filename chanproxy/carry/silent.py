"""
The policy C{idle}: all messages are handled after some seconds without one.

Knows one counter and a clock.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from chanproxy.carry.ledger import Ledger
from chanproxy.interfaces import IHandledPolicy
from chanproxy.wake.counter import MessageCounter


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
