"""
C{[scheduling]}: how the kernel is to schedule the service.

Pure; whether we may have that, shows when it is asked for.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from chanproxy.config.tables import Table, kind
from chanproxy.words import brief

MOST_CPUS = 8192
"""C{CONFIG_NR_CPUS} of the largest kernels."""


@frozen
class Scheduling:
    """
    C{[scheduling]}: how the kernel schedules the service; L{None} and empty: as it was started.

    @ivar nice: -20 to 19; less is more.
    @ivar policy: C{other}, C{batch}, C{idle}, C{fifo} or C{rr}.
    @ivar priority: 1 to 99, for C{fifo} and C{rr}; more is more.
    @ivar affinity: numbers of CPUs.
    """

    nice: int | None = None
    policy: str | None = None
    priority: int = 1
    affinity: tuple[int, ...] = ()


def _checkCpu(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"holds {kind(value)}")
    if not 0 <= value < MOST_CPUS:
        raise ValueError(f"holds {brief(value)}, which is no CPU's number")


def readScheduling(table: Table) -> Scheduling:
    """What the configuration says; what is wrong with it is noted in the table."""
    real = ("fifo", "rr")
    policy = None
    if table.has("policy"):
        policy = table.choice("policy", "other", "other", "batch", "idle", *real)
    if table.has("priority") and policy not in real:
        table.note("priority", "is for the policies fifo and rr", "leave it out, or write one")
    scheduling = Scheduling(
        int(table.number("nice", 0, -20, 19, whole=True)) if table.has("nice") else None,
        policy,
        int(table.number("priority", 1, 1, 99, whole=True)),
        tuple(sorted(table.items("affinity", _checkCpu, "[0, 1]"))),
    )
    table.end()
    return scheduling
