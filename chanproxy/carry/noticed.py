"""
Noticed: what keeps a container awake for a moment, and is no message.

Knows the ledger only.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.carry.ledger import Ledger
from chanproxy.wake.counter import MessageCounter


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

    def lingerFor(self, linger: float) -> None:
        """Have another linger time, also for what counts already, if that is shorter."""
        self._linger = linger
        for call in (*self._pending, *([] if self._room is None else [self._room])):
            if call.getTime() - self._clock.seconds() > linger:
                call.reset(linger)

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
