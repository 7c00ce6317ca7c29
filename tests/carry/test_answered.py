"""The policy C{answered}: counted until something came back, within a bound, and what is learnt."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from twisted.internet.task import Clock

from chanproxy.carry.answered import AGES, ONE_WAY, PACE, Answered
from chanproxy.carry.consumed import Consumed
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.silent import Idle
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.counter import MessageCounter
from tests.shared.sides import asynchronous, until

PATIENCE, LINGER = 8.0, 0.5
OLDER = PATIENCE / AGES
"""By so much a message may wait longer than the bound."""


class Bench:
    """
    A policy of one connection, in time that stands still.

    @ivar ours: our end of the connection; C{inside}: the container's.
    """

    def __init__(self, reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
        self.reactor, self.unread = reactor, unread
        self.clock, self.ledger = Clock(), Ledger()
        kind = socket.SOCK_SEQPACKET if packets else socket.SOCK_STREAM
        self.ours, self.inside = socket.socketpair(socket.AF_UNIX, kind)
        self.counter = MessageCounter(reactor)
        self.policy = Answered(
            *(self.clock, self.ledger, self.counter, self.read),
            self.ours.fileno() if unread else None,
            packets,
            PATIENCE,
        )

    def read(self) -> Consumed | Idle:
        """The policy for what nobody answers."""
        if not self.unread:
            return Idle(self.clock, self.ledger, self.counter, LINGER)
        return Consumed(self.reactor, self.ledger, self.counter, self.ours.fileno())

    def comes(self, count: int = 1, reads: bool = True) -> None:
        """Messages go to the container."""
        self.counter.add(count)
        self.policy.counted(count)
        self.ours.send(b"x")
        if reads:
            self.inside.recv(100)

    def left(self, seconds: float = 0.0) -> int:
        """What is counted after so much time."""
        # In steps, as time goes; a call may have others made.
        for _ in range(max(round(seconds * 8), 1)):
            self.clock.advance(seconds / max(round(seconds * 8), 1))
        return self.counter.value()


@contextmanager
def bench(reactor: ChanproxyReactor, packets: bool = True, unread: bool = True) -> Iterator[Bench]:
    """One, and nothing of it is left."""
    made = Bench(reactor, packets, unread)
    try:
        yield made
    finally:
        made.policy.close()
        assert made.clock.getDelayedCalls() == []
        assert not made.ledger.unsettled
        made.counter.close()
        made.ours.close()
        made.inside.close()


KINDS = [(True, True), (False, True), (False, False)]
"""Packets and streams of Unix sockets, and TCP."""


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_answer(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """Counted for as long as the container takes to answer, however often."""
    with bench(reactor, packets, unread) as it:
        for took in (0.0, 3.0, PATIENCE - 1, 0.0, 0.001):
            it.comes()
            assert it.left(took) == 1
            assert it.ledger.activity
            it.policy.answered(1)
            it.left(PACE * took)
            assert it.left() == 0
        it.policy.answered(3)
        assert it.left() == 0


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_othersCount(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """It takes off its own only, and the end of a channel leaves nothing behind."""
    with bench(reactor, packets, unread) as it:
        it.counter.add(5)
        it.comes(2)
        it.policy.answered(2)
        assert it.left() == 5
        it.policy.answered(1)
        assert it.left() == 5
        it.comes()
        it.left(1)
        it.policy.answered(1)
        it.comes()


def test_packetsOneByOne(reactor: ChanproxyReactor) -> None:
    """Of packets each answer is for one: what is under way besides stays counted."""
    with bench(reactor) as it:
        it.comes(3)
        it.policy.answered(1)
        assert it.left(5) == 2
        it.comes()
        it.policy.answered(2)
        assert it.left(2) == 1
        it.policy.answered(5)
        it.left(2 * PACE)
        assert it.left() == 0


@pytest.mark.parametrize("packets", [True, False])
def test_unread(reactor: ChanproxyReactor, packets: bool) -> None:
    """Something that is said while the last message is unread is no answer to that one."""
    with bench(reactor, packets) as it:
        it.comes(reads=False)
        it.policy.answered(1)
        assert it.left() == 1
        it.inside.recv(1)
        assert it.left(3) == 1
        it.policy.answered(1)
        it.left(PACE * 3)
        assert it.left() == 0
        # One request after the other: the first is answered before the second is read.
        it.comes(reads=False)
        it.comes(reads=False)
        it.inside.recv(1)
        it.policy.answered(1)
        assert it.left() == 1
        it.inside.recv(1)
        assert it.left(3) == 1
        it.policy.answered(1)
        it.left(PACE * 3)
        assert it.left() == 0


@pytest.mark.parametrize("unread", [True, False])
def test_pace(reactor: ChanproxyReactor, unread: bool) -> None:
    """On a stream what came at once may be several requests: one more answer has its time."""
    with bench(reactor, packets=False, unread=unread) as it:
        it.comes()
        for _ in range(4):
            assert it.left(2) == 1
            it.policy.answered(1)
        assert it.left(2 * PACE - 0.5) == 1
        assert it.left(1) == 0
        # Of several, one that was quick; the slowest of this connection is what is waited for.
        it.comes()
        it.comes()
        it.policy.answered(1)
        assert it.left(2) == 1
        assert it.left(2) == 0
        # A quick one after a slow one does not cut that time short.
        it.comes()
        it.left(2)
        it.policy.answered(1)
        it.comes()
        it.policy.answered(1)
        assert it.left(2) == 1
        assert it.left(2) == 0
        # And a quick one alone is over at once.
        it.comes()
        it.policy.answered(1)
        assert it.left() == 0


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_oneWay(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """What never answers is waited for once, and after that it is as if it were C{consumed}."""
    with bench(reactor, packets, unread) as it:
        it.comes()
        assert it.left(PATIENCE - 0.5) == 1
        it.comes(2)
        assert it.left(1 + OLDER + LINGER) == 2
        it.left(PATIENCE)
        assert it.left(LINGER) == 0
        for _ in range(3):
            it.comes(2, reads=False)
            if unread:
                assert it.left(100) == 2
                it.inside.recv(100)
                [settling] = it.ledger.unsettled
                settling.settle()
            else:
                assert it.left() == 2
                it.left(LINGER)
            assert it.left() == 0
        # It answers after all.
        it.policy.answered(1)
        it.comes()
        assert it.left(PATIENCE - 0.5) == 1
        it.policy.answered(1)
        it.left(PACE * PATIENCE)
        assert it.left() == 0


def test_someWantNone(reactor: ChanproxyReactor) -> None:
    """A connection that answers: what gets no answer expires alone, and later requests wait."""
    with bench(reactor) as it:
        it.comes()
        it.policy.answered(1)
        assert it.left() == 0
        it.comes()
        assert it.left(PATIENCE - 1) == 1
        # A request, seven seconds after a notification.
        it.comes()
        assert it.left(1 + OLDER) == 1
        assert it.left(3) == 1
        it.policy.answered(1)
        it.left(5 * PACE + 0.5)
        assert it.left() == 0
        # From now on an answer is not for one message each.
        it.comes(2)
        it.policy.answered(1)
        # Only its pace is left, as of a stream; the bound would be longer.
        assert it.left(5 * PACE + 0.25) == 0


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_longRequest(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """One that comes in for longer than the bound is still waited for when it is there."""
    with bench(reactor, packets, unread) as it:
        for _ in range(round(2 * PATIENCE)):
            it.comes()
            it.left(1)
        assert it.left(PATIENCE - 2) >= 1
        it.policy.answered(1)
        it.policy.answered(0)
        it.left(PACE * PATIENCE)
        for settling in list(it.ledger.unsettled):
            settling.settle()
        assert it.left() == 0


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_noLongerAnswers(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """A greeting, and then one way only, as telemetry: after three bounds it is learnt."""
    with bench(reactor, packets, unread) as it:
        it.comes()
        it.policy.answered(1)
        assert it.left() == 0
        for _ in range(round(ONE_WAY * (PATIENCE + 2 * OLDER))):
            it.comes()
            it.left(1)
        it.left(LINGER)
        for settling in list(it.ledger.unsettled):
            settling.settle()
        assert it.left() == 0
        it.comes()
        it.left(LINGER)
        for settling in list(it.ledger.unsettled):
            settling.settle()
        assert it.left() == 0


@asynchronous
async def test_expiredUnread(reactor: ChanproxyReactor) -> None:
    """What the container has not even read stays counted, and its reading is an event."""
    with bench(reactor) as it:
        it.comes(reads=False)
        assert it.left(PATIENCE * 10) == 1
        it.inside.recv(1)
        await until(reactor, lambda: it.counter.value() == 0)


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_notAccepted(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """A message that the container's socket has not taken cannot be answered, nor expire."""
    with bench(reactor, packets, unread) as it:
        it.comes(2)
        it.policy.sending(1)
        it.policy.answered(2)
        assert it.left() == 1
        assert it.left(PATIENCE * 10) == 1
        it.policy.sending(0)
        for settling in list(it.ledger.unsettled):
            settling.settle()
        it.left(LINGER)
        assert it.left() == 0


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_remoteDoesNotTake(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """The container has answered, and a remote that does not read is no reason to be awake."""
    with bench(reactor, packets, unread) as it:
        it.comes(3)
        it.policy.answered(0)
        assert it.left() == 0


@pytest.mark.parametrize(("packets", "unread"), KINDS)
def test_outboundEnded(reactor: ChanproxyReactor, packets: bool, unread: bool) -> None:
    """A container that will say nothing more has nothing to answer, now and later."""
    with bench(reactor, packets, unread) as it:
        it.comes()
        assert it.left(1) == 1
        it.policy.outboundEnded()
        it.left(LINGER)
        assert it.left() == 0
        it.comes()
        it.left(LINGER)
        for settling in list(it.ledger.unsettled):
            settling.settle()
        assert it.left() == 0
