"""The scheduler role: taken where it may be, else a warning that names the right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from chanproxy import config

SCRIPT = """
import json, os, sys
from twisted.logger import formatEvent, globalLogPublisher
from chanproxy.config import Scheduling
from chanproxy.service.scheduling import schedule
told = []
globalLogPublisher.addObserver(lambda event: told.append(formatEvent(event)))
asked = json.loads(sys.argv[1])
if sys.argv[2] == "nobody":
    import resource
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
    os.setgid(65534); os.setuid(65534)
schedule(Scheduling(**asked))
print(json.dumps({
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "policy": os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK,
    "priority": os.sched_getparam(0).sched_priority,
    "affinity": sorted(os.sched_getaffinity(0)),
    "told": told,
}))
"""


def scheduled(who: str = "us", **asked: Any) -> dict[str, Any]:
    """What a process of its own gets."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked), who],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_taken() -> None:
    """starnix: channel proxy: 3: a nice value, a policy and CPUs, as configured."""
    cpu = min(os.sched_getaffinity(0))
    found = scheduled(nice=5, policy="batch", affinity=[cpu])
    assert found == {
        "nice": os.getpriority(os.PRIO_PROCESS, 0) + 5,
        "policy": os.SCHED_BATCH,
        "priority": 0,
        "affinity": [cpu],
        "told": [],
    }
    assert scheduled()["policy"] == os.sched_getscheduler(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_realTime() -> None:
    """A real-time policy with its priority, where the kernel has time to give; else a warning."""
    found = scheduled(policy="rr", priority=3)
    if found["told"]:
        assert "policy = 'rr', priority = 3" in found["told"][0]
    else:
        assert (found["policy"], found["priority"]) == (os.SCHED_RR, 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_refused() -> None:
    """starnix: channel proxy: 3: what is refused is a warning that names the missing right."""
    found = scheduled("nobody", nice=-5, policy="fifo", priority=7, affinity=[8191])
    assert found["policy"] == os.SCHED_OTHER
    nice, affinity, policy = found["told"]
    assert nice.startswith("scheduling: nice = -5: Permission denied; it needs CAP_SYS_NICE, or RL")
    assert "RLIMIT_NICE (ulimit -e) of 25 or more" in nice
    assert "affinity = [8191]: Invalid argument; none of these CPUs is there" in affinity
    assert "policy = 'fifo', priority = 7: Operation not permitted; it needs CAP_SYS_NICE" in policy
    assert "RLIMIT_RTPRIO (ulimit -r) of 7 or more; going on without" in policy


def test_configuration() -> None:
    """The table is read, and its mistakes are told."""
    containers = '[containers.a]\nfreezer = "none"\n'
    table = '[scheduling]\nnice = -3\npolicy = "rr"\npriority = 9\naffinity = [1, 0]\n'
    read = config.load(table + containers).scheduling
    assert read == config.Scheduling(-3, "rr", 9, (0, 1))
    assert config.load(containers).scheduling == config.Scheduling()
    with pytest.raises(config.ConfigurationError) as wrong:
        config.load(
            '[scheduling]\nnice = 20\npolicy = "best"\npriority = 5\naffinity = [-1, true]\n'
            + containers
        )
    text = str(wrong.value)
    for says in (
        "scheduling.nice: 20 is out of range; write a whole number from -20 to 19",
        "scheduling.policy: 'best' is not known; write one of 'other', 'batch', 'idle', 'fifo'",
        "scheduling.priority: is for the policies fifo and rr; leave it out",
        "scheduling.affinity: holds -1, which is no CPU's number; write for example",
        "scheduling.affinity: holds true or false",
    ):
        assert says in text
