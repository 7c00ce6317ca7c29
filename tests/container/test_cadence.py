"""How often the looks at a sleeping container come, by what they cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chanproxy.container.cadence import ALTOGETHER, EXTRA, RESERVE, SAVED, SHARE, SHORTEST, Cadence


class Looks:
    """Looks that cost what the test says, at times that it says."""

    def __init__(self, longest: float = 2.0) -> None:
        self.now = 1000.0
        self.used = 0.0
        self.cadence = Cadence(lambda: self.now, longest, lambda: self.used)

    def look(self, cost: float) -> None:
        """One that comes again and again."""
        self.cadence.begin()
        self.used += cost
        self.cadence.end()

    def extra(self, cost: float) -> None:
        """One more."""
        self.cadence.begin()
        self.used += cost
        self.cadence.endExtra()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    """No others look."""
    monkeypatch.setattr(Cadence, "running", 0)
    looks = Looks()
    yield looks
    looks.cadence.stop()


def test_cheap(alone: Looks) -> None:
    """Cheap looks come within a quarter of a second."""
    alone.cadence.start()
    for _ in range(20):
        alone.look(0.00005)
        assert alone.cadence.interval() == SHORTEST < 0.25


def test_dear(alone: Looks) -> None:
    """Dearer ones come less often, for their share of a processor; never less than asked for."""
    alone.cadence.start()
    for _ in range(50):
        alone.look(0.0008)
    assert alone.cadence.interval() == pytest.approx(0.0008 / SHARE, rel=0.01)
    for _ in range(50):
        alone.look(0.1)
    assert alone.cadence.interval() == 2.0
    for _ in range(50):
        alone.look(0.00005)
    assert alone.cadence.interval() == SHORTEST


def test_askedFor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for less time between looks than they need gets it."""
    monkeypatch.setattr(Cadence, "running", 0)
    looks = Looks(0.01)
    looks.look(0.001)
    assert looks.cadence.interval() == 0.01
    assert 0 < looks.cadence.delay() <= 0.01


def test_many(alone: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many share what looks may take altogether."""
    alone.cadence.start()
    alone.cadence.start()
    assert Cadence.running == 1
    for _ in range(50):
        alone.look(0.00005)
    monkeypatch.setattr(Cadence, "running", 200)
    assert alone.cadence.interval() == pytest.approx(200 * 0.00005 / ALTOGETHER, rel=0.01)
    monkeypatch.setattr(Cadence, "running", 1)
    alone.cadence.stop()
    alone.cadence.stop()
    assert Cadence.running == 0


def test_together(alone: Looks) -> None:
    """The looks of all come in the same turns of the reactor."""
    times = set()
    for start in (1000.0, 1000.05, 1000.1, 1000.21):
        alone.now = start
        for _ in range(10):
            delay = alone.cadence.delay()
            assert 0 < delay <= SHORTEST * 1.01
            alone.now += delay
        times.add(round(alone.now / SHORTEST % 1, 6) % 1)
    assert times == {0.0}


def test_extra(alone: Looks) -> None:
    """Looks beyond those that are due are made from what was saved, and no more."""
    cadence = alone.cadence
    assert cadence.canAfford()
    alone.extra(SAVED + 0.001)
    assert not cadence.canAfford()
    alone.now += 0.0009 / EXTRA
    assert not cadence.canAfford()
    alone.now += 0.0002 / EXTRA
    assert cadence.canAfford()
    # What nobody asks for comes when there is plenty.
    assert not cadence.canAfford(RESERVE)
    alone.now += RESERVE / EXTRA
    assert cadence.canAfford(RESERVE)
    # What is saved up has a bound.
    alone.now += 1_000_000
    alone.extra(SAVED * 1.01)
    assert not cadence.canAfford()
    # They do not make the others rarer.
    assert cadence.interval() == SHORTEST
