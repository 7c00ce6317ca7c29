"""The comparison finds what it is there to find, and nothing else."""

from __future__ import annotations

import pytest

from tests.whole.beside.compare import Event, Sleep, differences


def slept(*changes: float) -> Sleep:
    """Frozen, thawed, frozen and so on at these times."""
    sleep = Sleep()
    for number, at in enumerate(changes):
        sleep.saw(number % 2 == 0, at)
    return sleep


def came(late: float, answer: str = "", hidden: bool = False) -> Event:
    """An event that was due at 100."""
    return Event("it", 100.0, "", hidden, at=100.0 + late, answer=answer)


def test_changesOnly() -> None:
    """The same state again is no change."""
    sleep = slept(10, 20)
    sleep.saw(False, 21)
    assert sleep.changes == [10, 20]
    assert not sleep.frozen


@pytest.mark.parametrize(
    ("changes", "lasted"),
    [
        ((), 0),
        ((90,), 10),
        ((90, 95), 0),
        # Awake for long enough to fall asleep anew.
        ((80, 90, 95), 5),
        # A breath, and one just now.
        ((80, 90, 90.1), 20),
        ((80, 90, 90.1, 99.9), 20),
        ((70, 80, 80.2, 90, 90.1), 30),
        ((70, 75, 80, 90, 90.1), 20),
        ((110,), 0),
    ],
)
def test_lasted(changes: tuple[float, ...], lasted: float) -> None:
    """A sleep goes on through its breaths."""
    assert slept(*changes).lasted(100) == pytest.approx(lasted)


def test_share() -> None:
    """Of all spans together, up to now if it is frozen still."""
    sleep = slept(0, 10, 12)
    assert sleep.share([(0, 20)]) == pytest.approx(0.9)
    assert sleep.share([(5, 11), (11, 13)]) == pytest.approx(0.75)
    assert sleep.share([(0, 0.5)]) is None


@pytest.mark.parametrize(
    ("alone", "asleep", "changes", "says"),
    [
        (came(0.01), came(0.3), (90,), ""),
        (came(0.01), came(0.4), (90,), "0.40 s late, 0.30 s are allowed"),
        # So busy was the machine.
        (came(0.2), came(0.4), (90,), ""),
        (came(0), came(-0.2), (90,), "0.20 s too early"),
        (came(0), came(0, "wrong"), (90,), "is 'wrong' instead of ''"),
        (came(0, "wrong"), came(0), (90,), "without chanproxy: is 'wrong'"),
        (came(0), Event("it", 100.0, why="EOFError: "), (90,), "never (EOFError: )"),
        (came(0), Event("other", 100.0), (90,), "was not come to"),
        # It hides: late by as much as the sleep has lasted, and by 15 s at most.
        (came(0, hidden=True), came(10, hidden=True), (90,), ""),
        (came(0, hidden=True), came(5, hidden=True), (97,), "5.00 s late, 4.30 s are allowed"),
        (came(0, hidden=True), came(5, hidden=True), (), "5.00 s late, 1.30 s are allowed"),
        (came(0, hidden=True), came(15.2, hidden=True), (50,), ""),
        (came(0, hidden=True), came(16, hidden=True), (50,), "16.00 s late, 15.30 s are allowed"),
    ],
)
def test_differences(alone: Event, asleep: Event, changes: tuple[float, ...], says: str) -> None:
    """Late, early, wrong, missing; each compared with the run alone."""
    found = differences([alone], [asleep], slept(*changes), 0)
    assert len(found) == bool(says)
    assert says in "".join(found)
