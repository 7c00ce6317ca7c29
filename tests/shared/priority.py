"""
Whoever compares times comes before all others, so that it measures what it tests and not the load.

The bounds of such tests are those that the docs promise for a machine that has processor time to
give; how long the other tests and other programs keep the processors is no part of that.
"""

from __future__ import annotations

import os
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
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
