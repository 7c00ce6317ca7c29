"""A tick at a fixed rate is housekeeping, also after it has slept through some of its instants."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cgroups import TemporaryCgroup
from tests.fleet import Fleet
from tests.frozen import needsCgroup
from tests.live import until

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

BREATHS = 3


@pytest.mark.parametrize("kind", ["instants", "times"])
def test_staysAHabit(tmp_path: Path, kind: str) -> None:
    """Each breath comes at some moment between two of its instants; none is waited for after it."""
    with TemporaryCgroup() as cgroup:
        process = cgroup.spawn([sys.executable, "-c", TICKS, kind], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with Fleet(tmp_path, {"web": cgroup}) as fleet:
            fleet.start()
            until("asleep", lambda: fleet.describe("web")["passed_over"])
            before = fleet.describe("web")["statistics"]["breath_count"]
            while (found := fleet.describe("web"))["statistics"]["breath_count"] < before + BREATHS:
                assert found["passed_over"], found
                time.sleep(0.02)
