"""A tick at a fixed rate is housekeeping, also after it has slept through some of its instants."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup
from support.fleet import Fleet
from support.live import until
from tests.shared.frozen import needsCgroup

pytestmark = [*needsCgroup, pytest.mark.lasts(25), pytest.mark.punctual]

TICKS = """
import os, select, sys, threading, time
# Many, so that a look at all of them takes longer than instants may differ.
for _ in range(30):
    threading.Thread(target=os.read, args=(os.pipe()[0], 1), daemon=True).start()
lock = threading.Lock()
lock.acquire()
# With an instant for the kernel, and with a time.
wait = {"instants": lambda left: lock.acquire(timeout=left),
        "times": lambda left: select.select([], [], [], left)}[sys.argv[1]]
step = 1.0
due = time.monotonic() + step
print("ready", flush=True)
while True:
    wait(max(due - time.monotonic(), 0))
    while due <= time.monotonic():
        due += step
"""

IN_A_ROW = 3
"""Breaths.  If the habit were lost in each, none would follow one with it still there."""


class Breaths:
    """Those after which the tick is housekeeping still."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._since: int | None = None

    def inARow(self) -> bool:
        time.sleep(0.02)
        found = self._fleet.describe("web")
        count: int = found["statistics"]["breath_count"]
        if not found["passed_over"]:
            self._since = None
        elif self._since is None:
            self._since = count
        return self._since is not None and count >= self._since + IN_A_ROW


@pytest.mark.parametrize("kind", ["instants", "times"])
def test_staysAHabit(tmp_path: Path, kind: str) -> None:
    """Each breath comes at some moment between two of its instants; none is waited for after it."""
    with TemporaryCgroup() as cgroup:
        process = cgroup.spawn([sys.executable, "-c", TICKS, kind], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with Fleet(tmp_path, {"web": cgroup}) as fleet:
            fleet.start()
            breaths = Breaths(fleet)
            # On a busy machine it comes too late now and then, and has to become a habit again.
            until("a habit through some breaths", breaths.inARow, 90)
