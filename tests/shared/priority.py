"""
Whoever compares times comes before all others, so that it measures what it tests and not the load;
and those that do so for long come one after the other.

The bounds of such tests are those that the docs promise for a machine that has processor time to
give; how long the other tests and other programs keep the processors is no part of that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator

import pytest

NICE = -15
"""C{nice(2)}: 28 times the weight of one with 0, see C{sched_prio_to_weight} of the kernel."""


@pytest.fixture(scope="module", autouse=True)
def punctual(request: pytest.FixtureRequest) -> Iterator[None]:
    """For a file marked so: this thread has priority, and all that it starts meanwhile."""
    if request.node.get_closest_marker("punctual") is None or os.geteuid() != 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        if request.node.get_closest_marker("lasts") is not None:
            stack.enter_context(_alone())
        before = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        try:
            yield
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, before)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """
    No other worker has it meanwhile.

    Dozens of programs each, all with priority, starve each other as well as the rest.
    """
    path = os.path.join(tempfile.gettempdir(), f"chanproxy-punctual-{os.geteuid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
