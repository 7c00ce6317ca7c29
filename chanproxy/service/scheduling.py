"""
The scheduler role: nice value, policy and CPUs of the thread that runs the reactor.

Not getting them is a warning that names the missing right.  Threads and processes that are started
afterwards inherit the nice value and the CPUs, but not a policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.logger import Logger

from chanproxy.config import Scheduling

_log = Logger()

_POLICIES = {
    "other": os.SCHED_OTHER,
    "batch": os.SCHED_BATCH,
    "idle": os.SCHED_IDLE,
    "fifo": os.SCHED_FIFO,
    "rr": os.SCHED_RR,
}


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
