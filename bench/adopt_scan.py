"""
What looking into a container costs: C{python -m bench.adopt_scan [--quick]}.

A look by the number of threads and of descriptors; an attempt that is refused; and the looks at a
container that stays awake, by the second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chanproxy.adopt.adopted import Place, Room
from chanproxy.adopt.deadlines import IGNORE
from chanproxy.adopt.entering import Members
from chanproxy.adopt.inspector import Inspector
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.slices import inOne
from chanproxy.adopt.times import Times
from chanproxy.wake.source import SourceGroup
from support.cgroups import TemporaryCgroup
from support.live import until
from support.programs import Sleeper

LIMIT = 20_000
"""Descriptors that may be adopted."""

THREADS = """
import os, sys, threading
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=os.read, args=(os.pipe()[0], 1), daemon=True).start()
print("ready", flush=True)
os.read(os.pipe()[0], 1)
"""

POLL = """
import select, socket, sys
poll = select.poll()
for _ in range(int(sys.argv[1])):
    poll.register(socket.socket(type=socket.SOCK_DGRAM).detach(), select.POLLIN)
print("ready", flush=True)
poll.poll()
"""

EPOLL = """
import os, select, sys
epoll = select.epoll()
for _ in range(int(sys.argv[1])):
    epoll.register(os.eventfd(0), select.EPOLLIN)
print("ready", flush=True)
epoll.poll()
"""

BUSY = """
import os, sys, threading
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=os.read, args=(os.pipe()[0], 1), daemon=True).start()
print("ready", flush=True)
while True:
    pass
"""

LIVELY = """
import os, sys, threading, time
for _ in range(int(sys.argv[1]) - 1):
    threading.Thread(target=os.read, args=(os.pipe()[0], 1), daemon=True).start()
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


class Looked:
    """A program in a cgroup, and what looks into it."""

    def __init__(self, program: str, count: int) -> None:
        self.cgroup = TemporaryCgroup()
        self._clock = Clock()
        try:
            process = self.cgroup.spawn(
                [sys.executable, "-c", program, str(count)], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            # It prints first, and waits a moment later.
            time.sleep(0.2)
        except BaseException:
            self.cgroup.close()
            raise
        self._inspector = Inspector(
            self._clock,
            Members(inOne(lambda: [process.pid])),
            Times.make("it", self._clock, IGNORE),
            Ignored(()),
            Place(lambda: Room(LIMIT), lambda adopted: None),
        )

    def freeze(self) -> None:
        """Until the kernel says so."""
        self.cgroup.write("cgroup.freeze", "1")
        until("frozen", self.cgroup.frozen)

    def thaw(self) -> None:
        """Let it run."""
        self.cgroup.write("cgroup.freeze", "0")

    def look(self) -> SourceGroup | Failure:
        """One look, all slices of it."""
        results: list[SourceGroup | Failure] = []
        self._inspector.look().addBoth(results.append)
        while not results:
            self._clock.advance(0)
        return results[0]

    def close(self) -> None:
        """End all of it."""
        self._inspector.close()
        self.thaw()
        self.cgroup.close()


def milliseconds(step: Callable[[], object]) -> float:
    """One step, timed."""
    began = time.perf_counter()
    step()
    return (time.perf_counter() - began) * 1000


def looks(what: str, program: str, count: int, rounds: int) -> None:
    """A row: a look that finds it idle, and the close of what it found, which is part of a wake."""
    looked = Looked(program, count)
    found: list[SourceGroup] = []
    taking, closing = [], []

    def look() -> None:
        result = looked.look()
        assert not isinstance(result, Failure), result.getErrorMessage()
        found.append(result)

    try:
        for _ in range(rounds):
            looked.freeze()
            taking.append(milliseconds(look))
            closing.append(milliseconds(lambda: found[-1].beforeThaw(False)))
            looked.thaw()
            found.pop().close()
            time.sleep(0.002)
    finally:
        looked.close()
    print(
        f"| {what} | {statistics.median(taking):.2f} ms | {max(taking):.2f} ms "
        f"| {statistics.median(closing):.3f} ms |",
        flush=True,
    )


def refused(threads: int, rounds: int) -> None:
    """A row: how long a program that works is stopped for nothing."""
    looked = Looked(BUSY, threads)
    stopped = []

    def attempt() -> None:
        looked.freeze()
        assert isinstance(looked.look(), Failure)
        looked.thaw()

    try:
        for _ in range(rounds):
            stopped.append(milliseconds(attempt))
            time.sleep(0.002)
    finally:
        looked.close()
    print(
        f"| refused, from freeze to thaw: one thread works, {threads - 1} wait "
        f"| {statistics.median(stopped):.2f} ms | {max(stopped):.2f} ms | |",
        flush=True,
    )


def processor(pid: int) -> float:
    """Seconds that a process has run, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def awake(what: str, program: str, threads: int, seconds: float) -> None:
    """A row: what the service uses while one container works and is left awake."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cgroup = stack.enter_context(TemporaryCgroup())
        process = cgroup.spawn(
            [sys.executable, "-c", program, str(threads)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        sleeper = stack.enter_context(Sleeper(directory, cgroup, linger=0.5, short_sleep=1))
        sleeper.start()
        time.sleep(1)
        assert sleeper.service is not None
        before = processor(sleeper.service.pid)
        time.sleep(seconds)
        used = (processor(sleeper.service.pid) - before) / seconds
        statistics = sleeper.describe()["statistics"]
    print(f"| {what} | {used * 1000:.2f} ms/s | {statistics['attempt_count']} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    options = parser.parse_args()
    rounds = 5 if options.quick else 50
    print(f"Load average {os.getloadavg()[0]:.2f} at the start.\n")
    print("| | median | longest | closing sockets, before the thaw |")
    print("| --- | ---: | ---: | ---: |")
    for count in (1, 10, 100, 1000):
        looks(
            f"{count} thread{'s' * (count > 1)}, each reading from a pipe", THREADS, count, rounds
        )
    for count in (10, 100, 1000, 10_000):
        looks(f"poll of {count} sockets", POLL, count, rounds)
    looks("one epoll with 10000 eventfds", EPOLL, 10_000, rounds)
    for threads in (1, 100, 1000):
        refused(threads, rounds)
    print("\n| left awake | processor | attempts |")
    print("| --- | ---: | ---: |")
    seconds = 3 if options.quick else 15
    awake("computes, 1 thread (busy-cpu)", BUSY, 1, seconds)
    awake("sleeps 10 ms in a loop, 1 thread (busy-switches)", LIVELY, 1, seconds)
    awake("the same, beside 100 threads that wait", LIVELY, 101, seconds)
    print(f"\nLoad average {os.getloadavg()[0]:.2f} at the end.")


if __name__ == "__main__":
    main()
