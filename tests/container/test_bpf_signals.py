"""The program on the kernel's tracepoint, run by real signals."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from chanproxy.container.bpf import btf, calls, signals
from chanproxy.container.bpf.signals import RING, SignalProgram, Unavailable
from support.processes import waitForState
from tests.container.boxes import hear, needsBpf
from tests.shared.leaks import openDescriptors

T = TypeVar("T", bound=Callable[..., object])

THREADS = """
import signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
print("ready", flush=True)
print(*[thread.native_id for thread in threads], flush=True)
signal.sigwait([signal.SIGTERM])
"""


@pytest.fixture
def program() -> Iterator[SignalProgram]:
    """The program."""
    made = SignalProgram()
    yield made
    made.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with three threads that blocks some signals, and ignores SIGHUP."""
    argv = [sys.executable, "-c", THREADS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as made:
        assert hear(made) == "ready"
        yield made
        made.kill()


def readable(program: SignalProgram, patience: float = 0.0) -> bool:
    """Whether a poll says that there is something to read."""
    poller = select.poll()
    poller.register(program.fileno(), select.POLLIN)
    return bool(poller.poll(patience * 1000))


def tgkill(pid: int, tid: int, number: int) -> None:
    """Send a signal to a thread."""
    assert ctypes.CDLL(None).tgkill(pid, tid, number) == 0


def needs(test: T) -> T:
    """L{needsBpf}, for one test."""
    for mark in needsBpf:
        test = mark(test)
    return test


class TestTold:
    """What is told of."""

    pytestmark = needsBpf

    def test_process(self, program: SignalProgram, process: subprocess.Popen[bytes]) -> None:
        """A signal for all of it, until it was acknowledged once."""
        pid = process.pid
        program.add(pid)
        assert not readable(program)
        process.send_signal(signal.SIGUSR1)
        assert readable(program, 5)
        assert program.read(9) == ([(pid, pid)], False)
        assert not readable(program)
        process.send_signal(signal.SIGUSR2)
        assert program.read(9) == ([], False)
        program.clear(pid)
        process.send_signal(signal.SIGRTMIN)
        assert readable(program, 5)
        assert program.read(9) == ([(pid, pid)], False)

    def test_threads(self, program: SignalProgram, process: subprocess.Popen[bytes]) -> None:
        """One thread by its id, then any: two records, however many signals."""
        pid = process.pid
        one, other = map(int, hear(process).split())
        program.add(pid)
        for _ in range(50):
            tgkill(pid, one, signal.SIGRTMIN)
        assert program.read(9) == ([(pid, one)], False)
        for tid in (other, one, pid, other):
            tgkill(pid, tid, signal.SIGRTMIN)
        assert program.read(9) == ([(pid, None)], False)
        program.clear(pid)
        tgkill(pid, other, signal.SIGRTMIN)
        assert program.read(9) == ([(pid, other)], False)

    def test_notQueued(self, program: SignalProgram, process: subprocess.Popen[bytes]) -> None:
        """Not what is ignored, or pending already; SIGCONT always is."""
        process.send_signal(signal.SIGUSR1)
        program.add(process.pid)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert program.read(9) == ([], False)
        process.send_signal(signal.SIGCONT)
        assert program.read(9) == ([(process.pid, process.pid)], False)

    def test_otherProcess(self, program: SignalProgram, process: subprocess.Popen[bytes]) -> None:
        """Not others, nor who was removed."""
        process.send_signal(signal.SIGUSR1)
        program.add(process.pid)
        program.remove(process.pid)
        program.remove(process.pid)
        # Not put back, either.
        program.clear(process.pid)
        process.send_signal(signal.SIGUSR2)
        assert program.read(9) == ([], False)

    def test_timers(self, program: SignalProgram) -> None:
        """An interval timer's, which nobody sends."""
        script = (
            "import signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
            "print('ready', flush=True)\n"
            "input()\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.01)\n"
            "signal.pause()\n"
        )
        argv = [sys.executable, "-c", script]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as process:
            assert hear(process) == "ready"
            program.add(process.pid)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert readable(program, 5)
            assert program.read(9) == ([(process.pid, process.pid)], False)
            process.kill()

    def test_stopped(self, program: SignalProgram, process: subprocess.Popen[bytes]) -> None:
        """That a stopped process goes on, though it ignores the signal, as all do by default."""
        process.send_signal(signal.SIGSTOP)
        waitForState(process.pid, "T")
        program.add(process.pid)
        process.send_signal(signal.SIGCONT)
        assert program.read(9) == ([(process.pid, process.pid)], False)

    def test_sideBySide(self, program: SignalProgram, process: subprocess.Popen[bytes]) -> None:
        """Each service has one of its own."""
        other = SignalProgram()
        program.add(process.pid)
        other.add(process.pid)
        process.send_signal(signal.SIGUSR1)
        told = ([(process.pid, process.pid)], False)
        assert program.read(9) == told
        assert other.read(9) == told
        other.close()
        other.close()
        program.clear(process.pid)
        process.send_signal(signal.SIGUSR2)
        assert program.read(9) == told

    def test_gone(self, process: subprocess.Popen[bytes]) -> None:
        """Closed, nothing of it is left in the kernel, nor has a child any of it."""
        before = openDescriptors()
        program = SignalProgram()
        mine = {fd: what for fd, what in openDescriptors().items() if fd not in before}
        assert sorted(mine.values()) == ["anon_inode:bpf-map"] * 4 + ["anon_inode:bpf_link"]
        script = "import os; print(*os.listdir('/proc/self/fd'))"
        argv = [sys.executable, "-c", script]
        child = subprocess.run(argv, stdout=subprocess.PIPE, close_fds=False, check=True)
        assert not mine.keys() & set(map(int, child.stdout.split()))
        assert "bpf-map" in Path("/proc/self/maps").read_text()
        program.close()
        assert openDescriptors() == before
        assert "bpf" not in Path("/proc/self/maps").read_text()


class TestBounds:
    """Full, of processes or of records."""

    pytestmark = needsBpf

    def test_processes(self) -> None:
        """There are only so many; what was given back can be had again."""
        program = SignalProgram(processes=8)
        for pid in range(8):
            program.add(pid)
        with pytest.raises(OSError, match="more than 8 processes"):
            program.add(8)
        program.clear(3)
        program.remove(0)
        program.add(8)
        program.close()

    def test_full(self) -> None:
        """A ring that was full says so once, and the next signal is told of again."""
        page = os.sysconf("SC_PAGESIZE")
        program = SignalProgram(ring=page)
        us = os.getpid()
        for _ in range(page // 16 + 10):
            program.add(us)
            os.kill(us, signal.SIGCONT)
        records, lost = program.read(10000)
        assert lost
        assert set(records) == {(us, us)}
        assert len(records) == page // 16 - 1
        os.kill(us, signal.SIGCONT)
        assert program.read(10000) == ([(us, us)], False)
        program.close()

    def test_most(self, program: SignalProgram) -> None:
        """What is too much for one turn is there in the next."""
        us = os.getpid()
        for _ in range(5):
            program.add(us)
            os.kill(us, signal.SIGCONT)
        assert program.read(3) == ([(us, us)] * 3, False)
        assert readable(program)
        assert program.read(3) == ([(us, us)] * 2, False)
        assert not readable(program)

    def test_room(self) -> None:
        """As it is made, the ring cannot be full; its size is one that the kernel takes."""
        assert RING & (RING - 1) == 0
        assert RING % 65536 == 0


class TestUnavailable:
    """Where it cannot be done, the reason is said, and nothing is left behind."""

    @pytest.fixture(autouse=True)
    def _nothingOpened(self) -> Iterator[None]:
        before = openDescriptors()
        yield
        assert openDescriptors() == before

    def test_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kind of machine whose call is not known."""
        monkeypatch.setattr(calls, "_CALL", None)
        with pytest.raises(Unavailable, match="this kind of machine"):
            SignalProgram()

    def test_namespace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another pid namespace: the kernel's ids would be others'."""
        monkeypatch.setattr(signals, "_FIRST_NAMESPACE", "pid:[1]")
        with pytest.raises(Unavailable, match="pid namespace of its own"):
            SignalProgram()

    def test_noBtf(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A kernel that does not say, or says something else."""
        monkeypatch.setattr(signals, "_FIRST_NAMESPACE", os.readlink("/proc/self/ns/pid"))
        monkeypatch.setattr(btf, "VMLINUX", str(tmp_path / "vmlinux"))
        with pytest.raises(Unavailable, match="No such file"):
            SignalProgram()
        (tmp_path / "vmlinux").write_bytes(b"\x9f\xeb")
        with pytest.raises(Unavailable, match="vmlinux: no BTF"):
            SignalProgram()

    @pytest.mark.parametrize("apart", [8, -4])
    def test_otherLayout(self, monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
        """A kernel that keeps the ids elsewhere is not tried."""
        monkeypatch.setattr(signals, "_FIRST_NAMESPACE", os.readlink("/proc/self/ns/pid"))
        monkeypatch.setattr(btf, "VMLINUX", "/dev/null")
        monkeypatch.setattr(btf, "memberOffsets", lambda *words: [64, 64 + apart])
        with pytest.raises(Unavailable, match="in another way"):
            SignalProgram()

    @pytest.mark.parametrize("call", ["createMap", "loadProgram", "attach", "put"])
    @needs
    def test_noRight(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        """At any step; it says what is missing."""

        def refused(*words: object) -> int:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(calls, call, refused)
        with pytest.raises(Unavailable, match="CAP_BPF and CAP_PERFMON") as caught:
            SignalProgram()
        assert not caught.value.forNow

    @needs
    def test_wrongOffset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is read there is no process: that is seen before it is relied upon."""
        monkeypatch.setattr(signals, "_offset", lambda: 0)
        with pytest.raises(Unavailable, match=r"was told of as \[\]"):
            SignalProgram()

    @needs
    def test_unprivileged(self) -> None:
        """A user without any right."""
        script = (
            "import os\n"
            "from chanproxy.container.bpf.signals import *\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "try: SignalProgram()\n"
            "except Unavailable as error: print(error)\n"
        )
        argv = [sys.executable, "-c", script]
        run = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60)
        assert b"the service needs CAP_BPF and CAP_PERFMON" in run.stdout
