"""
Programs that work are left alone: none is ever caught asleep at work, and none gets slower.

Each does its work in rounds, in a container that sleeps between them and in one that nobody
watches, in turn.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cgroups import TemporaryCgroup
from tests.programs import CYCLES, Sleeper, needs

pytestmark = needs()

ROUNDS = 5 if CYCLES <= 50 else 50

SLOWER = 1.4
"""
How much longer the median may take than the longest round that nobody watched: within the noise.

C{bench/adopt_throughput.py} measures the difference.
"""

# A round's time, but for what others took of the processor: proc(5), schedstat, its second figure.
# Who is frozen does not wait for a processor, and so that counts.
FRAME = """
import hashlib, os, sys, time
def now():
    with open("/proc/self/schedstat") as file:
        return time.perf_counter() - int(file.read().split()[1]) / 1e9
for line in sys.stdin:
    print("works", flush=True)
    began = now()
    result = work(sys.argv[1], int(line))
    print(now() - began, result, flush=True)
"""

COMPUTES = """
def work(path, number):
    digest = b"%d" % number
    for _ in range(250_000):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()
"""

WRITES = """
def work(path, number):
    with open(path, "wb") as file:
        for block in range(120):
            file.write(hashlib.sha256(b"%d %d" % (number, block)).digest() * 1000)
            file.flush()
            os.fsync(file.fileno())
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
"""

NAPS = """
def work(path, number):
    for _ in range(150):
        time.sleep(0.001)
    return number
"""


class Worker:
    """One such program, in a cgroup of its own."""

    def __init__(self, work: str, file: Path) -> None:
        self.cgroup = TemporaryCgroup()
        self._process = self.cgroup.spawn(
            [sys.executable, "-c", work + FRAME, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def begin(self, number: int) -> None:
        """Have it work; it does so when this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % number)
        self._process.stdin.flush()
        assert self._line() == "works"

    def finish(self) -> tuple[float, str]:
        """Seconds that it took, without those of others, and its result."""
        seconds, result = self._line().split()
        return float(seconds), result

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().rstrip()


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
