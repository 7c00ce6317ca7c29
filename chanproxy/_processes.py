"""
What C{/proc} says of a process: whether it lives, and which signals wait for it.

Knows nothing of containers and of freezing.
"""

from __future__ import annotations

import errno
import re
import signal

from attrs import frozen

# One search, not a line at a time: it is done for every process of every sleeping container.
_STATUS = re.compile(
    rb"Name:\t([^\n]*).*?\nState:\t(.).*?\nThreads:\t(\d+)\n.*?"
    rb"\nSigPnd:\t(\w+)\nShdPnd:\t(\w+)\nSigBlk:\t(\w+)\nSigIgn:\t(\w+)\n",
    re.DOTALL,
)


def _read(pid: int, name: str) -> bytes:
    """A file of the process; empty, when there is no such process."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@frozen
class ProcessStatus:
    """
    A look at C{/proc/PID/status}.  Signals are bit masks, the first signal is bit 0.

    @ivar state: one letter, see proc(5).
    @ivar pending: signals for the process or its main thread that are not delivered yet.
    @ivar blocked: signals that the main thread blocks.
    """

    name: str
    state: str
    threads: int
    pending: int
    blocked: int
    ignored: int

    @classmethod
    def read(cls, pid: int) -> ProcessStatus | None:
        """
        Look at a process.

        @return: None, when there is none, or C{/proc} hides it from us.
        @raise OSError: it could not be read.
        """
        text = _read(pid, "status")
        if not text:
            return None
        found = _STATUS.match(text)
        if found is None:
            raise OSError(errno.ENOTSUP, f"/proc/{pid}/status does not tell of signals")
        name, state, threads, thread, shared, blocked, ignored = found.groups()
        return cls(
            name.decode(errors="replace"),
            state.decode(),
            int(threads),
            int(thread, 16) | int(shared, 16),
            int(blocked, 16),
            int(ignored, 16),
        )

    @property
    def ended(self) -> bool:
        """A zombie.  One whose main thread alone has ended is none, and shows the same letter."""
        return self.state in "ZX" and self.threads <= 1


def startTime(pid: int) -> int:
    """When a process started, in ticks since boot: tells it from a later one of that id; or 0."""
    # The name may contain anything, so the fields are counted from its closing parenthesis.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def maskOf(*signals: int) -> int:
    """Signals as a bit mask."""
    return sum(1 << (number - 1) for number in set(signals))


def namesOf(mask: int) -> list[str]:
    """The signals of a bit mask."""
    numbers = [number for number in range(1, mask.bit_length() + 1) if mask >> (number - 1) & 1]
    known = {int(each): each.name for each in signal.Signals}
    return [known.get(number, f"signal {number}") for number in numbers]
