"""
Programs that work are left alone: none is ever caught asleep at work, and none gets slower.

Each does its work in rounds, in a container that sleeps between them and in one that nobody
watches, in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.programs import CYCLES, Sleeper
from support.worker import COMPUTES, NAPS, WRITES, Worker
from tests.shared.needs import needs

pytestmark = needs()

ROUNDS = 5 if CYCLES <= 50 else 50

SLOWER = 1.4
"""
How much longer the median may take than the longest round that nobody watched: within the noise.

C{bench/adopt_throughput.py} measures the difference.
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is to be closed."""
    with ExitStack() as stack:
        yield stack


# With filters that let everything pass, only the look itself finds the work.
_ALL_PASS = {"busy_cpu": 1024, "busy_switches": 1e6}


def counts(sleeper: Sleeper) -> tuple[int, int]:
    """How often it has slept, and how often that was tried."""
    statistics = sleeper.describe()["statistics"]
    return int(statistics["success_count"]), int(statistics["attempt_count"])


@pytest.mark.parametrize(
    ("work", "settings"),
    [(COMPUTES, {}), (COMPUTES, _ALL_PASS), (WRITES, {}), (WRITES, _ALL_PASS), (NAPS, {})],
    ids=["computes", "computes, no filter", "writes", "writes, no filter", "naps"],
)
def test_neverAsleepAtWork(
    tmp_path: Path, stack: ExitStack, work: str, settings: dict[str, float]
) -> None:
    """Same results and speed, and nothing is frozen from the beginning to the end of the work."""
    watched, alone = Worker(work, tmp_path / "watched"), Worker(work, tmp_path / "alone")
    stack.callback(watched.cgroup.close)
    stack.callback(alone.cgroup.close)
    sleeper = stack.enter_context(Sleeper(tmp_path, watched.cgroup, "", **settings))
    sleeper.start()
    times: dict[Worker, list[float]] = {watched: [], alone: []}
    for number in range(ROUNDS):
        results = set()
        for worker in (watched, alone) if number % 2 else (alone, watched):
            sleeper.waitAsleep()
            worker.begin(number)
            before = counts(sleeper)
            seconds, result = worker.finish()
            slept, tried = (now - then for now, then in zip(counts(sleeper), before, strict=True))
            assert slept == 0, sleeper.describe()
            # With nothing but the look, it is frozen for that.
            assert tried == 0 or settings, sleeper.describe()
            times[worker].append(seconds)
            results.add(result)
        assert len(results) == 1
    if not settings and work != WRITES:
        # A sync takes ten times as long as the one before, whoever else writes.
        assert statistics.median(times[watched]) < SLOWER * max(times[alone]), list(times.values())
