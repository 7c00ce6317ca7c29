"""A sleep in which signals are told of, with time and program under the test's control."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from chanproxy.container import Bounds
from chanproxy.container.cadence import EXTRA, SAVED, SHARE, SHORTEST
from chanproxy.container.comers import STIRS
from chanproxy.container.pendingsignals import BRIEF, TICKS, _Memory
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.sleeping import CHECKS, LISTS, SleepWatch
from chanproxy.container.told import AT_ONCE, FORGETS
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.processes import ProcessStatus, startTime
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from tests.container.boxes import hear
from tests.container.tracing import FakeProgram

INTERVAL = 30.0

BLOCKS = """
import signal, threading, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in sys.argv[1:]]
for thread in threads: thread.start()
print("ready", flush=True)
print(*[thread.native_id for thread in threads], flush=True)
signal.pause()
"""


class Sleeper:
    """A process that blocks all signals; it is not frozen, which nobody here needs."""

    def __init__(self, threads: int = 0) -> None:
        argv = [sys.executable, "-c", BLOCKS, *["x"] * threads]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert hear(self.process) == "ready"
        self.threads = list(map(int, hear(self.process).split()))
        self.pid = self.process.pid

    def send(self, number: int, tid: int | None = None) -> None:
        """Send it a signal, of which nothing is told."""
        assert ctypes.CDLL(None).tgkill(self.pid, tid or self.pid, number) == 0

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Told:
    """A watch of some processes, which is told of signals."""

    def __init__(self, most: int = 100) -> None:
        self.reactor = FakeReactor()
        self.program = FakeProgram(most)
        self.trace = SignalTrace(self.reactor, self.program.load)
        self.freezer = FakeFreezer()
        self.reasons: list[str] = []
        self.sleepers: list[Sleeper] = []
        self.watch = self.watching(INTERVAL)

    def watching(self, interval: float, most: int = 100) -> SleepWatch:
        """A watch with other bounds."""
        self.watch = SleepWatch(
            "box",
            self.reactor,
            self.freezer,
            Bounds(signalInterval=interval, watchedProcesses=most),
            self.reasons.append,
            self.trace,
            0,
        )
        return self.watch

    def sleeper(self, threads: int = 0) -> Sleeper:
        """One more process in the container."""
        self.sleepers.append(Sleeper(threads))
        self.freezer.processList = [each.pid for each in self.sleepers]
        return self.sleepers[-1]

    @property
    def timers(self) -> list[float]:
        """Seconds until each delayed call."""
        now = self.reactor.seconds()
        return sorted(round(call.getTime() - now, 6) for call in self.reactor.getDelayedCalls())

    def close(self) -> None:
        """End all of it."""
        self.watch.stop()
        self.trace.close()
        for each in self.sleepers:
            each.close()


@pytest.fixture
def told() -> Iterator[Told]:
    """One, without a process."""
    made = Told()
    yield made
    made.close()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes and threads that were looked at."""
    found: list[int] = []
    read, readThread = ProcessStatus.read, ProcessStatus.readThread

    def process(pid: int) -> ProcessStatus | None:
        found.append(pid)
        return read(pid)

    def thread(pid: int, tid: int) -> ProcessStatus | None:
        found.append(tid)
        return readThread(pid, tid)

    monkeypatch.setattr(ProcessStatus, "read", process)
    monkeypatch.setattr(ProcessStatus, "readThread", thread)
    return found


def _counted(function: Callable[[], object], called: list[str]) -> Callable[[], object]:
    def count() -> object:
        called.append(function.__name__)
        return function()

    return count


class TestQuiet:
    """While nothing happens."""

    def test_nothing(self, told: Told, looked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        """One timer runs; it is looked whether it has run, and at nothing again."""
        called: list[str] = []
        for name in ("cpuTime", "processes"):
            monkeypatch.setattr(told.freezer, name, _counted(getattr(told.freezer, name), called))
        sleepers = [told.sleeper(), told.sleeper()]
        told.watch.start()
        called.clear()
        pids = [each.pid for each in sleepers]
        assert told.program.processes == set(pids)
        assert looked == pids
        assert told.timers == [CHECKS]
        told.reactor.run(10 * INTERVAL)
        assert looked == pids
        assert len(told.timers) == 1
        assert 0 < called.count("cpuTime") <= 10 * INTERVAL / CHECKS
        assert called.count("processes") <= 10 / LISTS
        assert told.watch.notices == "told"
        told.watch.stop()
        assert told.timers == []
        assert told.program.processes == set()

    def test_untold(self, told: Told, looked: list[int]) -> None:
        """It has run, and nothing was told: all is looked at, and what is there is found."""
        sleeper = told.sleeper(threads=3)
        told.watch.start()
        told.reactor.advance(CHECKS)
        looked.clear()
        told.freezer.cpu += 1
        told.reactor.advance(CHECKS)
        assert looked == [sleeper.pid, *sleeper.threads]
        assert told.reasons == []
        told.reactor.advance(CHECKS)
        assert looked == [sleeper.pid, *sleeper.threads]
        sleeper.send(signal.SIGUSR1, sleeper.threads[1])
        told.freezer.cpu += 1
        told.reactor.advance(CHECKS)
        (reason,) = told.reasons
        assert reason.startswith(f"SIGUSR1 is pending for thread {sleeper.threads[1]} of ")
        assert told.timers == []

    def test_runsAllTheTime(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        """What ticks and is passed over costs no more than a look now and then."""
        used = [0.0]
        told.watch._cadence._processor = lambda: used[0]
        told.sleeper()
        told.watch.start()
        read = ProcessStatus.read

        def costly(pid: int) -> ProcessStatus | None:
            used[0] += 0.002
            return read(pid)

        monkeypatch.setattr(ProcessStatus, "read", costly)
        seconds = 200
        for _ in range(seconds):
            told.freezer.cpu += 1
            told.reactor.advance(CHECKS)
        assert 0 < used[0] <= 1.1 * (SAVED + EXTRA * seconds)

    def test_notKnown(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        """A freezer that does not know whether it has run: all is as told, and listed."""
        sleeper = told.sleeper()

        def unknown() -> int:
            raise FreezerError("it is not known")

        monkeypatch.setattr(told.freezer, "cpuTime", unknown)
        told.watch.beforeFreeze()
        told.watch.start()
        told.reactor.run(INTERVAL - 1)
        assert told.reasons == []
        comer = told.sleeper()
        told.reactor.run(CHECKS + 1)
        assert [text.partition("[")[2] for text in told.reasons] == [f"{comer.pid}] came in"]
        assert sleeper.process.poll() is None

    def test_beforeTheLook(self, told: Told, looked: list[int]) -> None:
        """It is told of a process before that is looked at: nothing comes in between."""
        sleeper = told.sleeper()
        add = told.program.add

        def adding(pid: int) -> None:
            assert looked == []
            add(pid)
            sleeper.send(signal.SIGUSR1)

        told.program.add = adding  # type: ignore[method-assign]  # that is the test
        told.watch.start()
        told.reactor.turn()
        told.reactor.advance(0)
        assert [text.partition(" is ")[0] for text in told.reasons] == ["SIGUSR1"]
        assert told.program.processes == set()

    def test_threads(self, told: Told, looked: list[int]) -> None:
        """Threads are looked at once in a sleep, for what came before it was told of any."""
        sleeper = told.sleeper(threads=2 * AT_ONCE)
        told.watch.start()
        assert told.timers == [SHORTEST, CHECKS]
        told.reactor.advance(SHORTEST)
        assert sorted(looked) == sorted([sleeper.pid, *sleeper.threads])
        assert told.timers == [round(CHECKS - SHORTEST, 6)]

    def test_manyThreads(self, told: Told, looked: list[int]) -> None:
        """As many at a time as there is time for; those that wait for signals are the first."""
        sleeper = told.sleeper(threads=2 * AT_ONCE)
        waits = sleeper.threads[-1]
        told.watch.start([(sleeper.pid, waits), (sleeper.pid, sleeper.pid)])
        told.watch._cadence._saved = 0.0
        told.watch._cadence._savedAt = told.reactor.seconds()
        told.reactor.advance(SHORTEST)
        assert looked == [sleeper.pid]
        assert told.timers[0] == SHORTEST
        told.watch._cadence._saved = 1.0
        told.reactor.advance(SHORTEST)
        assert looked[:2] == [sleeper.pid, waits]
        assert sorted(looked) == sorted([sleeper.pid, *sleeper.threads])

    def test_threadBefore(self, told: Told) -> None:
        """One that a signal waits for already wakes it."""
        sleeper = told.sleeper(threads=3)
        sleeper.send(signal.SIGUSR1, sleeper.threads[1])
        told.watch.start()
        told.reactor.advance(SHORTEST)
        (reason,) = told.reasons
        assert reason.startswith(f"SIGUSR1 is pending for thread {sleeper.threads[1]} of ")
        assert told.timers == []

    def test_forgets(self, told: Told, looked: list[int]) -> None:
        """A timer that has not ticked in two seconds is passed over no more: one look tells."""
        sleeper = told.sleeper()
        known = told.watch._signals._known
        ticks = {int(signal.SIGALRM): TICKS}
        known[sleeper.pid] = _Memory(sleeper.pid, startTime(sleeper.pid), ticks=ticks)
        told.watch.start()
        assert told.timers == [CHECKS, FORGETS]
        looked.clear()
        told.reactor.advance(2 * BRIEF - 0.01)
        assert len(told.watch.ticking) == 1
        assert looked == []
        told.reactor.advance(0.02)
        assert told.watch.ticking == []
        assert looked == [sleeper.pid]
        assert told.timers == [round(3 * CHECKS - FORGETS, 6)]
        sleeper.send(signal.SIGALRM)
        told.program.signal(sleeper.pid, sleeper.pid)
        told.reactor.turn()
        assert told.reasons

    def test_ticks(self, told: Told) -> None:
        """One that has ticked is passed over for the rest of the sleep."""
        sleeper = told.sleeper()
        known = told.watch._signals._known
        ticks = {int(signal.SIGALRM): TICKS}
        known[sleeper.pid] = _Memory(sleeper.pid, startTime(sleeper.pid), ticks=ticks)
        told.watch.start()
        sleeper.send(signal.SIGALRM)
        told.program.signal(sleeper.pid, sleeper.pid)
        told.reactor.run(10)
        assert told.reasons == []
        assert len(told.watch.ticking) == 1


class TestSignals:
    """What follows from what is told."""

    def test_atOnce(self, told: Told) -> None:
        """It wakes without any time going by."""
        sleeper = told.sleeper()
        told.watch.start()
        sleeper.send(signal.SIGTERM)
        told.program.signal(sleeper.pid, sleeper.pid)
        told.reactor.turn()
        assert [text.partition(" is ")[0] for text in told.reasons] == ["SIGTERM"]
        assert told.timers == []
        assert told.program.processes == set()

    def test_where(self, told: Told, looked: list[int]) -> None:
        """Only that thread is looked at, or all, or the process."""
        sleeper, other = told.sleeper(threads=3), told.sleeper(threads=1)
        told.watch.start()
        told.reactor.advance(SHORTEST)
        one, *_ = sleeper.threads
        for tid, expected in (
            (one, [one]),
            (sleeper.pid, [sleeper.pid]),
            (None, [sleeper.pid, *sleeper.threads]),
        ):
            looked.clear()
            told.program.signal(sleeper.pid, tid)
            told.reactor.turn()
            assert looked == expected
            told.reactor.advance(STIRS)
        assert told.program.cleared == [sleeper.pid] * 3
        assert told.reasons == []
        assert other.pid in told.program.processes

    def test_acknowledgedFirst(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        """What comes while it looks is told of again."""
        sleeper = told.sleeper()
        told.watch.start()
        read = ProcessStatus.read

        def look(pid: int) -> ProcessStatus | None:
            assert told.program.cleared == [pid]
            return read(pid)

        monkeypatch.setattr(ProcessStatus, "read", look)
        told.program.signal(sleeper.pid, sleeper.pid)
        told.reactor.turn()
        assert told.program.cleared == [sleeper.pid]

    def test_together(self, told: Told, looked: list[int]) -> None:
        """Those that follow each other closely are one look, and so are several processes."""
        sleepers = [told.sleeper(), told.sleeper()]
        told.watch.start()
        looked.clear()
        told.program.signal(sleepers[0].pid, sleepers[0].pid)
        told.reactor.turn()
        assert looked == [sleepers[0].pid]
        for _ in range(10):
            for each in sleepers:
                told.program.signal(each.pid, each.pid)
            told.reactor.turn()
        assert looked == [sleepers[0].pid]
        assert told.timers == [STIRS, CHECKS]
        told.reactor.advance(STIRS)
        assert sorted(looked[1:]) == sorted(each.pid for each in sleepers)
        assert told.timers == [round(CHECKS - STIRS, 6)]

    def test_flood(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        """Signals without end that are no reason take a thousandth of a processor, no more."""
        sleeper = told.sleeper()
        used = [0.0]
        told.watch._cadence._processor = lambda: used[0]
        read = ProcessStatus.read

        def costly(pid: int) -> ProcessStatus | None:
            used[0] += 0.0005
            return read(pid)

        told.watch.start()
        monkeypatch.setattr(ProcessStatus, "read", costly)
        seconds = 60
        for _ in range(seconds * 100):
            told.program.signal(sleeper.pid, sleeper.pid)
            told.reactor.turn(1)
            told.reactor.advance(0.01)
        # What was saved up, and then the share.
        assert SHARE / 2 <= used[0] / seconds <= 1.3 * SHARE
        # A signal that is one is seen after the usual time all the same.
        sleeper.send(signal.SIGTERM)
        told.reactor.advance(told.watch._cadence.interval())
        assert told.reasons

    def test_late(self, told: Told) -> None:
        """What is told of one that is watched no more is nothing; nor is a zombie's."""
        sleeper, other = told.sleeper(), told.sleeper()
        other.process.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        told.watch.start()
        told.program.signal(other.pid, other.pid)
        told.program.signal(sleeper.pid, sleeper.pid)
        told.reactor.turn()
        told.reactor.advance(STIRS)
        assert told.program.cleared == [other.pid, sleeper.pid]
        assert told.reasons == []


class TestElse:
    """When it is not told, and what it is not told of."""

    def test_noRoom(self, told: Told) -> None:
        """Then it is looked for, as without a trace."""
        told.close()
        told = Told(most=1)
        told.sleeper()
        sleeper = told.sleeper()
        told.watch.start()
        assert told.watch.notices == "looked_for"
        assert told.program.processes == set()
        (delay,) = told.timers
        assert delay <= SHORTEST
        sleeper.send(signal.SIGTERM)
        told.reactor.run(2 * SHORTEST)
        assert told.reasons
        told.close()

    def test_noPidfds(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who has died is told of by nobody, so all is looked for."""

        def scarce(pid: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(os, "pidfd_open", scarce)
        sleeper = told.sleeper()
        told.watch.start()
        assert told.watch.notices == "looked_for"
        assert told.program.processes == set()
        sleeper.process.kill()
        sleeper.process.wait()
        told.reactor.run(2 * SHORTEST)
        assert [text.partition("] ")[2] for text in told.reasons] == ["ended"]
        monkeypatch.undo()
        told.freezer.processList = [told.sleeper().pid]
        told.watch.beforeFreeze()
        told.watch.start()
        assert told.watch.notices == "told"

    def test_never(self, told: Told) -> None:
        """With interval 0 signals are nothing, and nothing is loaded."""
        told.sleeper().send(signal.SIGTERM)
        watch = told.watching(0)
        watch.start()
        told.reactor.run(100)
        assert (told.timers, told.reasons, told.program.loaded) == ([], [], 0)
        assert watch.notices == "never"

    def test_most(self, told: Told) -> None:
        """Only those that are watched; without one, only the list is read."""
        pids = [told.sleeper().pid for _ in range(2)]
        told.watching(INTERVAL, most=1).start()
        assert told.program.processes == set(pids[:1])
        told.watch.stop()
        told.watching(INTERVAL, most=0).start()
        assert told.program.processes == set()
        assert told.timers == [INTERVAL]

    @pytest.mark.parametrize("runs", [True, False])
    def test_comers(self, told: Told, runs: bool) -> None:
        """Who is born in the container has run there; the list is read now and then as well."""
        told.sleeper()
        told.watch.beforeFreeze()
        told.watch.start()
        told.reactor.run(INTERVAL)
        assert told.reasons == []
        comer = told.sleeper()
        told.freezer.cpu += runs
        told.reactor.run(CHECKS if runs else LISTS * INTERVAL)
        assert [text.partition("[")[2] for text in told.reasons] == [f"{comer.pid}] came in"]
        assert told.timers == []

    def test_ended(self, told: Told) -> None:
        """Who dies is told of by a pidfd."""
        sleeper = told.sleeper()
        told.watch.start()
        sleeper.process.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        told.reactor.turn()
        assert [text.partition("] ")[2] for text in told.reasons] == ["ended"]

    @pytest.mark.parametrize("signals", [(), (signal.SIGCONT,)])
    def test_stopped(self, told: Told, signals: Sequence[signal.Signals]) -> None:
        """SIGCONT for one that is stopped wakes, blocked or not; without it, it stays so."""
        sleeper = told.sleeper()
        sleeper.send(signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED)
        told.watch.start()
        for number in signals:
            sleeper.send(number)
        told.program.signal(sleeper.pid, sleeper.pid)
        told.reactor.turn()
        assert len(told.reasons) == len(signals)
