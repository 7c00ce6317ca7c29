"""
Visitors: those in a container for whom somebody outside waits, and not by a message.

Who runs a program in a container, as C{docker exec} does, waits for its end and knows nothing of
us; a runtime waits for what it starts.  Knows the freezer as a list of processes.
"""

from __future__ import annotations

import contextlib

from chanproxy.container.outcomes import NotIdle
from chanproxy.interfaces import FreezerError, IFreezer
from chanproxy.kernel.namespaces import cgroupOf, sentBy
from chanproxy.kernel.processes import commandOf, runtimeIn, startTime

STARTS = 0.25
"""Seconds until it is looked again whether a runtime is done; for a container it takes 0.2."""

STAYS = 1.0
"""Seconds until it is looked again whether who was sent in has ended."""

YOUNGEST = 16
"""Processes of which it is seen before a freeze whether they start only now; afterwards, of all."""


class Visitors:
    """Those of one container."""

    def __init__(self, freezer: IFreezer, holds: bool) -> None:
        """
        @param holds: whether who was sent in keeps it awake while it runs its own program.  Of one
            that wakes by its own sockets it is seen what each of them waits for.
        """
        self._freezer = freezer
        self._holds = holds
        self._own: set[int] = set()

    def refusal(self) -> NotIdle | None:
        """What a freeze is refused with because of one of them; None: there is none."""
        # What cannot be seen will be said where it matters.
        with contextlib.suppress(FreezerError, OSError):
            # Ids are given away in order, but for those who have had all of them.
            pids = sorted(self._freezer.processes())
            for pid in pids[-YOUNGEST:]:
                runtime = runtimeIn(pid, commandOf(pid))
                if runtime:
                    return NotIdle(f"busy: {runtime}[{pid}] is about to start a program", STARTS)
            sent = self._sentAmong(pids) if self._holds else ""
            return NotIdle(f"busy: {sent}", STAYS) if sent else None
        return None

    def sent(self) -> str:
        """Who was sent in, and runs its own program, in words; empty: nobody."""
        with contextlib.suppress(FreezerError, OSError):
            return self._sentAmong(list(self._freezer.processes())) if self._holds else ""
        return ""

    def _sentAmong(self, pids: list[int]) -> str:
        # Nobody becomes one later: its namespace is what its parent had chosen for it.
        self._own.intersection_update(pids)
        for pid in pids:
            sender = 0 if pid in self._own else sentBy(pid)
            if sender is None:
                continue
            if sender and sender not in pids and not _first(pid, pids):
                by = f"{commandOf(sender)}[{sender}]" if sender > 0 else "somebody outside"
                return f"{commandOf(pid)}[{pid}] was sent into it by {by}"
            self._own.add(pid)
        return ""


def _first(pid: int, pids: list[int]) -> bool:
    """
    Whether a process is the oldest of its own cgroup: it is a container's program then.

    Containers that share a PID namespace, as those of a pod, are all sent into it but one.
    """
    # Of two in one tick of the clock the first has the smaller id, but for who has had all of them.
    cgroup, age = cgroupOf(pid), (startTime(pid), pid)
    others = [each for each in pids if each != pid and cgroupOf(each) == cgroup]
    return all((startTime(each), each) > age for each in others)
