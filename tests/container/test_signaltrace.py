"""Who is told of signals, with a program that only pretends to be the kernel's."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest
from twisted.logger import capturedLogs, formatEvent

from chanproxy.container.bpf.signals import Unavailable
from chanproxy.container.signaltrace import AT_ONCE, SignalTrace
from chanproxy.testing.reactor import FakeReactor
from tests.container.tracing import FakeProgram


@pytest.fixture
def reactor() -> FakeReactor:
    """Polls when told."""
    return FakeReactor()


@pytest.fixture
def program() -> FakeProgram:
    """Not loaded yet."""
    return FakeProgram(most=4)


@pytest.fixture
def trace(reactor: FakeReactor, program: FakeProgram) -> Iterator[SignalTrace]:
    """Nothing is watched yet."""
    made = SignalTrace(reactor, program.load)
    yield made
    made.close()


def keeper() -> tuple[list[tuple[int, int | None]], Callable[[int, int | None], None]]:
    """A list, and what appends to it."""
    came: list[tuple[int, int | None]] = []
    return came, lambda pid, tid: came.append((pid, tid))


def test_told(reactor: FakeReactor, program: FakeProgram, trace: SignalTrace) -> None:
    """Each is told of its own processes; it is loaded once, when it is needed."""
    (one, tellOne), (other, tellOther) = keeper(), keeper()
    assert program.loaded == 0
    assert trace.watch([1, 2], tellOne)
    assert trace.watch([3], tellOther)
    program.signal(2, 22)
    program.signal(3, 3)
    reactor.turn()
    program.signal(1, None)
    reactor.turn()
    assert (one, other) == ([(2, 22), (1, None)], [(3, 3)])
    trace.unwatch([1, 2, 99])
    assert program.processes == {3}
    trace.clear(3)
    assert program.cleared == [3]
    assert program.loaded == 1


def test_allOrNothing(program: FakeProgram, trace: SignalTrace) -> None:
    """No room for all, or one that another has: none is watched, and what there was stays."""
    _, tell = keeper()
    assert trace.watch([1, 2], tell)
    with capturedLogs() as events:
        assert not trace.watch([3, 4, 5], tell)
        assert not trace.watch([3, 2], tell)
    assert program.processes == {1, 2}
    trace.unwatch([3])
    assert trace.watch([3, 4], tell)
    (event,) = events
    assert "are looked for, not told of by the kernel: [Errno 7]" in formatEvent(event)


def test_lost(reactor: FakeReactor, program: FakeProgram, trace: SignalTrace) -> None:
    """When records may be missing, anything may have come for anybody."""
    (one, tellOne), (other, tellOther) = keeper(), keeper()
    trace.watch([1, 2], tellOne)
    trace.watch([3], tellOther)
    program.signal(2, 2)
    program.lost = True
    reactor.turn(1)
    assert (one, other) == ([(1, None), (2, None)], [(3, None)])


def test_whileTold(reactor: FakeReactor, program: FakeProgram, trace: SignalTrace) -> None:
    """Who is told may stop all watches: the others in the same round are told no more."""
    came, tell = keeper()

    def stop(pid: int, tid: int | None) -> None:
        tell(pid, tid)
        trace.unwatch([1, 2])

    trace.watch([1], stop)
    trace.watch([2], tell)
    program.signal(1, 1)
    program.signal(2, 2)
    reactor.turn()
    assert came == [(1, 1)]

    def close(pid: int, tid: int | None) -> None:
        tell(pid, tid)
        trace.close()

    trace.watch([1, 2], close)
    program.signal(1, 1)
    program.signal(2, 2)
    reactor.turn()
    assert came == [(1, 1), (1, 1)]
    assert program.closed == 1
    assert reactor.getReaders() == []


def test_failing(reactor: FakeReactor, program: FakeProgram, trace: SignalTrace) -> None:
    """One that fails keeps the others from nothing, now or later."""
    came, tell = keeper()

    def fail(pid: int, tid: int | None) -> None:
        raise ValueError("no")

    trace.watch([1], fail)
    trace.watch([2], tell)
    for _ in range(2):
        program.signal(1, 1)
        program.signal(2, 2)
        with capturedLogs() as events:
            reactor.turn()
        assert ["failed" in formatEvent(event) for event in events] == [True]
    assert came == [(2, 2)] * 2


def test_flood(reactor: FakeReactor, program: FakeProgram, trace: SignalTrace) -> None:
    """What is read at a time has a bound."""
    came, tell = keeper()
    trace.watch([1], tell)
    for _ in range(3 * AT_ONCE):
        program.signal(1, 1)
    assert program.most == []
    reactor.turn(1)
    assert len(came) >= AT_ONCE
    assert set(program.most) == {AT_ONCE}


def test_unavailable(program: FakeProgram, trace: SignalTrace) -> None:
    """Where it cannot be done that is said once, and not tried again."""
    program.fails = Unavailable("an old kernel")
    _, tell = keeper()
    with capturedLogs() as events:
        assert not trace.available
        assert not trace.watch([1], tell)
        trace.clear(1)
        trace.unwatch([1])
    assert [formatEvent(event) for event in events] == [
        "signals to sleeping containers are looked for, not told of by the kernel: an old kernel"
    ]
    assert program.loaded == 1


def test_forNow(program: FakeProgram, trace: SignalTrace) -> None:
    """What was short may be there the next time; it is said once all the same."""
    program.fails = Unavailable("too many open files", forNow=True)
    _, tell = keeper()
    with capturedLogs() as events:
        assert not trace.watch([1], tell)
        assert not trace.watch([1], tell)
        program.fails = None
        assert trace.watch([1], tell)
    assert len(events) == 1
    assert program.loaded == 3


def test_unpolled(
    program: FakeProgram, trace: SignalTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor to poll it, it is given back."""

    def fail(fd: int, events: int, callback: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("chanproxy.kernel.poller.Poller.watch", lambda self, *words: fail(*words))
    _, tell = keeper()
    assert not trace.watch([1], tell)
    assert program.closed == 1


def test_again(reactor: FakeReactor, program: FakeProgram, trace: SignalTrace) -> None:
    """A service that is started again has one again."""
    came, tell = keeper()
    trace.close()
    trace.watch([1], tell)
    trace.close()
    trace.close()
    assert program.processes == set()
    trace.watch([1], tell)
    program.signal(1, 1)
    reactor.turn()
    assert came == [(1, 1)]
    assert (program.loaded, program.closed) == (2, 1)
