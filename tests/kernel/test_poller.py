"""The nested epoll: how long it goes on before others have their turn."""

import os
import select
from collections.abc import Iterator

import pytest

from chanproxy.kernel.poller import BRIEF, FEW, ROUNDS, Poller
from chanproxy.testing.reactor import FakeReactor


@pytest.fixture
def eventfds() -> Iterator[list[int]]:
    """More than a few."""
    made = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(FEW + 1)]
    yield made
    for fd in made:
        os.close(fd)


@pytest.fixture
def times() -> list[float]:
    """What the clock says, one after the other; the last one stays."""
    return [0.0]


@pytest.fixture
def poller(
    eventfds: list[int], times: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Poller]:
    """Watches nothing yet."""

    def clock() -> float:
        return times.pop(0) if len(times) > 1 else times[0]

    monkeypatch.setattr("chanproxy.kernel.poller.monotonic", clock)
    made = Poller(FakeReactor())
    yield made
    for fd in eventfds:
        made.unwatch(fd)


def test_goesOnWhatACallbackBroughtAbout(poller: Poller, eventfds: list[int]) -> None:
    """An answer that is there when a callback returns is seen in the same turn."""
    asked, answered, *_ = eventfds
    seen: list[str] = []

    def ask(events: int) -> None:
        seen.append("asked")
        os.eventfd_read(asked)
        os.eventfd_write(answered, 1)

    def answer(events: int) -> None:
        seen.append("answered")
        os.eventfd_read(answered)

    poller.watch(asked, select.EPOLLIN, ask)
    poller.watch(answered, select.EPOLLIN, answer)
    os.eventfd_write(asked, 1)
    poller.doRead()
    assert seen == ["asked", "answered"]


@pytest.mark.parametrize(("busy", "rounds"), [(1, ROUNDS), (FEW, ROUNDS), (FEW + 1, 1)])
def test_othersHaveTheirTurn(poller: Poller, eventfds: list[int], busy: int, rounds: int) -> None:
    """What is never done keeps nobody waiting for long, and many not for more than a round."""
    calls: list[int] = []
    for fd in eventfds[:busy]:
        os.eventfd_write(fd, 1)
        poller.watch(fd, select.EPOLLIN, calls.append)
    poller.doRead()
    assert calls == [select.EPOLLIN] * (busy * rounds)


def test_briefOnly(poller: Poller, eventfds: list[int], times: list[float]) -> None:
    """Whoever has much to carry has one turn, and the reactor the next."""
    times[:] = [0.0, BRIEF / 2, BRIEF * 2]
    calls: list[int] = []
    os.eventfd_write(eventfds[0], 1)
    poller.watch(eventfds[0], select.EPOLLIN, calls.append)
    poller.doRead()
    assert calls == [select.EPOLLIN] * 2


def test_endsWhenACallbackUnwatchesTheLast(poller: Poller, eventfds: list[int]) -> None:
    """Its epoll is closed then, in the middle of a turn."""
    calls: list[int] = []

    def once(events: int) -> None:
        calls.append(events)
        poller.unwatch(eventfds[0])

    os.eventfd_write(eventfds[0], 1)
    poller.watch(eventfds[0], select.EPOLLIN, once)
    poller.doRead()
    assert calls == [select.EPOLLIN]
    assert poller.fileno() == -1
