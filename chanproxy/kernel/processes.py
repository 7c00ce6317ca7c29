"""
What C{/proc} says of a process: whether it lives, and which signals wait for it.

Knows nothing of containers and of freezing.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from typing import NamedTuple

from chanproxy.words import named

# One search, not a line at a time: it is done for every process of every sleeping container.
_STATUS = re.compile(
    rb"Name:\t([^\n]*).*?\nState:\t(.).*?\nThreads:\t(\d+)\n.*?"
    rb"\nSigPnd:\t(\w+)\nShdPnd:\t(\w+)\nSigBlk:\t(\w+)\nSigIgn:\t(\w+)\n",
    re.DOTALL,
)


_TIMER = re.compile(rb"^signal: (\d+)/.*\nnotify: (?:signal|thread)/", re.MULTILINE)

_RUNTIME = re.compile(r"(\w+):\\x5b\d:\w+\\x5d")

_NONE = b"0" * 16

_ESCAPED = re.compile(rb"\\([n\\])")
"""Of a name the kernel escapes these two, C{proc_task_name} in C{fs/proc/array.c}."""


def _unescaped(found: re.Match[bytes]) -> bytes:
    return b"\n" if found[1] == b"n" else found[1]


def contents(pid: int | str, name: str) -> bytes:
    """A file of the process; empty, when there is no such process."""
    # Half of what a file object takes.  To keep the descriptor open would save a third of the
    # rest, and each process and thread would need one.
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        text = found = os.read(fd, 65536)
        while found:
            found = os.read(fd, 65536)
            text += found
    except ProcessLookupError:
        return b""
    finally:
        os.close(fd)
    return text


class ProcessStatus(NamedTuple):
    """
    A look at C{/proc/PID/status}.  Signals are bit masks, the first signal is bit 0.

    @ivar name: quoted, see L{named}.
    @ivar state: one letter, see proc(5).
    @ivar threads: how many the process has.
    @ivar pending: signals for the process or its main thread that are not delivered yet; of
        another thread, those for it alone.
    @ivar blocked: signals that the thread blocks.
    @ivar ignored: signals that the process ignores.
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
        text = contents(pid, "status")
        return cls._parse(text, pid, shared=True) if text else None

    @classmethod
    def readThread(cls, pid: int, tid: int) -> ProcessStatus | None:
        """
        Look at a thread for which signals wait.

        @return: None, when there is none, or no signal waits for it alone.
        @raise OSError: it could not be read.
        """
        text = contents(pid, f"task/{tid}/status")
        # Nearly always nothing waits; to find that out takes a tenth of the rest.
        _, _, pending = text.partition(b"\nSigPnd:\t")
        if not text or pending.startswith(_NONE):
            return None
        return cls._parse(text, pid, shared=False)

    @classmethod
    def _parse(cls, text: bytes, pid: int, shared: bool) -> ProcessStatus:
        found = _STATUS.match(text)
        if found is None:
            raise OSError(errno.ENOTSUP, f"/proc/{pid}/status does not tell of signals")
        name, state, threads, thread, process, blocked, ignored = found.groups()
        return cls(
            named(_ESCAPED.sub(_unescaped, name)),
            state.decode(),
            int(threads),
            int(thread, 16) | (int(process, 16) if shared else 0),
            int(blocked, 16),
            int(ignored, 16),
        )

    @property
    def ended(self) -> bool:
        """A zombie.  One whose main thread alone has ended is none, and shows the same letter."""
        return self.state in "ZX" and self.threads <= 1


def otherThreads(pid: int) -> list[int]:
    """
    The ids of a process's threads, without its main thread; none, when it is gone.

    @raise OSError: they cannot be listed.
    """
    try:
        return [int(tid) for tid in os.listdir(f"/proc/{pid}/task") if tid != str(pid)]
    except (FileNotFoundError, ProcessLookupError):
        return []


def timerSignals(pid: int) -> int:
    """
    The signals of a process's POSIX timers, C{timer_create(2)}, as a bit mask.

    Those of C{setitimer(2)} and C{alarm(2)} are not listed; nothing is, where the kernel does not.

    @raise OSError: they cannot be read.
    """
    return maskOf(*map(int, _TIMER.findall(contents(pid, "timers"))))


def startTime(pid: int) -> int:
    """
    When a process started, in ticks since boot: tells it from a later one of that id; or 0.

    @param pid: a thread's id does as well.
    @raise OSError: it could not be read.
    """
    return _stat(pid, 19)


def parentOf(pid: int) -> int:
    """
    The process whose child a process is; 0, if that is not seen from here.

    @raise OSError: it could not be read.
    """
    return _stat(pid, 1)


def commandOf(pid: int) -> str:
    """A process's own name, quoted; empty, when it has ended or is hidden."""
    try:
        return named(contents(pid, "comm").removesuffix(b"\n"))
    except OSError:
        return ""


def runtimeIn(pid: int, name: str) -> str:
    """
    The runtime that a process still is, before it becomes a container's program, or one that was
    asked for in it: whoever has begun it waits for that.  Empty: it is none, or no more.

    runc names it C{runc:[2:INIT]}, C{libcontainer/nsenter/nsexec.c}, and so do those that take
    after it; crun only itself, as any other process of it, but it runs a copy without a path then.

    @param name: its own, quoted, see L{named}.
    """
    found = _RUNTIME.fullmatch(name)
    if found is not None:
        return found[1]
    if (name in ("runc", "exe") or name.isdigit()) and contents(pid, "cmdline") == b"runc\0init\0":
        # It has not named itself yet: so it is called by what was run, a link or a descriptor.
        return "runc"
    try:
        copied = name == "crun" and os.readlink(f"/proc/{pid}/exe").rpartition("/")[2] != name
    except OSError:
        return ""
    return name if copied else ""


def isRunnable(pid: int) -> bool:
    """Whether a process's main thread would run, if there were a processor for it."""
    try:
        return contents(pid, "stat").rpartition(b") ")[2].startswith(b"R")
    except OSError:
        return False


def waitsIn(pid: int) -> str:
    """Where in the kernel a process's main thread waits; empty: it does not, or it has ended."""
    try:
        return contents(pid, "wchan").decode(errors="replace").removeprefix("0")
    except OSError:
        return ""


def _stat(pid: int, index: int) -> int:
    # The name may contain anything, so the fields are counted from its closing parenthesis.
    fields = contents(pid, "stat").rpartition(b")")[2].split()
    return int(fields[index]) if len(fields) > index else 0


def maskOf(*signals: int) -> int:
    """Signals as a bit mask."""
    return sum(1 << (number - 1) for number in set(signals))


def namesOf(mask: int) -> list[str]:
    """The signals of a bit mask."""
    numbers = [number for number in range(1, mask.bit_length() + 1) if mask >> (number - 1) & 1]
    known = {int(each): each.name for each in signal.Signals}
    return [known.get(number, f"signal {number}") for number in numbers]
