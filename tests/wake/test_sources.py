"""WakeSources: the registry, one look at all of it, and the alarm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.source import Source, WakeSourceError
from chanproxy.wake.sources import WakeSources


@pytest.fixture
def fake() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def sources(fake: FakeReactor) -> Iterator[WakeSources]:
    """An empty registry, closed afterwards."""
    sources = WakeSources(fake)
    yield sources
    sources.close()
    sources.close()
    assert fake.getReaders() == []


@pytest.fixture
def counters(fake: FakeReactor) -> Iterator[list[MessageCounter]]:
    """Three counters at zero, closed afterwards."""
    counters = [MessageCounter(fake) for _ in range(3)]
    yield counters
    for counter in counters:
        counter.close()


def names(sources: Sequence[Source]) -> list[str]:
    return sorted(source.name for source in sources)


def test_addAndRemove(sources: WakeSources, counters: list[MessageCounter]) -> None:
    """What is in it is counted and can be gone through."""
    assert len(sources) == 0
    added = [sources.add(f"s{number}", counter) for number, counter in enumerate(counters)]
    assert list(sources) == added
    assert [source.statistics.wakeupCount for source in sources] == [0, 0, 0]
    sources.remove(counters[1])
    assert len(sources) == 2
    assert [source.name for source in sources] == ["s0", "s2"]
    sources.add("again", counters[1])
    assert len(sources) == 3


def test_duplicates(
    fake: FakeReactor, sources: WakeSources, counters: list[MessageCounter]
) -> None:
    """
    starnix: channel proxy: 11: the kernel's object counts, not the descriptor: a duplicate is
    registered, and removes.
    """
    sources.add("one", counters[0])
    duplicate = MessageCounter.fromDescriptor(fake, counters[0].duplicate())
    with pytest.raises(WakeSourceError, match=r"two: .* already registered as one"):
        sources.add("two", duplicate)
    with pytest.raises(WakeSourceError, match="already registered as one"):
        sources.add("one", counters[0])
    assert len(sources) == 1
    sources.remove(duplicate)
    assert len(sources) == 0
    with pytest.raises(WakeSourceError, match="not registered"):
        sources.remove(counters[0])
    sources.add("two", duplicate)
    counters[0].add(1)
    assert names(sources.signalled()) == ["two"]
    sources.remove(counters[0])
    duplicate.close()


def test_removeUnknown(sources: WakeSources, counters: list[MessageCounter]) -> None:
    """What was never added cannot be removed, and nothing changes."""
    sources.add("one", counters[0])
    with pytest.raises(WakeSourceError, match="not registered"):
        sources.remove(counters[1])
    assert len(sources) == 1


def test_signalled(sources: WakeSources, counters: list[MessageCounter]) -> None:
    """All that are positive now, and no others; looking changes nothing."""
    assert sources.signalled() == []
    for number, counter in enumerate(counters):
        sources.add(f"s{number}", counter)
    assert sources.signalled() == []
    counters[0].add(1)
    counters[2].add(2)
    assert names(sources.signalled()) == ["s0", "s2"]
    assert names(sources.signalled()) == ["s0", "s2"]
    counters[0].handled()
    assert names(sources.signalled()) == ["s2"]
    sources.remove(counters[2])
    assert sources.signalled() == []


def test_armOnce(fake: FakeReactor, sources: WakeSources, counters: list[MessageCounter]) -> None:
    """The alarm goes off once, in the reactor's turn, with all that are signalled."""
    heard: list[list[str]] = []
    for number, counter in enumerate(counters):
        sources.add(f"s{number}", counter)
    sources.arm(lambda found: heard.append(names(found)))
    fake.turn()
    assert heard == []
    counters[0].add(1)
    counters[1].add(1)
    assert heard == []
    fake.turn()
    assert heard == [["s0", "s1"]]
    counters[2].add(1)
    fake.turn()
    assert heard == [["s0", "s1"]]
    sources.arm(lambda found: heard.append(names(found)))
    fake.turn()
    assert heard[1:] == [["s0", "s1", "s2"]]


def test_disarm(fake: FakeReactor, sources: WakeSources, counters: list[MessageCounter]) -> None:
    """A forgotten alarm does not go off; forgetting again is harmless."""
    heard: list[list[Source]] = []
    sources.add("one", counters[0])
    sources.disarm()
    sources.arm(heard.append)
    sources.disarm()
    sources.disarm()
    counters[0].add(1)
    fake.turn()
    assert heard == []


def test_addedWhileArmed(
    fake: FakeReactor, sources: WakeSources, counters: list[MessageCounter]
) -> None:
    """A source that is added, or removed, after the alarm was set is heard, or not."""
    heard: list[list[str]] = []
    sources.add("old", counters[0])
    sources.arm(lambda found: heard.append(names(found)))
    sources.remove(counters[0])
    counters[0].add(1)
    fake.turn()
    assert heard == []
    sources.add("new", counters[1])
    counters[1].add(1)
    fake.turn()
    assert heard == [["new"]]


def test_overBeforeTheTurn(
    fake: FakeReactor, sources: WakeSources, counters: list[MessageCounter]
) -> None:
    """What was handled again before the reactor looked is no alarm; the next one is."""
    heard: list[list[str]] = []
    sources.add("one", counters[0])
    sources.arm(lambda found: heard.append(names(found)))
    counters[0].add(1)
    counters[0].handled()
    fake.turn()
    sources.doRead()
    assert heard == []
    counters[0].add(1)
    fake.turn()
    assert heard == [["one"]]


def test_armFromCallback(
    fake: FakeReactor, sources: WakeSources, counters: list[MessageCounter]
) -> None:
    """The alarm may be set again while it goes off."""
    heard: list[str] = []

    def alarm(found: list[Source]) -> None:
        heard.extend(names(found))
        counters[0].handled()
        sources.arm(alarm)

    sources.add("one", counters[0])
    sources.arm(alarm)
    counters[0].add(2)
    fake.turn()
    assert heard == ["one", "one"]
