"""What is closed, or was stopped, says so to whoever goes on using it; nothing of it comes back."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chanproxy.container import Container, Surroundings, proxySockets
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.testing.fakefreezer import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.alarms import AlarmError
from chanproxy.wake.counter import CounterError, MessageCounter
from chanproxy.wake.locks import WakeLockError
from chanproxy.wake.source import WakeSourceError
from tests.shared.sides import asynchronous, turns

COUNTER: dict[str, Callable[[MessageCounter], object]] = {
    "add": lambda counter: counter.add(1),
    "handled": lambda counter: counter.handled(),
    "value": lambda counter: counter.value(),
    "positive": lambda counter: counter.positive(),
    "duplicate": lambda counter: counter.duplicate(),
    "whenZero": lambda counter: counter.whenZero(),
    "whenPositive": lambda counter: counter.whenPositive(),
}


@pytest.mark.parametrize("name", COUNTER)
def test_counter(name: str) -> None:
    """All that could be asked of a counter."""
    asked = {each for each in dir(MessageCounter) if not each.startswith("_")}
    assert asked - COUNTER.keys() == {"added", "identity", "onHandled"} | {
        *("fromDescriptor", "fileno", "close")
    }
    counter = MessageCounter(FakeReactor())
    counter.close()
    counter.close()
    assert counter.fileno() == -1
    with pytest.raises(CounterError, match=r"^the counter is closed$"):
        COUNTER[name](counter)


@pytest.fixture
def fake() -> FakeReactor:
    return FakeReactor()


def made(fake: FakeReactor) -> Container:
    """A container alone."""
    around = Surroundings(recorded=False)
    return Container(fake, "box", FakeFreezer(), around=around)


@pytest.fixture
def stopped(fake: FakeReactor) -> Iterator[Container]:
    """One that is stopped, with a counter and a lock that were in it."""
    box: Any = made(fake)
    box.counter = MessageCounter(fake)
    box.start()
    box.sources.add("counter", box.counter)
    box.sources.locks.acquire("old")
    box.stop()
    box.stop()
    yield box
    box.counter.close()
    # Nothing came back.
    assert (fake.getReaders(), fake.getDelayedCalls()) == ([], [])


SOURCES: dict[str, Callable[[Any], object]] = {
    "add": lambda box: box.sources.add("other", box.counter),
    "addDescriptor": lambda box: box.sources.addDescriptor("other", 0, select.EPOLLIN),
    "find": lambda box: box.sources.find(box.counter.fileno()),
    "remove": lambda box: box.sources.remove(box.counter),
    "signalled": lambda box: box.sources.signalled(),
    "arm": lambda box: box.sources.arm(print),
    "start": lambda box: box.start(),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources(stopped: Container, name: str) -> None:
    """What would have kept it awake, or woken it."""
    with pytest.raises(WakeSourceError, match=r"^the container of these wake sources has stopped"):
        SOURCES[name](stopped)
    assert (len(stopped.sources), stopped.sources.fileno()) == (0, -1)
    stopped.sources.disarm()


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_locks(stopped: Container, timeout: float | None) -> None:
    """A lock is not held, and has no timer."""
    with pytest.raises(WakeLockError, match="'new' cannot be held: its container has stopped"):
        stopped.sources.locks.acquire("new", timeout)
    with pytest.raises(WakeLockError, match="'old' is not held"):
        stopped.sources.locks.release("old")
    stopped.sources.locks.releaseAll(None)
    assert [lock.name for lock in stopped.sources.locks.all()] == ["old"]


def test_alarms(stopped: Container) -> None:
    """An alarm is not set."""
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AlarmError, match="'new' cannot be set: its container has stopped"):
        stopped.alarms.set("new", time.time() + 100)
    assert not stopped.alarms.cancel("new")
    assert set(os.listdir("/proc/self/fd")) == before


def test_suspend(stopped: Container) -> None:
    """It is not suspended, and says why it is awake."""
    found: list[Any] = []
    stopped.suspend().addErrback(lambda failure: found.append(failure.value))
    assert str(found[0]) == "box is stopped"
    stopped.resume("nothing").addBoth(found.append)
    assert found[1:] == [None]
    assert stopped.why == "it was stopped"


@asynchronous
async def test_channels(reactor: ChanproxyReactor, stopped: Container) -> None:
    """Nothing is carried for it; the sockets are closed, as after every failure."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    with pytest.raises(WakeSourceError, match="has stopped"):
        proxySockets(reactor, stopped, (pairs[0][0], pairs[1][0]), "late")
    for _, other in pairs:
        assert other.recv(1) == b""
        other.close()
    await turns(reactor)


def test_closedCounter(fake: FakeReactor) -> None:
    """A counter that is closed is no source, and cannot be found again if it was one."""
    box = made(fake)
    counter = MessageCounter(fake)
    source = box.sources.add("counter", counter)
    counter.close()
    with pytest.raises(WakeSourceError, match=r"^the counter is closed; remove it before that$"):
        box.sources.remove(counter)
    with pytest.raises(WakeSourceError, match=r"^again: the counter is closed$"):
        box.sources.add("again", counter)
    assert source in box.sources
    box.stop()
