"""The policies: when a message counts as handled."""

from __future__ import annotations

from twisted.internet.task import Clock

from chanproxy.carry.ledger import Ledger, Settling
from chanproxy.carry.noticed import Noticed
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.counter import MessageCounter
from tests.shared.sides import Pair, asynchronous, turns, until


def only(ledger: Ledger) -> Settling:
    [settling] = ledger.unsettled
    return settling


@asynchronous
async def test_consumed(reactor: ChanproxyReactor) -> None:
    """Counted until the container has read everything, found out by looking."""
    pair = Pair(reactor, explicit=False)
    pair.remote.send(b"a")
    pair.remote.send(b"")
    await until(reactor, lambda: pair.proxy.inbound.messages == 2)
    only(pair.ledger).settle()
    assert pair.counter.value() == 2
    pair.container.recv(1)
    only(pair.ledger).settle()
    assert pair.counter.value() == 2
    pair.container.recv(1)
    only(pair.ledger).settle()
    assert pair.counter.value() == 0
    assert not pair.ledger.unsettled
    await pair.close()


@asynchronous
async def test_consumedByEvent(reactor: ChanproxyReactor) -> None:
    """Armed, it finds out by the kernel's event, each time."""
    pair = Pair(reactor, explicit=False)
    for _ in range(200):
        pair.remote.send(b"a")
        await until(reactor, lambda: pair.ledger.unsettled)
        only(pair.ledger).arm()
        await turns(reactor, 2)
        zero = pair.counter.whenZero()
        assert not zero.called
        pair.container.recv(1)
        await zero
    await pair.close()


@asynchronous
async def test_consumedTakesOffItsOwn(reactor: ChanproxyReactor) -> None:
    """What others added to the counter stays."""
    pair = Pair(reactor, explicit=False)
    pair.counter.add(5)
    pair.remote.send(b"a")
    await until(reactor, lambda: pair.ledger.unsettled)
    assert pair.counter.value() == 6
    pair.container.recv(1)
    only(pair.ledger).settle()
    assert pair.counter.value() == 5
    await pair.close()


@asynchronous
async def test_consumedWhileWaiting(reactor: ChanproxyReactor) -> None:
    """A message that the container's socket has not accepted is not handled."""
    pair = Pair(reactor, explicit=False)
    pair.remote.setblocking(False)
    sent = 0
    while pair.proxy.inbound.messages == sent:
        pair.remote.send(b"x" * 100000)
        sent += 1
        await turns(reactor, 10)
    settling = only(pair.ledger)
    while pair.counter.value():
        assert len(pair.container.recv(200000)) == 100000
        sent -= 1
        settling.settle()
        await turns(reactor)
        settling.settle()
    assert sent == 0
    await pair.close()


@asynchronous
async def test_explicit(reactor: ChanproxyReactor) -> None:
    """Reading the socket changes nothing; reading the counter does."""
    pair = Pair(reactor)
    pair.remote.send(b"a")
    await until(reactor, lambda: pair.proxy.inbound.messages)
    pair.container.recv(1)
    assert not pair.ledger.unsettled
    assert pair.counter.value() == 1
    assert pair.counter.handled() == 1
    assert pair.counter.value() == 0
    await pair.close()


@asynchronous
async def test_noticed(reactor: ChanproxyReactor) -> None:
    """A connection counts for the linger time."""
    clock, ledger, counter = Clock(), Ledger(), MessageCounter(reactor)
    noticed = Noticed(clock, ledger, counter, 2.0)
    noticed.happened()
    clock.advance(1.5)
    noticed.happened()
    noticed.hold()
    assert counter.value() == 3
    clock.advance(0.5)
    assert counter.value() == 2
    clock.advance(1.5)
    assert counter.value() == 1
    noticed.release()
    assert counter.value() == 0
    # However often there is room: one, for as long.
    for _ in range(3):
        noticed.roomMade()
    assert counter.value() == 1
    clock.advance(2)
    assert counter.value() == 0
    noticed.roomMade()
    noticed.happened()
    noticed.close()
    assert clock.getDelayedCalls() == []
    counter.close()
