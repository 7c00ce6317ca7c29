"""A container of real processes and the watch that looks at it while it is frozen."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from chanproxy.container import Bounds
from chanproxy.container.bpf.signals import SignalProgram, Unavailable
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.sleeping import TIMERS, SleepWatch
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup
from support.live import PATIENCE
from tests.shared.sides import turns, until


@functools.cache
def untold() -> str:
    """Why the kernel does not tell of signals here; empty if it does."""
    try:
        SignalProgram().close()
    except Unavailable as error:
        return str(error)
    return ""


needsBpf = [
    pytest.mark.bpf,
    pytest.mark.skipif(bool(untold()), reason=untold() or "usable"),
]

WAYS = [pytest.param(True, id="told", marks=needsBpf), pytest.param(False, id="looked_for")]
"""Whether the kernel tells of signals, or they are looked for; all the rest is the same."""


class Box:
    """A container of real processes, and its watch."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        interval: float = 0.01,
        most: int = 100,
        passedOver: int = TIMERS,
        told: bool = False,
    ) -> None:
        self.reactor = reactor
        self.cgroup = TemporaryCgroup()
        self.freezer = CgroupFreezer(self.cgroup.path, reactor)
        self.reasons: list[str] = []
        self.trace = SignalTrace(reactor) if told else None
        woken = self.reasons.append
        bounds = Bounds(signalInterval=interval, watchedProcesses=most)
        self.watch = SleepWatch("box", reactor, self.freezer, bounds, woken, self.trace, passedOver)

    def run(self, script: str) -> subprocess.Popen[bytes]:
        """A Python program in the container, which has said that it is ready."""
        argv = [sys.executable, "-c", script]
        process = self.cgroup.spawn(argv, subprocess.PIPE, subprocess.PIPE)
        assert hear(process) == "ready"
        return process

    async def sleep(self, before: Callable[[], object] = lambda: None) -> None:
        """Freeze and watch; something may happen in between."""
        self.reasons.clear()
        self.watch.beforeFreeze()
        await self.freezer.freeze()
        before()
        self.watch.start()
        assert self.reasons == []

    @property
    def told(self) -> bool:
        """Whether signals are told of, now that it sleeps."""
        return self.watch._told is not None and self.watch._told.running

    def close(self) -> None:
        """End all of it."""
        self.watch.stop()
        self.freezer.thaw()
        self.cgroup.close()
        if self.trace is not None:
            self.trace.close()

    async def woken(self) -> str:
        """Wait for the reason to wake, then do so."""
        await until(self.reactor, lambda: self.reasons)
        await self.freezer.thaw()
        # It has stopped: nothing more comes.
        (reason,) = self.reasons
        return reason

    async def looked(self) -> None:
        """Wait until the next look has been made, or until there is nothing to look at."""
        if self.told:
            # A signal is told of before whoever has sent it goes on.
            await turns(self.reactor, 3)
            return
        # Each look orders the next one: that looks were made, not that time went by.
        call = self.watch._call
        assert call is not None
        while call.active():
            await turns(self.reactor, 1)

    async def quiet(self) -> None:
        """Some looks go by without a reason to wake; then wake all the same."""
        for _ in range(3):
            await self.looked()
        assert self.reasons == []
        self.watch.stop()
        await self.freezer.thaw()


def hear(process: subprocess.Popen[bytes]) -> str:
    """The next line that a program says; nothing, if it says none."""
    assert process.stdout is not None
    end = threading.Timer(PATIENCE, process.kill)
    end.start()
    try:
        return process.stdout.readline().decode().strip()
    finally:
        end.cancel()
        end.join()


def makeBoxes(
    reactor: ChanproxyReactor, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Box]]:
    """For a fixture with L{WAYS}: makes containers; they end with the test."""
    told: bool = request.param
    made: list[Box] = []

    def make(interval: float = 0.01, most: int = 100, passedOver: int = TIMERS) -> Box:
        made.append(Box(reactor, interval, most, passedOver, told))
        return made[-1]

    yield make
    for box in made:
        box.close()


Boxes = Callable[..., Box]
