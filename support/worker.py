"""Programs that are no servers: each does its work in rounds, when it is told to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.cgroups import TemporaryCgroup

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
    """One of them, in a cgroup of its own."""

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
