"""
How long idle programs sleep, and what that costs: C{python -m bench.sleepers [--seconds N]}.

Each program has a service of its own with all defaults, all at the same time, and nobody asks them
anything; then many of one kind share a service.  Prints a Markdown table, and what was not reached.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from attrs import define, frozen

from bench.idlers import KINDS, Absent, Kind
from bench.measure import spent
from support.cgroups import TemporaryCgroup
from support.fleet import Fleet
from support.live import until
from support.ports import freePort
from support.programs import answers

SERVICE = 0.1
"""Percent of a processor that the service may need for a sleeper."""

SETTLING = 60.0
"""Seconds, at most, until a program that has just begun falls asleep."""


@define
class Watched:
    """
    How long a cgroup has been frozen, and how often it was thawed, while it is looked at.

    @ivar frozen: whether it was, at the last look.
    @ivar at: when that was.
    """

    cgroup: TemporaryCgroup
    frozen: bool
    at: float
    asleep: float = 0.0
    looked: float = 0.0
    thaws: int = 0

    def look(self) -> None:
        """After an event, and at the end."""
        now, frozen = time.monotonic(), self.cgroup.frozen()
        self.looked += now - self.at
        if self.frozen:
            self.asleep += now - self.at
            self.thaws += not frozen
        self.frozen, self.at = frozen, now


def watch(cgroups: Sequence[TemporaryCgroup], seconds: float) -> list[Watched]:
    """Look at some for a while, by the kernel's events."""
    poll = select.poll()
    watched: dict[int, Watched] = {}
    with ExitStack() as stack:
        for cgroup in cgroups:
            file = stack.enter_context(open(os.path.join(cgroup.path, "cgroup.events")))
            poll.register(file, select.POLLPRI)
            # An event is what comes after a read.
            file.read()
            watched[file.fileno()] = Watched(cgroup, cgroup.frozen(), time.monotonic())
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                os.pread(fd, 256, 0)
                watched[fd].look()
        for each in watched.values():
            each.look()
    return list(watched.values())


class Group:
    """
    Programs of one kind under one service.

    @ivar row: what the table says of it, when it was measured.
    @ivar missed: what was not reached, in words.
    """

    def __init__(self, kind: Kind, count: int, stack: ExitStack) -> None:
        """@raise Absent: it is not installed."""
        self.kind, self.missed = kind, list[str]()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sleepers-")))
        self.cgroups: dict[str, TemporaryCgroup] = {}
        for number in range(count):
            own = directory / str(number)
            own.mkdir()
            port = freePort()
            argv = kind.command(own, port)
            cgroup = stack.enter_context(TemporaryCgroup())
            # What it says goes nowhere.
            program = cgroup.spawn(
                ["sh", "-c", 'exec "$@" > /dev/null 2>&1', "sh", *argv], subprocess.DEVNULL
            )
            until(kind.name, partial(_serves, port, program))
            assert program.poll() is None, f"{kind.name} ended by {program.returncode}"
            self.cgroups[f"c{number}"] = cgroup
        self.fleet = stack.enter_context(Fleet(directory, self.cgroups))
        self.fleet.start()

    @property
    def service(self) -> int:
        """The process."""
        assert self.fleet.service is not None
        return self.fleet.service.pid

    def statistics(self) -> Counter[str]:
        """All figures, added up; which there are is up to the service."""
        found: Counter[str] = Counter()
        for name in self.cgroups:
            for key, value in self.fleet.describe(name)["statistics"].items():
                if isinstance(value, int):
                    found[key] += value
        return found

    def reasons(self, since: int) -> Counter[str]:
        """Why they woke since a time of CLOCK_BOOTTIME, nanoseconds."""
        found: Counter[str] = Counter()
        for name in self.cgroups:
            found.update(general(event) for event in self._wakes(name, since))
        return found

    def _wakes(self, name: str, since: int) -> Iterator[str]:
        for event in self.fleet.describe(name)["events"]:
            if event["kind"] == "resume" and event["at"] >= since:
                yield event["reason"]

    def awake(self) -> str:
        """Why the first of them that is awake is."""
        described = (self.fleet.describe(name) for name in self.cgroups)
        return next((d["why_awake"] for d in described if d["state"] != "asleep"), "")

    def own(self) -> float:
        """Seconds of the processor that the programs have had."""
        usages = [_field(cgroup.read("cpu.stat"), "usage_usec") for cgroup in self.cgroups.values()]
        return sum(usages) / 1e6


def _serves(port: int, program: subprocess.Popen[bytes]) -> bool:
    return answers(port) or program.poll() is not None


def _field(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def general(reason: str) -> str:
    """Without the container and the numbers of processes, so that equal ones count together."""
    first = reason.split(",")[0].partition("/")[2] or reason
    head, bracket, rest = first.partition("[")
    return head + rest.partition("]")[2] if bracket else first


def _now() -> int:
    # What the service's times are by.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@frozen
class Before:
    """What there was at the start of the time that is measured."""

    statistics: Mapping[str, int]
    service: float
    own: float
    at: int

    @classmethod
    def of(cls, group: Group) -> Before:
        """Now."""
        service = spent([group.service]).cpu
        return cls(group.statistics(), service, group.own(), _now())


def row(group: Group, before: Before, watched: Sequence[Watched], seconds: float) -> str:
    """One line of the table; notes what was not reached."""
    count = len(group.cgroups)
    # First, because to ask costs something.
    service = 100 * (spent([group.service]).cpu - before.service) / seconds / count
    own = 100 * (group.own() - before.own) / seconds / count
    share = 100 * sum(each.asleep / each.looked for each in watched) / count
    thaws = sum(each.thaws for each in watched)
    after = group.statistics()

    def more(key: str) -> int:
        return after[key] - before.statistics[key]

    breaths = "unknown"
    if "breath_count" in after:
        breaths = f"{more('breath_count')}, {more('breath_time') / 1e6:.0f} ms"
    reasons = ", ".join(f"{why} ({n})" for why, n in group.reasons(before.at).most_common(3))
    if share < 50:
        reasons = "; ".join(filter(None, (reasons, f"awake: {group.awake()}")))
    name = group.kind.name if count == 1 else f"{group.kind.name}, {count} under one service"
    if group.kind.target is not None and share < group.kind.target:
        group.missed.append(f"{name}: asleep {share:.2f} %, not {group.kind.target:.0f} %")
    if service > SERVICE:
        group.missed.append(f"{name}: {service:.3f} % of a processor, not {SERVICE} %")
    wakes = more("success_count")
    cells = [name, f"{share:.2f} %", str(thaws), str(wakes), breaths]
    cells += [f"{service:.3f} %", f"{own:.3f} %", reasons or "none"]
    return f"| {' | '.join(cells)} |"


def measure(groups: Sequence[Group], seconds: float) -> None:
    """Print the rows of some, all measured at the same time."""
    for group in groups:
        _settle(group)
    before = [Before.of(group) for group in groups]
    everything = [cgroup for group in groups for cgroup in group.cgroups.values()]
    watched = watch(everything, seconds)
    for group, was in zip(groups, before, strict=True):
        mine = [each for each in watched if each.cgroup in group.cgroups.values()]
        print(row(group, was, mine, seconds), flush=True)


def _settle(group: Group) -> None:
    """Until each has slept once, or will not."""
    deadline = time.monotonic() + SETTLING
    for cgroup in group.cgroups.values():
        while not cgroup.frozen() and time.monotonic() < deadline:
            time.sleep(0.01)


def main() -> int:
    """@return: the exit status: whether a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--many", type=int, default=20, help="how many share a service; 0: none")
    options = parser.parse_args()
    print(f"Idle for {options.seconds:.0f} s; load average {os.getloadavg()[0]:.2f}.\n")
    print("| | asleep | thaws | wakes | breaths | service, each | own | why it woke |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    missed: list[str] = []
    for rounds in ([(kind, 1) for kind in KINDS], [(KINDS[0], options.many)]):
        with ExitStack() as stack:
            groups: list[Group] = []
            for kind, count in rounds:
                try:
                    groups += [Group(kind, count, stack)] if count else []
                except Absent as absent:
                    print(f"| {kind.name} | not installed: {absent} | | | | | | |")
            measure(groups, options.seconds)
            missed += [text for group in groups for text in group.missed]
    print("\n" + ("\n".join(missed) or "All targets are reached."))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
