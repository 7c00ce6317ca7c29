"""When a sleeping thread has last run: not before it said so, and not long after it was seen to."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from chanproxy.adopt.lastran import lastRan
from chanproxy.adopt.threads import Gone
from support.processes import waitForState

SLEEPER = "import time; print(time.monotonic_ns(), flush=True); time.sleep(1000)"

TICK = 20_000_000
"""Nanoseconds: two ticks of the slowest kernels, by which our own figure may be old."""


def test_asleep() -> None:
    """However long ago that was; and we may run where we might before."""
    allowed = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = int(process.stdout.readline())
            waitForState(process.pid, "S")
            seen = time.monotonic_ns()
            for _ in range(4):
                # That it has not run for a while is what this is about.
                time.sleep(0.2)
                last = lastRan(process.pid, process.pid)
                assert last is not None
                assert said <= last <= seen + TICK
        finally:
            process.kill()
    with pytest.raises(Gone):
        lastRan(process.pid, process.pid)
    assert os.sched_getaffinity(0) == allowed
