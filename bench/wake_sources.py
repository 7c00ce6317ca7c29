"""
What many wake sources cost: C{python -m bench.wake_sources [MANY]}.

Two registries, a small and a large one, are added to, removed from, looked at, armed and woken in
turn, in one process.  A wake is timed from the signal, through the reactor, to the callback.
Prints medians and their ratio.
"""

from __future__ import annotations

import os
import platform
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _module

from chanproxy.kernel import calls
from chanproxy.wake.sources import WakeSources

# The module stands for the reactor that is installed.
reactor: Any = _module

FEW = 20
ROUNDS = 2000
SPARE = 100
"""Descriptors for everything else; as many sources as are left are the most there can be."""

KEYS = ("add", "remove", "look", "arm", "wake")


def _timer() -> int:
    # All anonymous files but eventfds share what fstat(2) shows: the hard case.
    return calls.timerAt(time.time() + 86400)


def _socket() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


KINDS: dict[str, Callable[[], int]] = {
    "eventfd": lambda: os.eventfd(0),
    "timerfd": _timer,
    "socket": _socket,
}


def fill(sources: WakeSources, make: Callable[[], int], count: int) -> None:
    """Register as many, quiet ones."""
    for number in range(count):
        fd = make()
        sources.addDescriptor(f"quiet {number}", fd, select.EPOLLIN)
        os.close(fd)


def microseconds(step: Callable[[], object]) -> float:
    """One step, timed."""
    began = time.perf_counter_ns()
    step()
    return (time.perf_counter_ns() - began) / 1000


class Bench:
    """One registry of one size."""

    def __init__(self, kind: str, count: int) -> None:
        self._make = KINDS[kind]
        self.sources = WakeSources(reactor, count + 10)
        fill(self.sources, self._make, count)
        self.fd = self._make()
        self.waker = os.eventfd(0, os.EFD_NONBLOCK)
        self.sources.addDescriptor("waker", self.waker, select.EPOLLIN)
        self.times: dict[str, list[float]] = {key: [] for key in KEYS}

    def round(self) -> None:
        """Each thing once."""
        sources, times = self.sources, self.times
        times["add"].append(
            microseconds(lambda: sources.addDescriptor("one", self.fd, select.EPOLLIN))
        )
        times["remove"].append(microseconds(lambda: sources.remove(self.fd)))
        times["look"].append(microseconds(lambda: sources.signalled()))
        heard: list[object] = []
        times["arm"].append(microseconds(lambda: sources.arm(heard.append)))
        times["wake"].append(microseconds(self._wake))
        assert heard
        os.eventfd_read(self.waker)
        # So that it is known to be quiet again.
        sources.signalled()

    def _wake(self) -> None:
        os.eventfd_write(self.waker, 1)
        reactor.iterate(0)

    def close(self) -> None:
        """Give everything back."""
        self.sources.close()
        os.close(self.fd)
        os.close(self.waker)


def main() -> None:
    """Print the table."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = min(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, hard - FEW - SPARE)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    print(f"{FEW} and {many} wake sources, {ROUNDS} rounds, medians; {system}")
    print()
    print("| kind | what | with few | with many | ratio |")
    print("| --- | --- | ---: | ---: | ---: |")
    for kind in KINDS:
        few, all_ = Bench(kind, FEW), Bench(kind, many)
        try:
            # Turn and turn about, so that the machine's moods meet both.
            for _ in range(ROUNDS):
                few.round()
                all_.round()
        finally:
            few.close()
            all_.close()
        for what in few.times:
            a, b = statistics.median(few.times[what]), statistics.median(all_.times[what])
            print(f"| {kind} | {what} | {a:.1f} µs | {b:.1f} µs | {b / a:.2f} |")


if __name__ == "__main__":
    main()
