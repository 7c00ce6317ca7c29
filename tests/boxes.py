"""A container of real processes and the watch that looks at it while it is frozen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.sleepwatch import TIMERS, SleepWatch
from tests.cgroups import TemporaryCgroup
from tests.sides import turns, until


class Box:
    """A container of real processes, and its watch."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        interval: float = 0.01,
        most: int = 100,
        passedOver: int = TIMERS,
    ) -> None:
        self.reactor = reactor
        self.cgroup = TemporaryCgroup()
        self.freezer = CgroupFreezer(self.cgroup.path, reactor)
        self.reasons: list[str] = []
        self.watch = SleepWatch(
            "box", reactor, self.freezer, interval, most, self.reasons.append, passedOver
        )

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

    async def woken(self) -> str:
        """Wait for the reason to wake, then do so."""
        await until(self.reactor, lambda: self.reasons)
        await self.freezer.thaw()
        # It has stopped: nothing more comes.
        (reason,) = self.reasons
        return reason

    async def looked(self) -> None:
        """Wait until the next look has been made."""
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
    """The next line that a program says."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def makeBoxes(reactor: ChanproxyReactor) -> Iterator[Callable[..., Box]]:
    """For a fixture: makes containers; they end with the test."""
    made: list[Box] = []

    def make(interval: float = 0.01, most: int = 100, passedOver: int = TIMERS) -> Box:
        made.append(Box(reactor, interval, most, passedOver))
        return made[-1]

    yield make
    for box in made:
        box.watch.stop()
        box.freezer.thaw()
        box.cgroup.close()


Boxes = Callable[..., Box]
