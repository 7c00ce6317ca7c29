"""MessageCounter: the number, and who hears of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MAXIMUM, CounterError, MessageCounter


@pytest.fixture
def fake() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def counter(fake: FakeReactor) -> Iterator[MessageCounter]:
    """A counter at zero, closed afterwards; nothing of it stays in the reactor."""
    counter = MessageCounter(fake)
    yield counter
    counter.close()
    assert fake.getReaders() == []


def outcome(deferred: Deferred[None]) -> list[object]:
    """What it fired with, as soon as it has: None, or the exception."""
    found: list[object] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


def test_addAndHandled(counter: MessageCounter) -> None:
    """
    starnix: message counter: 1: what is added is taken off one by one, and looking changes nothing.
    """
    assert counter.value() == 0
    assert not counter.positive()
    counter.add(3)
    counter.add(2)
    assert counter.value() == 5
    assert counter.value() == 5
    assert counter.positive()
    assert counter.handled() == 1
    assert counter.handled(3) == 3
    assert counter.value() == 1


def test_handledNeverBelowZero(counter: MessageCounter) -> None:
    """More than there is cannot be taken off."""
    counter.add(2)
    assert counter.handled(5) == 2
    assert counter.handled() == 0
    assert counter.handled(0) == 0
    assert counter.value() == 0


def test_initial(fake: FakeReactor) -> None:
    """A counter can be positive from the start."""
    counter = MessageCounter(fake, 2)
    assert counter.value() == 2
    counter.close()


def test_overflow(counter: MessageCounter) -> None:
    """
    starnix: message counter: 3: the largest value is the kernel's; adding beyond it is refused and
    changes nothing.
    """
    counter.add(MAXIMUM)
    assert counter.value() == MAXIMUM
    with pytest.raises(CounterError, match="adding 1 would overflow"):
        counter.add(1)
    assert counter.value() == MAXIMUM
    counter.handled()
    counter.add(1)
    with pytest.raises(CounterError, match="can be added"):
        counter.add(MAXIMUM + 1)


def test_duplicateReadByOthers(counter: MessageCounter) -> None:
    """
    starnix: message counter: 4: whoever holds a duplicate takes one off with each read; the
    identity is the same.
    """
    counter.add(2)
    duplicate = counter.duplicate()
    assert os.eventfd_read(duplicate) == 1
    assert counter.value() == 1
    os.eventfd_write(duplicate, 4)
    assert counter.value() == 5
    os.close(duplicate)
    assert counter.handled(9) == 5


def test_whenPositive(fake: FakeReactor, counter: MessageCounter) -> None:
    """
    starnix: message counter: 2: it fires for all who wait when the count becomes positive, and at
    once while it is.
    """
    first, second = outcome(counter.whenPositive()), outcome(counter.whenPositive())
    fake.turn()
    assert first == second == []
    counter.add(1)
    assert first == []
    fake.turn()
    assert first == second == [None]
    assert outcome(counter.whenPositive()) == [None]
    assert fake.getReaders() == []


def test_whenZero(fake: FakeReactor, counter: MessageCounter) -> None:
    """
    starnix: message counter: 2: it fires at zero, not before, whatever comes and goes; and at once
    while it is zero.
    """
    assert outcome(counter.whenZero()) == [None]
    counter.add(2)
    first, second = outcome(counter.whenZero()), outcome(counter.whenZero())
    fake.turn()
    counter.handled()
    fake.turn()
    counter.add(1)
    fake.turn()
    counter.handled()
    fake.turn()
    assert first == second == []
    counter.handled()
    fake.turn()
    assert first == second == [None]
    assert fake.getReaders() == []


def test_whenZeroReadByOthers(fake: FakeReactor, counter: MessageCounter) -> None:
    """Another process may read it down."""
    counter.add(2)
    duplicate = counter.duplicate()
    zero = outcome(counter.whenZero())
    fake.turn()
    os.eventfd_read(duplicate)
    fake.turn()
    assert zero == []
    os.eventfd_read(duplicate)
    fake.turn()
    assert zero == [None]
    os.close(duplicate)


def test_waitAgainFromCallback(fake: FakeReactor, counter: MessageCounter) -> None:
    """Who hears of a change may wait for the next one within the call."""
    zero: list[list[object]] = []
    counter.whenPositive().addCallback(lambda _: zero.append(outcome(counter.whenZero())))
    counter.add(1)
    fake.turn()
    assert zero == [[]]
    counter.handled()
    fake.turn()
    assert zero == [[None]]


def test_cancel(fake: FakeReactor, counter: MessageCounter) -> None:
    """Each waiter is cancelled by itself, and the last one leaves nothing in the reactor."""
    cancelled, other = counter.whenPositive(), counter.whenPositive()
    left, fired = outcome(cancelled), outcome(other)
    cancelled.cancel()
    assert isinstance(left[0], CancelledError)
    counter.add(1)
    fake.turn()
    assert fired == [None]
    zero = counter.whenZero()
    gone = outcome(zero)
    assert len(fake.getReaders()) == 1
    zero.cancel()
    assert isinstance(gone[0], CancelledError)
    assert fake.getReaders() == []


def test_closeWhileWaiting(fake: FakeReactor) -> None:
    """Those who wait are told; closing again is harmless; duplicates live on."""
    counter = MessageCounter(fake, 1)
    duplicate = counter.duplicate()
    zero = outcome(counter.whenZero())
    counter.close()
    assert isinstance(zero[0], CounterError)
    assert str(zero[0]) == "the counter was closed"
    counter.close()
    assert fake.getReaders() == []
    assert os.eventfd_read(duplicate) == 1
    os.close(duplicate)


def test_fromDescriptor(fake: FakeReactor) -> None:
    """A counter that somebody else made is used as it is, and never blocks us."""
    fd = os.eventfd(3, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
    counter = MessageCounter.fromDescriptor(fake, fd)
    assert counter.fileno() == fd
    assert counter.value() == 3
    assert counter.handled(9) == 3
    counter.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_sameIdentity(fake: FakeReactor, counter: MessageCounter) -> None:
    """Duplicates are one counter, and only duplicates are."""
    same = MessageCounter.fromDescriptor(fake, counter.duplicate())
    other = MessageCounter(fake)
    assert same.identity == counter.identity != other.identity
    same.add(2)
    assert counter.value() == 2
    same.close()
    other.close()
    assert counter.value() == 2


def test_fromDescriptorNoEventfd(fake: FakeReactor) -> None:
    """Something else is refused, and stays the caller's."""
    readEnd, writeEnd = os.pipe()
    with pytest.raises(CounterError, match="not an eventfd"):
        MessageCounter.fromDescriptor(fake, readEnd)
    os.close(readEnd)
    os.close(writeEnd)


def test_fromDescriptorNoSemaphore(fake: FakeReactor) -> None:
    """An eventfd that loses its count when read is refused, and stays the caller's."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    with pytest.raises(CounterError, match="not in semaphore mode"):
        MessageCounter.fromDescriptor(fake, fd)
    os.close(fd)


def test_bothWaits(fake: FakeReactor, counter: MessageCounter) -> None:
    """Whoever waits for zero hears of it, though somebody waits for positive by then."""
    counter.add(1)
    zero = counter.whenZero()
    counter.handled()
    positive = counter.whenPositive()
    fake.turn()
    assert outcome(zero) == [None]
    counter.add(1)
    fake.turn()
    assert outcome(positive) == [None]


def test_refusals(fake: FakeReactor) -> None:
    """What cannot be is a CounterError, and leaves nothing behind."""
    with pytest.raises(CounterError):
        MessageCounter(fake, MAXIMUM + 1)
    with pytest.raises(CounterError, match="not open"):
        MessageCounter.fromDescriptor(fake, 10**6)
    closed = MessageCounter(fake)
    with pytest.raises(CounterError):
        closed.add(-1)
    closed.close()
    with pytest.raises(CounterError, match="closed"):
        closed.add(1)
    with pytest.raises(CounterError, match="closed"):
        closed.whenZero()


def test_zeroIsToldThoughTheNextComes(fake: FakeReactor, counter: MessageCounter) -> None:
    """A zero of our own making is told, though the next message comes before the reactor turns."""
    counter.add(1)
    zero = counter.whenZero()
    counter.handled()
    counter.add(1)
    assert outcome(zero) == [None]
