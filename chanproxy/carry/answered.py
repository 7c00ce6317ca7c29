"""
Answered: a message is handled when the container has read it and has then sent something back.

Somebody waits for that answer, so the container stays awake until it is there: within a bound, for
nothing outside shows which messages want none.  Knows one counter, and our end of the connection
to the container; knows nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from chanproxy.carry.ledger import Ledger
from chanproxy.interfaces import IHandledPolicy
from chanproxy.kernel import calls
from chanproxy.wake.counter import MessageCounter

UNANSWERED = 30.0
"""Seconds that a message waits for its answer at most, by default."""

AGES = 8
"""Ages of messages that are told apart: one waits by such a part of the bound longer, at most."""

ONE_WAY = 3
"""
Bounds in a row without an answer, after which a connection is one-way that has answered before, or
on which messages go on coming.
"""

PACE = 1.5
"""
How long one more answer is waited for after an answer, in times of what that answer took: what went
in at once may have been several requests, and the next one takes about as long as this one.
"""

SHORTEST = 0.01
"""Seconds; after an answer that took less, no other one is waited for."""


class Reading(Protocol):
    """What becomes of messages that nobody answers: C{Consumed}, or C{Idle}."""

    def counted(self, count: int) -> None: ...
    def owe(self, count: int) -> None: ...
    def sending(self, waiting: int) -> None: ...
    def answered(self, count: int) -> None: ...
    def close(self) -> None: ...


@implementer(IHandledPolicy)
class Answered:
    """
    Takes off what it counted itself and never more: a container may also speak unasked.

    Where messages are packets, each answer is for one of them, until it shows that some want none.
    On a stream nobody outside knows where a request ends: an answer is for all that was read.
    """

    __slots__ = (
        *("_after", "_ages", "_answeredAt", "_begun", "_call", "_clock", "_counter", "_descriptor"),
        *("_each", "_fresh", "_held", "_ledger", "_makeAfter", "_oneWay", "_paceCall"),
        *("_patience", "_since", "_slowest", "_waiting"),
    )

    def __init__(
        self,
        clock: IReactorTime,
        ledger: Ledger,
        counter: MessageCounter,
        makeAfter: Callable[[], Reading],
        descriptor: int | None,
        packets: bool,
        patience: float,
    ) -> None:
        """
        @param makeAfter: makes the policy for messages that nobody answers.
        @param descriptor: our end of the connection to the container, where it shows what is
            unread; the caller's, and open until L{close}.
        @param packets: messages are packets, and no runs of a stream.
        @param patience: seconds that a message waits for its answer at most; more than 0.
        """
        self._clock = clock
        self._ledger = ledger
        self._counter = counter
        self._makeAfter = makeAfter
        self._after: Reading | None = None
        self._descriptor = descriptor
        self._each = packets
        self._patience = patience
        self._oneWay = False
        # Counted, and not answered; by their ages, the youngest first.
        self._fresh = 0
        self._ages = [0] * (AGES + 1)
        self._waiting = 0
        self._since = 0.0
        self._begun = -1.0
        self._answeredAt: float | None = None
        self._slowest = 0.0
        # Answered, and counted still: for what may have come in with it.
        self._held = 0
        self._call: IDelayedCall | None = None
        self._paceCall: IDelayedCall | None = None

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        if self._oneWay:
            self._unanswered().counted(count)
            return
        self._ledger.activity += count
        if not self._fresh:
            self._since = self._clock.seconds()
            if self._begun < 0:
                self._begun = self._since
            if self._call is None:
                self._again()
        self._fresh += count
        self._ages[0] += count

    def sending(self, waiting: int) -> None:
        """How many counted messages the container's socket has not accepted."""
        self._waiting = waiting
        if self._after is not None:
            self._after.sending(waiting)

    def answered(self, count: int) -> None:
        """Something came out of the container; 0: the remote's socket does not take it yet."""
        # Who sends is not idle: this may be a part of an answer.
        self._ledger.activity += count
        if self._oneWay:
            self._spoken(count)
            return
        if not self._fresh and not self._held:
            self._answeredAt = self._clock.seconds()
            return
        now = self._clock.seconds()
        took = now - max(self._since, self._answeredAt or 0.0)
        self._answeredAt = now
        if not self._fresh:
            # One more answer, where one message was thought to be one request.
            self._pace(took)
            return
        if self._descriptor is not None and calls.unreadBytes(self._descriptor):
            # Said while it has not read the last one: that one is not answered.
            most = self._fresh - max(self._waiting, 1)
        else:
            most = self._fresh - self._waiting
        done = min(count, most) if self._each and count else most
        if done <= 0:
            return
        one = self._fresh == 1 or self._each
        self._settle(done)
        if took > self._slowest:
            self._slowest = took
        elif not one:
            took = self._slowest
        if self._fresh or (took < SHORTEST and not self._held):
            self._counter.handled(done)
            return
        # At least one stays, so that the count is not zero in between.
        held, self._held = self._held, 1
        self._counter.handled(done + held - 1)
        self._pace(took)

    def _settle(self, count: int) -> None:
        """So many, the oldest first, are not fresh any more."""
        ages = self._ages
        young = ages[0] == self._fresh
        self._fresh -= count
        if young:
            ages[0] = self._fresh
            return
        for age in range(len(ages) - 1, -1, -1):
            part = min(ages[age], count)
            ages[age] -= part
            count -= part

    def _pace(self, took: float) -> None:
        """Wait for another answer, about as long as this one took, or still as long as before."""
        seconds = min(took * PACE, self._patience)
        if self._paceCall is not None:
            if self._paceCall.getTime() >= self._clock.seconds() + seconds:
                return
            self._paceCall.cancel()
        self._paceCall = self._clock.callLater(seconds, self._paced)

    def _paced(self) -> None:
        self._paceCall = None
        held, self._held = self._held, 0
        self._counter.handled(held)

    # Without an answer.

    def _again(self) -> None:
        self._call = self._clock.callLater(self._patience / AGES, self._older)

    def _older(self) -> None:
        """All are older by a part of the bound; this runs only while something is fresh."""
        self._call = None
        expired = self._ages.pop()
        self._ages.insert(0, 0)
        if expired:
            self._expired(expired)
        if self._fresh:
            self._again()

    def _expired(self, count: int) -> None:
        now = self._clock.seconds()
        answered = self._answeredAt is not None
        silence = now - (self._begun if self._answeredAt is None else self._answeredAt)
        # What still comes may be one long request.
        if silence >= ONE_WAY * self._patience or not (answered or self._fresh > count):
            self._becomeOneWay()
            return
        # Some want no answer, so the answers tell no longer how many are still to come.
        self._each = False
        self._fresh -= count
        if self._fresh:
            oldest = max(age for age, counted in enumerate(self._ages) if counted)
            self._since = max(self._since, now - oldest * self._patience / AGES)
        self._unanswered().owe(count)

    def _becomeOneWay(self) -> None:
        self._oneWay = True
        fresh, self._fresh = self._fresh + self._held, 0
        self._held = 0
        self._ages[:] = [0] * len(self._ages)
        self._stop()
        if fresh:
            self._unanswered().owe(fresh)

    def _spoken(self, count: int) -> None:
        """It was one-way, and is no more."""
        if self._after is not None:
            self._after.answered(count)
        self._answeredAt = self._clock.seconds()
        self._oneWay = not self._patience

    def _unanswered(self) -> Reading:
        if self._after is None:
            # Most connections never need it.
            self._after = self._makeAfter()
            self._after.sending(self._waiting)
        return self._after

    def outboundEnded(self) -> None:
        """The container sends no more: nothing will be answered."""
        self._patience = 0.0
        self._becomeOneWay()

    def _stop(self) -> None:
        for call in (self._call, self._paceCall):
            if call is not None:
                call.cancel()
        self._call = self._paceCall = None

    def close(self) -> None:
        """The channel has ended."""
        self._stop()
        self._fresh = self._held = 0
        if self._after is not None:
            self._after.close()
