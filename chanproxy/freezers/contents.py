"""
Contents: what is in a cgroup v2 and all below it: processes, threads that are not frozen, time.

Knows the files of cgroups; knows nothing of freezing.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Generator

from chanproxy.freezers.files import (
    GONE,
    Breadth,
    TooMuchInside,
    cgroupsFrom,
    explained,
    processesIn,
    readLines,
    readOnce,
)
from chanproxy.interfaces import (
    FreezerError,
)
from chanproxy.words import named

# Where the kernel parks tasks that it counts as frozen (kernel/signal.c; which of the names shows
# depends on what the compiler inlined).  The last two: waiting for a child of vfork(2) counts, too.
_STOPPED_IN = frozenset(
    [
        "get_signal",
        "do_freezer_trap",
        "do_signal_stop",
        "do_jobctl_trap",
        "ptrace_stop",
        "kernel_clone",
        "wait_for_vfork_done",
    ]
)


_TASKS = 1024
"""Threads that are looked at to name those that are not frozen: some 20 milliseconds."""


class Contents:
    """Which processes and threads are in one cgroup."""

    def __init__(self, spec: str, find: Callable[[], str], breadth: Breadth) -> None:
        """
        @param spec: for error texts.
        @param find: where it is; raises L{FreezerError}.
        @param breadth: how much is looked through to find its processes.
        """
        self._spec = spec
        self._find = find
        self._breadth = breadth
        self._hidden: int | None = None

    def unfrozen(self) -> list[str]:
        """Threads that are not stopped, in words; best effort."""
        tasks: list[str] = []
        most, looked = self._breadth, 0
        for directory in cgroupsFrom(self._find(), skip=_isFrozen, most=most):
            for thread in readLines(os.path.join(directory, "cgroup.threads")):
                looked += 1
                if looked > _TASKS:
                    return tasks
                wchan = "".join(readLines(f"/proc/{thread}/wchan"))
                # A thread of another pid namespace is listed as 0.
                if wchan not in _STOPPED_IN and thread != "0":
                    name = named(readOnce(f"/proc/{thread}/comm").removesuffix(b"\n")) or "?"
                    where = "running" if wchan in ("", "0") else f"in {wchan}"
                    tasks.append(f"{name}[{thread}] {where}")
        return tasks

    def processes(self) -> list[int]:
        """
        See L{IFreezer.processes}.

        @raise FreezerError: the cgroup is there, but cannot be read; or has too much inside.
        """
        return _atOnce(self.listing())

    def listing(self) -> Generator[None, None, list[int]]:
        """See L{ISlicedFreezer.listing}; raises as L{processes} does."""
        self._hidden = None
        found: dict[int, None] = {}
        # A process of another pid namespace is listed as 0.
        hidden = 0
        most = self._breadth
        for directory in cgroupsFrom(self._find(), self._unlisted, most=most):
            try:
                pids = processesIn(directory, most.processes - len(found) - hidden)
            except OSError as error:
                self._unlisted(error)
                continue
            yield None
            hidden += pids.count(0)
            found.update(dict.fromkeys(pid for pid in pids if pid))
            if len(found) + hidden > most.processes:
                raise TooMuchInside(
                    f"more than {most.processes} processes are in it; raise limits.processes"
                )
        self._hidden = hidden
        return [*found]

    def hiddenProcesses(self) -> int:
        """See L{IFreezer.hiddenProcesses}."""
        if self._hidden is None:
            self.processes()
        return self._hidden or 0

    def cpuTime(self) -> int:
        """See L{IFreezer.cpuTime}."""
        # Kept for every cgroup v2, whether its cpu controller is on or not.
        found = re.search(
            rb"^usage_usec (\d+)", readOnce(os.path.join(self._find(), "cpu.stat")), re.MULTILINE
        )
        if found is not None:
            return int(found[1])
        raise FreezerError(f"{self._spec}: cpu.stat does not tell of usage")

    def _unlisted(self, error: OSError) -> None:
        # A threaded cgroup does not say; the domain above it has listed its processes.
        if error.errno not in (*GONE, errno.EOPNOTSUPP):
            raise explained(self._spec, str(error.filename), error)


def _atOnce(steps: Generator[None, None, list[int]]) -> list[int]:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: list[int] = stop.value
            return found


def _isFrozen(directory: str) -> bool:
    return "frozen 1" in readLines(os.path.join(directory, "cgroup.events"))
