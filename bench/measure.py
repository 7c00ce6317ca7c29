"""
Processes to measure: start and end them, their time, their memory, and the load that drives them.

Knows nothing of what is measured.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from attrs import frozen

SOURCES = Path(__file__).parent / "sources"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
"""C{linux/prctl.h}"""
_ACCEPTING = 0x10000
"""C{__SO_ACCEPTCON} of C{linux/net.h}, in the flags of C{/proc/net/unix}."""
_TCP_LISTEN = "0A"
"""C{TCP_LISTEN} of C{net/tcp_states.h}, as C{/proc/net/tcp} writes it."""

_libc = ctypes.CDLL(None)


class Failed(Exception):
    """A process did not do what was asked of it; the text says what it said."""


def raiseDescriptorLimit(wanted: int) -> int:
    """
    As many descriptors as are allowed, and C{wanted} if we may.

    @return: how many a process can have now.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard
    if hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (OSError, ValueError):
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


@frozen
class Processors:
    """Where the proxies run, and where the load does."""

    proxies: frozenset[int]
    load: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether they are kept apart."""
        return self.proxies != self.load


def processors() -> Processors:
    """The first that we may use for the proxies, the next for the load, if there is one."""
    usable = sorted(os.sched_getaffinity(0))
    return Processors(frozenset(usable[:1]), frozenset(usable[:2][-1:]))


def adoptOrphans() -> None:
    """What a process that we end has forked becomes ours to wait for."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _endWithParent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One process and those that it forks, in a session of their own; it ends with us."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        cpus: frozenset[int],
        pass_fds: Sequence[int] = (),
        pipes: bool = False,
    ) -> None:
        """
        @param log: where its standard error goes, and its output unless it is piped.
        @param cpus: where it may run.
        """
        self.log = log
        ours = os.sched_getaffinity(0)
        with log.open("wb") as output:
            os.sched_setaffinity(0, cpus)
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=log.parent,
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else output,
                    stderr=output,
                    pass_fds=pass_fds,
                    start_new_session=True,
                    preexec_fn=_endWithParent,
                )
            finally:
                os.sched_setaffinity(0, ours)

    @property
    def pid(self) -> int:
        """Of the first process."""
        return self._process.pid

    @property
    def input(self) -> IO[bytes]:
        """If piped."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> IO[bytes]:
        """If piped."""
        assert self._process.stdout is not None
        return self._process.stdout

    def running(self) -> bool:
        """Whether the first process is."""
        return self._process.poll() is None

    def said(self) -> str:
        """What is in its log, or how it ended if nothing is."""
        text = self.log.read_text(errors="replace").strip()
        return text or f"it ended with status {self._process.poll()}"

    def kill(self) -> None:
        """End it and what it forked, and wait for all of them."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-self.pid, 0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def ending(child: Child) -> Iterator[Child]:
    """Killed at the end."""
    try:
        yield child
    finally:
        child.kill()


def family(pid: int) -> list[int]:
    """A process and what it has forked."""
    pids = [pid]
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == pid:
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # proc(5): the sixth field is the session; each child here leads its own.
        if int(stat.rpartition(")")[2].split()[3]) == pid:
            pids.append(int(entry))
    return pids


@frozen
class Spent:
    """What the kernel says of processes, added up."""

    cpu: float
    """Seconds on a processor."""
    waiting: float
    """Seconds in which they could have run, and others did."""

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu - other.cpu, self.waiting - other.waiting)


def spent(pids: Sequence[int]) -> Spent:
    """From C{schedstat} of each thread, in nanoseconds: finer than the ticks of C{stat}."""
    cpu = waiting = 0
    for pid in pids:
        tasks = f"/proc/{pid}/task"
        try:
            for task in os.listdir(tasks):
                fields = Path(tasks, task, "schedstat").read_text().split()
                cpu += int(fields[0])
                waiting += int(fields[1])
        except (FileNotFoundError, ProcessLookupError) as error:
            raise Failed(f"process {pid} has ended") from error
    return Spent(cpu / 1e9, waiting / 1e9)


def switches(pid: int) -> int:
    """How often it has gone to sleep: C{voluntary_ctxt_switches} of its first thread."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def resident(pids: Sequence[int]) -> int:
    """
    Bytes in memory, from C{smaps_rollup}.

    Of several processes, each page that they share counts in equal parts.
    """
    key = "Rss:" if len(pids) == 1 else "Pss:"
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(text.partition(f"\n{key}")[2].split()[0]) * 1024
    return total


def _isListening(address: str) -> bool:
    kind, _, place = address.partition(":")
    if kind == "tcp":
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _TCP_LISTEN and int(fields[1].rpartition(":")[2], 16) == int(place):
                return True
        return False
    if not os.path.exists(place):
        return False
    # haproxy binds a name with something added, and renames: the kernel shows the old one.
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split()
        if fields[-1].startswith(place) and int(fields[3], 16) & _ACCEPTING:
            return True
    return False


def awaitListening(child: Child, address: str, seconds: float = 20) -> None:
    """
    Until somebody listens there.

    @raise Failed: the child ended, or it took too long.
    """
    deadline = time.monotonic() + seconds
    while not _isListening(address):
        if not child.running():
            raise Failed(child.said())
        if time.monotonic() > deadline:
            raise Failed(f"nobody listens on {address} after {seconds:.0f} s: {child.said()}")
        time.sleep(0.02)


class Load:
    """C{loads.c}: both ends of the channels of one proxy."""

    def __init__(self, program: Path, inside: str, log: Path, cpus: frozenset[int]) -> None:
        """
        @param inside: where it listens for what the proxy connects to.
        """
        self.child = Child([str(program), inside], log, cpus, pipes=True)
        self._cpus = cpus
        self._answer()

    def ask(self, command: str, seconds: float = 60) -> dict[str, float]:
        """
        One command, one answer; see C{loads.c}.

        @raise Failed: it ended, or did not answer in time.
        """
        try:
            self.child.input.write(f"{command}\n".encode())
            self.child.input.flush()
        except BrokenPipeError as error:
            raise Failed(self.child.said()) from error
        return self._answer(seconds)

    def _answer(self, seconds: float = 10) -> dict[str, float]:
        ready, _, _ = select.select([self.child.output], [], [], seconds)
        if not ready:
            raise Failed(f"no answer in {seconds:.0f} s")
        line = self.child.output.readline()
        if not line:
            raise Failed(self.child.said())
        answer: dict[str, float] = json.loads(line)
        return answer

    @contextmanager
    def on(self, cpus: frozenset[int]) -> Iterator[None]:
        """Move it meanwhile."""
        os.sched_setaffinity(self.child.pid, cpus)
        try:
            yield
        finally:
            if self.child.running():
                os.sched_setaffinity(self.child.pid, self._cpus)


def compile_(directory: Path, program: str, *sources: str) -> Path:
    """
    Compile one of the C programs in C{bench/sources}.

    @return: the program.
    @raise Failed: there is no compiler, or it found errors.
    """
    result = directory / program
    command = ["cc", "-O2", "-Wall", "-pthread", "-o", str(result)]
    command += [str(SOURCES / source) for source in sources]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed("there is no C compiler, cc (Debian package gcc)") from error
    if done.returncode:
        raise Failed(done.stderr)
    return result
