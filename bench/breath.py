"""
What a breath costs: C{python -m bench.breath [--breaths N]}.

Programs that have nothing to do, each under a service of its own, which is to let it breathe far
more often than by default.  What the service needs for one that sleeps without breaths, it would
need anyway, and is taken off.  Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen

from bench.adopt_scan import THREADS
from bench.idlers import Absent, redis
from bench.measure import spent
from chanproxy.adopt.settings import BREATH
from support.cgroups import TemporaryCgroup
from support.live import until
from support.ports import freePort
from support.programs import Sleeper, answers

PACE = 0.5
"""Seconds asleep between breaths, here."""

Begin = Callable[[TemporaryCgroup, Path], None]
"""Starts a program, and waits until it has nothing more to do."""


def _redis(cgroup: TemporaryCgroup, directory: Path) -> None:
    port = freePort()
    argv = ["sh", "-c", 'exec "$@" > /dev/null 2>&1', "sh", *redis(directory, port)]
    program = cgroup.spawn(argv, subprocess.DEVNULL)
    until("redis", lambda: answers(port) or program.poll() is not None)
    assert program.poll() is None, f"redis ended by {program.returncode}"


def _threads(count: int) -> Begin:
    def begin(cgroup: TemporaryCgroup, directory: Path) -> None:
        argv = [sys.executable, "-c", THREADS, str(count)]
        process = cgroup.spawn(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    return begin


PROGRAMS: tuple[tuple[str, Begin], ...] = (
    ("redis", _redis),
    ("10 threads, each reading from a pipe", _threads(10)),
    ("100 threads, each reading from a pipe", _threads(100)),
)


@frozen
class Used:
    """
    Over some time in which nobody asked for anything.

    @ivar seconds: that it lasted.
    @ivar service: seconds of a processor that the service had.
    @ivar own: and the container.
    @ivar breaths: how many there were.
    @ivar breathing: seconds that these took.
    @ivar wakes: how often it woke for good.
    """

    seconds: float
    service: float
    own: float
    breaths: int
    breathing: float
    wakes: int


def use(directory: Path, cgroup: TemporaryCgroup, longest: float | str, seconds: float) -> Used:
    """Have a container sleep for a while, with the defaults but for C{max-asleep}."""
    with Sleeper(directory, cgroup, linger=0.5, short_sleep=1, max_asleep=longest) as sleeper:
        sleeper.start()
        sleeper.waitAsleep()
        assert sleeper.service is not None
        pid = sleeper.service.pid
        statistics = sleeper.describe()["statistics"]
        # What the question has set off is over then.
        time.sleep(0.1)
        began, service, own = time.monotonic(), spent([pid]).cpu, _own(cgroup)
        time.sleep(seconds)
        # First, because to ask costs something.
        lasted = time.monotonic() - began
        service, own = spent([pid]).cpu - service, _own(cgroup) - own
        after = sleeper.describe()["statistics"]
    # It was killed, not stopped.
    cgroup.write("cgroup.freeze", "0")
    return Used(
        lasted,
        service,
        own,
        after["breath_count"] - statistics["breath_count"],
        (after["breath_time"] - statistics["breath_time"]) / 1e9,
        after["success_count"] - statistics["success_count"],
    )


def _own(cgroup: TemporaryCgroup) -> float:
    lines = cgroup.read("cpu.stat").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec")) / 1e6


def row(name: str, without: Used, used: Used) -> str:
    """One line of the table."""
    breaths = max(used.breaths, 1)
    service = (used.service - without.service / without.seconds * used.seconds) / breaths
    own = (used.own - without.own / without.seconds * used.seconds) / breaths
    lasts = used.breathing / breaths
    cells = [
        name,
        f"{service * 1000:.2f} ms",
        f"{own * 1000:.2f} ms",
        f"{lasts * 1000:.1f} ms",
        f"{100 * (1 - used.breathing / used.seconds):.2f} %",
        f"{100 * (1 - lasts / (BREATH + lasts)):.3f} %",
        f"{100 * service / BREATH:.3f} %",
        f"{used.breaths}, {used.wakes}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--breaths", type=int, default=60, help="how many of each, about")
    options = parser.parse_args()
    seconds = options.breaths * PACE
    print(f"A breath each {PACE:g} s; load average {os.getloadavg()[0]:.2f} at the start.\n")
    print(
        "| | service, a breath | own, a breath | lasts | asleep, here "
        f"| asleep, each {BREATH:g} s | service, each {BREATH:g} s | breaths, wakes |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, begin in PROGRAMS:
        with ExitStack() as stack:
            directories = [
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="breath-")))
                for _ in range(3)
            ]
            cgroup = stack.enter_context(TemporaryCgroup())
            try:
                begin(cgroup, directories[0])
            except Absent as absent:
                print(f"| {name} | not installed: {absent} | | | | | | |")
                continue
            without = use(directories[1], cgroup, "never", seconds / 2)
            print(row(name, without, use(directories[2], cgroup, PACE, seconds)), flush=True)
    print(f"\nLoad average {os.getloadavg()[0]:.2f} at the end.")


if __name__ == "__main__":
    main()
