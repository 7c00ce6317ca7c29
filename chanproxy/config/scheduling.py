"""
C{[scheduling]}: how the kernel is to schedule the service.

Pure; whether we may have that, shows when it is asked for.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from chanproxy.config.keys import key, keysOf
from chanproxy.config.kinds import (
    Choice,
    Items,
    Whole,
    sort,
)
from chanproxy.config.tables import Table
from chanproxy.words import brief

MOST_CPUS = 8192
"""C{CONFIG_NR_CPUS} of the largest kernels."""

_REAL = ("fifo", "rr")


def _cpu(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"holds {sort(value)}")
    if not 0 <= value < MOST_CPUS:
        raise ValueError(f"holds {brief(value)}, which is no CPU's number")
    return value


@frozen
class Scheduling:
    """
    C{[scheduling]}: how the kernel schedules the service; L{None} and empty: as it was started.

    @ivar nice: -20 to 19; less is more.
    @ivar policy: C{other}, C{batch}, C{idle}, C{fifo} or C{rr}.
    @ivar priority: 1 to 99, for C{fifo} and C{rr}; more is more.
    @ivar affinity: numbers of CPUs.
    """

    nice: int | None = key(None, Whole(-20, 19), "Less is more.")
    policy: str | None = key(
        None, Choice("other", "batch", "idle", *_REAL), "As of the kernel's own."
    )
    priority: int = key(1, Whole(1, 99), "For fifo and rr; more is more.")
    affinity: tuple[int, ...] = key(
        (), Items(_cpu, "[0, 1]", "list of whole numbers"), "The CPUs that it runs on."
    )


KEYS = keysOf(Scheduling)


def readScheduling(table: Table) -> Scheduling:
    """What the configuration says; what is wrong with it is noted in the table."""
    values = table.readAll(KEYS)
    if table.has("priority") and values["policy"] not in _REAL:
        table.note(
            "priority", "is for the policies fifo and rr", "leave it out, or write policy = 'fifo'"
        )
    values["affinity"] = tuple(sorted(values["affinity"]))
    table.end()
    return Scheduling(**values)
