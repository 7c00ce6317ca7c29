"""
The threads of a process, and where each of them is, from C{/proc} and its memory.

Knows the kernel's files; knows nothing of what a call waits for.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

from attrs import frozen

from chanproxy.adopt.reading import Reading

_PIDFD_THREAD = os.O_EXCL
"""C{linux/pidfd.h}, from Linux 6.9 on."""

_PF_IO_WORKER, _PF_USER_WORKER = 0x10, 0x4000
"""C{linux/sched.h}: threads of the kernel's own that live in a process (io_uring, vhost)."""


_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Gone(Exception):
    """The process or thread was killed."""


@frozen
class Position:
    """
    Where a thread is, as C{/proc/PID/task/TID/syscall} says.

    @ivar number: of the call that it is in; -1 outside of any.
    """

    number: int
    arguments: tuple[int, ...] = ()
    stack: int = 0
    instruction: int = 0


def threadsOf(pid: int) -> list[int]:
    """@raise Gone: there is no such process."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None


def position(pid: int, tid: int) -> Position | None:
    """
    Look where a thread is.

    @return: None when it runs, or cannot be asked for the moment.
    @raise Gone: there is no such thread.
    @raise PermissionError: we may not look into the process.
    """
    try:
        fd = os.open(f"/proc/{pid}/task/{tid}/syscall", os.O_RDONLY)
        try:
            words = os.pread(fd, 256, 0).split()
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    if len(words) == 9:
        values = [int(word, 16) for word in words[1:]]
        return Position(int(words[0]), tuple(values[:6]), values[6], values[7])
    if len(words) == 3:
        return Position(-1, (), int(words[1], 16), int(words[2], 16))
    return None


def timesRun(pid: int, tid: int) -> tuple[int, int]:
    """
    Nanoseconds that a thread has run, and how often it was given a processor.

    @raise Gone: there is no such thread.
    """
    # Three numbers, the second is nanoseconds waited; schedstat is there with CONFIG_SCHED_INFO.
    ran, _, times = readStart(f"/proc/{pid}/task/{tid}/schedstat").split()
    return int(ran), int(times)


def switchesOf(pid: int, tid: int) -> int:
    """
    How often a thread has let go of its processor by itself, to wait.

    @raise Gone: there is no such thread.
    """
    found = _SWITCHES.search(readStart(f"/proc/{pid}/task/{tid}/status"))
    return int(found[1]) if found else 0


def processorOf(pid: int, tid: int) -> int:
    """
    The processor on which a thread has last run.

    @raise Gone: there is no such thread.
    """
    return int(readStart(f"/proc/{pid}/task/{tid}/stat").rpartition(b")")[2].split()[36])


def isInFreezer(pid: int, tid: int) -> bool:
    """
    Whether a thread is stopped by a cgroup v2, or was until now and has not run since.

    @raise Gone: there is no such thread.
    """
    return readStart(f"/proc/{pid}/task/{tid}/wchan") in _FREEZER


_FREEZER = (b"do_freezer_trap", b"get_signal")
"""
C{kernel/signal.c}; which of the names shows depends on what the compiler inlined.  A thread that is
stopped by a signal may show the second one, too.  A kernel without names shows 0.
"""

_SWITCHES = re.compile(rb"^voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)


def readStart(path: str) -> bytes:
    """
    The first page of a file of a thread.

    @raise Gone: there is no such thread, or no such file.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.pread(fd, 4096, 0)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None


@frozen
class ThreadStat:
    """
    A look at C{/proc/PID/task/TID/stat}.

    @ivar started: when the thread began: nanoseconds (C{CLOCK_BOOTTIME}), by the kernel's ticks.
    """

    name: str
    state: str
    flags: int
    started: int = 0

    @property
    def asleepForGood(self) -> bool:
        """It has ended, or is one of the kernel's own helpers: nothing of the program's."""
        return self.state in "ZX" or bool(self.flags & (_PF_IO_WORKER | _PF_USER_WORKER))

    @property
    def isRingWorker(self) -> bool:
        """It works for io_urings: what it does, or takes on later, needs it to run."""
        # Whoever takes requests for a ring is seen by its ring.  One that has not run yet has no
        # name of its own.
        return bool(self.flags & _PF_IO_WORKER) and not self.name.startswith("iou-sqp")


def threadStat(pid: int, tid: int) -> ThreadStat:
    """@raise Gone: there is no such thread."""
    text = readStart(f"/proc/{pid}/task/{tid}/stat")
    # The name may contain anything, so the fields are counted from its closing parenthesis.
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    name = head.partition(b"(")[2].decode(errors="surrogateescape")
    return ThreadStat(name, fields[0].decode(), int(fields[6]), int(fields[19]) * _TICK)


def clockOf(pid: int) -> Callable[[int], int]:
    """
    The clocks as a process reads them; in a time namespace (time_namespaces(7)) some differ.

    @return: nanoseconds by the number of a clock; raises OSError for one that there is not.
    @raise Gone: there is no such process.
    """
    try:
        if os.readlink(f"/proc/{pid}/ns/time") == os.readlink("/proc/self/ns/time"):
            return time.clock_gettime_ns
        theirs, ours = _offsets(str(pid)), _offsets("self")
    except ProcessLookupError:
        raise Gone from None
    except FileNotFoundError:
        # A kernel without them, or the process is gone: whoever looks next finds that out.
        return time.clock_gettime_ns

    def clock(number: int) -> int:
        return time.clock_gettime_ns(number) + theirs.get(number, 0) - ours.get(number, 0)

    return clock


def _offsets(pid: str) -> dict[int, int]:
    """How far a process's clocks are ahead of the host's, in nanoseconds."""
    clocks = {b"monotonic": time.CLOCK_MONOTONIC, b"boottime": time.CLOCK_BOOTTIME}
    found = {}
    with open(f"/proc/{pid}/timens_offsets", "rb") as file:
        for line in file:
            name, seconds, nanoseconds = line.split()
            if name in clocks:
                found[clocks[name]] = int(seconds) * 1_000_000_000 + int(nanoseconds)
    return found


class Memory:
    """A process and its memory; the first is kept open until L{close}."""

    def __init__(self, pid: int, thread: int, reading: Reading | None = None) -> None:
        """
        @param thread: a living one; the first thread of a process may have ended before the others.
        @param reading: its container's.
        @raise Gone: there is no such process.
        @raise OSError: we are out of descriptors.
        """
        self.thread = thread
        self._reading = reading or Reading()
        self._code: dict[tuple[int, int], bytes] = {}
        try:
            self.pidfd = os.pidfd_open(thread, 0 if thread == pid else _PIDFD_THREAD)
        except ProcessLookupError:
            raise Gone from None

    def read(self, address: int, size: int) -> bytes:
        """
        So many bytes.

        @raise OSError: see L{Reading.read}.
        """
        return self._reading.read(self.thread, address, size)

    def code(self, address: int, size: int) -> bytes:
        """
        The same for instructions: threads that wait do so at the same few, which are read once.

        @raise OSError: see L{Reading.read}.
        """
        found = self._code.get((address, size))
        if found is None:
            found = self._code[address, size] = self.read(address, size)
        return found

    def keepPidfd(self) -> int:
        """The pidfd, now the caller's; L{close} leaves it alone."""
        pidfd, self.pidfd = self.pidfd, -1
        return pidfd

    def close(self) -> None:
        """Give back the descriptor."""
        if self.pidfd >= 0:
            os.close(self.pidfd)


class Glance:
    """A running process and its memory; opened when it is asked for."""

    def __init__(self, pid: int, reading: Reading | None = None) -> None:
        """@param reading: its container's."""
        self._pid = pid
        self._reading = reading or Reading()
        self._pidfd = -1

    @property
    def pidfd(self) -> int:
        """Stays its owner's.  @raise OSError: there is no such process."""
        if self._pidfd < 0:
            self._pidfd = os.pidfd_open(self._pid)
        return self._pidfd

    def read(self, address: int, size: int) -> bytes:
        """
        So many bytes.

        @raise OSError: see L{Reading.read}.
        """
        return self._reading.read(self._pid, address, size)

    def close(self) -> None:
        """Give back the descriptor.  Idempotent."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1


def childrenOf(pid: int) -> list[int]:
    """The children of a process; none, where the kernel does not list them."""
    found: list[int] = []
    for tid in threadsOf(pid):
        try:
            with open(f"/proc/{pid}/task/{tid}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


@frozen
class Kin:
    """
    What tells one child from others.

    @ivar pids: its ids in all pid namespaces that it is in, ours first.
    @ivar groups: its process groups, likewise.
    """

    pids: tuple[int, ...]
    groups: tuple[int, ...]
    ended: bool

    @property
    def level(self) -> int:
        """Where in these its own pid namespace is."""
        return len(self.pids) - 1


def kinOf(pid: int) -> Kin:
    """@raise Gone: there is no such process."""
    found: dict[bytes, tuple[int, ...]] = {}
    dead, threads = False, 1
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                key, _, values = line.partition(b":")
                if key in (b"NSpid", b"NSpgid"):
                    found[key] = tuple(map(int, values.split()))
                elif key == b"State":
                    dead = values.split()[0] in (b"Z", b"X")
                elif key == b"Threads":
                    threads = int(values)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    # The first thread may have ended before the others.
    return Kin(found.get(b"NSpid", (pid,)), found.get(b"NSpgid", ()), dead and threads <= 1)
