"""
Usage: whether a container works, by what the kernel counts; a cheap look before any freeze.

Knows processes only as numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from chanproxy.adopt.threads import Gone, threadsOf, threadStat, timesRun
from chanproxy.interfaces import FreezerError
from chanproxy.words import named

MOST = 2048
"""Threads of which it is counted how often they run: some 20 milliseconds."""

BUSY_CPU = 0.05
"""Share of one processor, by default, above which a container is at work."""

BUSY_SWITCHES = 50.0
"""Times a second, by default, that a thread may run without being at work."""


class Usage:
    """How much of a processor one container uses, and how often its threads run."""

    def __init__(
        self,
        clock: IReactorTime,
        cpuTime: Callable[[], int],
        processes: Callable[[], Sequence[int]],
        busyCpu: float = BUSY_CPU,
        busySwitches: float = BUSY_SWITCHES,
    ) -> None:
        """
        @param cpuTime: microseconds that the container has used so far.
        @param processes: lists the container's.
        """
        self._clock = clock
        self._cpuTime = cpuTime
        self._processes = processes
        self._busyCpu = busyCpu
        self._busySwitches = busySwitches
        self._lastCpu: tuple[float, int] | None = None
        self._lastRuns: tuple[float, dict[tuple[int, int], int]] | None = None

    def working(self) -> str:
        """
        Whether it has used the processor since this was last called.

        @return: in words; empty when it has not, or nothing is known.
        """
        now, last = self._clock.seconds(), self._lastCpu
        try:
            used = self._cpuTime()
        except (FreezerError, OSError):
            self._lastCpu = None
            return ""
        self._lastCpu = (now, used)
        if last is None or now <= last[0]:
            return ""
        share = (used - last[1]) / 1e6 / (now - last[0])
        if share <= self._busyCpu:
            return ""
        return f"it uses {share:.0%} of a processor, and busy-cpu = {self._busyCpu:g}"

    def begin(self) -> None:
        """From now on, count how often each thread runs."""
        self._lastRuns = (self._clock.seconds(), self._runs())

    def lively(self) -> str:
        """
        Whether a thread has run often since L{begin}.

        @return: in words; empty when none has, or nothing is known.
        """
        if self._lastRuns is None:
            return ""
        since, before = self._lastRuns
        self._lastRuns = None
        passed = self._clock.seconds() - since
        if passed <= 0:
            return ""
        worst, most = (0, 0), 0
        for key, count in self._runs().items():
            ran = count - before.get(key, count)
            if ran > most:
                worst, most = key, ran
        if most / passed <= self._busySwitches:
            return ""
        try:
            name = named(threadStat(*worst).name)
        except (Gone, OSError):
            name = "a thread"
        return (
            f"{name}[{worst[1]}] runs {most / passed:.0f} times a second, "
            f"and busy-switches = {self._busySwitches:g}"
        )

    def _runs(self) -> dict[tuple[int, int], int]:
        """How often each thread has run so far."""
        runs: dict[tuple[int, int], int] = {}
        try:
            pids = self._processes()
        except (FreezerError, OSError):
            return runs
        for pid in pids:
            try:
                tids = threadsOf(pid)
            except (Gone, OSError):
                continue
            for tid in tids:
                if len(runs) >= MOST:
                    return runs
                # One that has ended meanwhile does not run any more.
                with contextlib.suppress(Gone, OSError):
                    _, runs[pid, tid] = timesRun(pid, tid)
        return runs
