"""
Whoever compares times comes before all others, so that it measures what it tests and not the load;
and what needs all processors itself runs alone.

The bounds of such tests are those that the docs promise for a machine that has processor time to
give; how long the other tests and other programs keep the processors is no part of that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Generator, Iterator

import pytest

NICE = -15
"""C{nice(2)}: 28 times the weight of one with 0, see C{sched_prio_to_weight} of the kernel."""

PATIENCE = 120.0
"""
Seconds that whoever is to be alone waits for that; what a test has left running may still hold what
it was given, and then there is no use in waiting.
"""


@pytest.fixture(scope="module", autouse=True)
def punctual(request: pytest.FixtureRequest) -> Iterator[None]:
    """For a file marked so: this thread has priority, and all that it starts meanwhile."""
    if request.node.get_closest_marker("punctual") is None or os.geteuid() != 0:
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait until it may run beside what other workers do."""
    with _turn(item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _turn(alone: bool) -> Iterator[None]:
    """Beside others that run, or beside none: then they wait until this one is over."""
    with _file("gate") as gate, _file("turn") as turn:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if alone:
            deadline = time.monotonic() + PATIENCE
            while not _taken(turn) and time.monotonic() < deadline:
                time.sleep(0.05)
        else:
            fcntl.flock(turn, fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _taken(turn: int) -> bool:
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _file(name: str) -> Iterator[int]:
    """What all workers lock."""
    path = os.path.join(tempfile.gettempdir(), f"chanproxy-{name}-{os.geteuid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
