"""
The scheduler role: nice value, policy and CPUs of the thread that runs the reactor.

Not getting them is a warning that names the missing right.  Threads and processes that are started
afterwards inherit the nice value and the CPUs, but not a policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from chanproxy._tables import Table, kind
from chanproxy._words import brief

_log = Logger()

_POLICIES = {
    "other": os.SCHED_OTHER,
    "batch": os.SCHED_BATCH,
    "idle": os.SCHED_IDLE,
    "fifo": os.SCHED_FIFO,
    "rr": os.SCHED_RR,
}


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


def schedule(scheduling: Scheduling) -> None:
    """Take what the configuration asks for, as far as we may."""
    nice, policy, cpus = scheduling.nice, scheduling.policy, scheduling.affinity
    if nice is not None:
        value = nice
        _try(
            f"nice = {nice}",
            lambda: os.setpriority(os.PRIO_PROCESS, 0, value),
            f"it needs CAP_SYS_NICE, or RLIMIT_NICE (ulimit -e) of {20 - nice} or more",
        )
    if cpus:
        _try(
            f"affinity = {list(cpus)}",
            lambda: os.sched_setaffinity(0, cpus),
            "none of these CPUs is there, or in the cpuset of our cgroup",
        )
    if policy is not None:
        real = policy in ("fifo", "rr")
        number = _POLICIES[policy] | os.SCHED_RESET_ON_FORK
        parameters = os.sched_param(scheduling.priority if real else 0)
        _try(
            f"policy = {policy!r}" + (f", priority = {scheduling.priority}" if real else ""),
            lambda: os.sched_setscheduler(0, number, parameters),
            "it needs CAP_SYS_NICE"
            + (f", or RLIMIT_RTPRIO (ulimit -r) of {scheduling.priority} or more" if real else ""),
        )


def _try(what: str, take: Callable[[], object], remedy: str) -> None:
    try:
        take()
    except OSError as error:
        _log.warn(
            "scheduling: {what}: {why}; {remedy}; going on without",
            what=what,
            why=error.strerror,
            remedy=remedy,
        )
