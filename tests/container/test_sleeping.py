"""What wakes a frozen container from within: processes that die, and signals that wait."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys

import pytest
from twisted.logger import capturedLogs, formatEvent

from chanproxy.container import Bounds
from chanproxy.container.sleeping import SleepWatch
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.processes import ProcessStatus, maskOf, namesOf, startTime
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from support.cgroups import unusable
from support.processes import processState, waitForState
from tests.container.boxes import WAYS, Boxes, hear, makeBoxes
from tests.shared.sides import asynchronous, turns, until

needsCgroup = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

TAKES = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
for line in sys.stdin:
    signal.sigwait([signal.SIGUSR1])
    print("taken", flush=True)
"""

HANDLES = """
import signal
def handle(number, frame): print(signal.Signals(number).name, flush=True)
for number in signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGRTMIN:
    signal.signal(number, handle)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print("ready", flush=True)
# Python's handlers run between two of its steps: one that comes right before a call waits for the
# end of that.
while True: signal.sigtimedwait([], 0.1)
"""

BLOCKS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print("ready", flush=True)
while input() == "read":
    print(signal.Signals(signal.sigwait([signal.SIGTERM])).name, flush=True)
"""


boxes = pytest.fixture(params=WAYS)(makeBoxes)


class TestComers:
    """Processes that are moved into a container that sleeps."""

    pytestmark = needsCgroup

    @asynchronous
    async def test_movedIn(self, boxes: Boxes) -> None:
        """It is frozen there, and whoever moved it waits: the container wakes."""
        box = boxes()
        box.run(HANDLES)
        await box.sleep()
        with sleeper() as comer:
            try:
                box.cgroup.write("cgroup.procs", str(comer.pid))
                assert await box.woken() == f"sleep[{comer.pid}] came in"
            finally:
                comer.kill()

    @asynchronous
    async def test_atOnce(self, boxes: Boxes) -> None:
        """The kernel tells of it: nobody waits for a look, and it is the same without looks."""
        for interval in (1000, 0):
            box = boxes(interval)
            box.run(HANDLES)
            await box.sleep()
            with sleeper() as comer:
                try:
                    box.cgroup.write("cgroup.procs", str(comer.pid))
                    assert await box.woken() == f"sleep[{comer.pid}] came in"
                finally:
                    comer.kill()

    @asynchronous
    async def test_whileFreezing(self, boxes: Boxes) -> None:
        """One that came in between the last look and the first one of the sleep waits as well."""
        box = boxes(0)
        box.run(HANDLES)
        with sleeper() as comer:
            try:
                await box.sleep(lambda: box.cgroup.write("cgroup.procs", str(comer.pid)))
                assert await box.woken() == f"sleep[{comer.pid}] came in"
                # It belongs to the container now.
                await box.sleep()
                await turns(box.reactor)
                assert box.reasons == []
            finally:
                comer.kill()

    @asynchronous
    async def test_hidden(self, boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of another pid namespace waits all the same."""
        box = boxes(0)
        box.run(HANDLES)
        hidden = [1]
        pids = box.freezer.processes()
        monkeypatch.setattr(box.freezer, "processes", lambda: pids)
        monkeypatch.setattr(box.freezer, "hiddenProcesses", lambda: hidden[0])
        await box.sleep()
        with sleeper() as comer:
            try:
                hidden[0] = 2
                box.cgroup.write("cgroup.procs", str(comer.pid))
                assert await box.woken() == "a process came in that is not seen from here"
            finally:
                comer.kill()

    @asynchronous
    async def test_born(self, boxes: Boxes) -> None:
        """A child of its own, born before the freeze was complete, is nobody from outside."""
        box = boxes(0)
        process = box.run(
            "import os\n"
            "print('ready', flush=True)\n"
            "input()\n"
            "print(os.fork(), flush=True)\n"
            "input()\n"
        )
        assert process.stdin is not None
        box.watch.beforeFreeze()
        before = box.freezer.processes()
        process.stdin.write(b"\n")
        process.stdin.flush()
        await until(box.reactor, lambda: len(box.freezer.processes()) == 2)
        await box.freezer.freeze()
        box.watch.start()
        await turns(box.reactor)
        assert before == [process.pid]
        assert box.reasons == []

    @asynchronous
    async def test_nobody(self, boxes: Boxes) -> None:
        """What stirs and is nobody is no reason to wake, and many stirs are one list."""
        box = boxes(0)
        box.run(HANDLES)
        await box.sleep()
        comers = box.watch._comers
        listed = comers.listedAt
        for _ in range(3):
            comers._stirs()
            assert comers.listedAt == listed
        await until(box.reactor, lambda: comers.listedAt > listed)
        assert comers._call is None
        assert box.reasons == []

    @asynchronous
    async def test_forgotten(self, boxes: Boxes) -> None:
        """A blocked signal that was taken while it ran is new when it comes again."""
        box = boxes()
        process = box.run(TAKES)
        for _ in range(3):
            await box.sleep(lambda: process.send_signal(signal.SIGUSR1))
            assert (await box.woken()).startswith("SIGUSR1 is pending for ")
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert hear(process) == "taken"


class TestSignals:
    """Signals that a frozen process cannot answer."""

    pytestmark = needsCgroup

    @asynchronous
    async def test_handled(self, boxes: Boxes) -> None:
        """A signal with a handler wakes, whenever it comes; it is handled then."""
        box = boxes()
        process = box.run(HANDLES)
        for number in (signal.SIGTERM, signal.SIGHUP):
            for _ in range(2):
                await box.sleep()
                process.send_signal(number)
                name = os.path.basename(sys.executable)[:15]
                assert await box.woken() == f"{number.name} is pending for {name}[{process.pid}]"
                assert hear(process) == number.name

    @asynchronous
    async def test_whileFreezing(self, boxes: Boxes) -> None:
        """One that came before the first look wakes, every time."""
        box = boxes()
        process = box.run(HANDLES)
        for _ in range(3):
            await box.sleep(lambda: process.send_signal(signal.SIGTERM))
            assert (await box.woken()).startswith("SIGTERM is pending for ")
            assert hear(process) == "SIGTERM"

    @asynchronous
    async def test_several(self, boxes: Boxes) -> None:
        """All are named, also one that has no name."""
        box = boxes()
        process = box.run(HANDLES)

        def send() -> None:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN):
                process.send_signal(number)

        await box.sleep(send)
        assert (await box.woken()).startswith("SIGHUP, SIGTERM, SIGRTMIN are pending for ")

    @asynchronous
    async def test_notCounted(self, boxes: Boxes) -> None:
        """Ignored signals do not wake, nor does a timer of the container's own."""
        box = boxes()
        process = box.run(HANDLES)
        blocks = box.run(BLOCKS)
        await box.sleep()
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGALRM)
        # The kernel keeps an ignored signal, if it is blocked as well.
        blocks.send_signal(signal.SIGUSR1)
        status = ProcessStatus.read(blocks.pid)
        assert status is not None
        assert status.pending == status.ignored & status.blocked == maskOf(signal.SIGUSR1)
        await box.quiet()
        assert hear(process) == "SIGALRM"

    @asynchronous
    async def test_blocked(self, boxes: Boxes) -> None:
        """A blocked signal wakes once, until it was read."""
        box = boxes()
        process = box.run(BLOCKS)
        assert process.stdin is not None
        for _ in range(2):
            await box.sleep()
            process.send_signal(signal.SIGTERM)
            assert (await box.woken()).startswith("SIGTERM is pending for ")
            for _ in range(2):
                await box.sleep()
                await box.quiet()
            process.stdin.write(b"read\n")
            process.stdin.flush()
            assert hear(process) == "SIGTERM"
            await box.sleep()
            await box.quiet()

    @asynchronous
    async def test_blockedByTwo(self, boxes: Boxes) -> None:
        """Two processes with a signal each are one reason to wake."""
        box = boxes()
        processes = [box.run(BLOCKS) for _ in range(2)]

        def send() -> None:
            for process in processes:
                process.send_signal(signal.SIGTERM)

        await box.sleep(send)
        await box.woken()
        await box.sleep()
        await box.quiet()

    @asynchronous
    async def test_stoppedProcess(self, boxes: Boxes) -> None:
        """A process that is stopped does not take its signals: they wake once, too."""
        box = boxes()
        process = box.run(HANDLES)
        process.send_signal(signal.SIGSTOP)
        waitForState(process.pid, "T")
        await box.sleep()
        process.send_signal(signal.SIGTERM)
        assert (await box.woken()).startswith("SIGTERM is pending for ")
        await box.sleep()
        await box.quiet()

    @asynchronous
    async def test_otherProcess(self, boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is remembered of a process is not that of a later one of the same id."""
        box = boxes()
        process = box.run(BLOCKS)
        process.send_signal(signal.SIGTERM)
        await box.sleep()
        reason = await box.woken()
        assert reason.startswith("SIGTERM is pending for ")
        await box.sleep()
        await box.quiet()
        # The very same signals, of one that started at another time.
        monkeypatch.setattr("chanproxy.container.pendingsignals.startTime", lambda pid: 1)
        await box.sleep()
        assert await box.woken() == reason
        await box.sleep()
        await box.quiet()

    @asynchronous
    async def test_notLooking(self, boxes: Boxes) -> None:
        """With interval 0 signals are nothing; deaths are, and who comes in."""
        box = boxes(interval=0)
        process = box.run(BLOCKS)
        process.send_signal(signal.SIGTERM)
        await box.sleep()
        await turns(box.reactor)
        assert box.reasons == []
        process.kill()
        assert (await box.woken()).endswith(f"[{process.pid}] ended")


class TestDeaths:
    """Processes that end."""

    pytestmark = needsCgroup

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    @asynchronous
    async def test_killed(self, boxes: Boxes, number: signal.Signals) -> None:
        """One of two: SIGKILL, or what kills because no handler is there."""
        box = boxes(interval=1000)
        first, second = (box.cgroup.spawn(["sleep", "1000"]) for _ in range(2))
        await box.sleep()
        reasons = [f"sleep[{first.pid}] ended"]
        if number != signal.SIGKILL:
            # It ends, frozen as it is; but the signal may be seen a moment before that.
            reasons.append(f"{number.name} is pending for sleep[{first.pid}]")
        first.send_signal(number)
        assert await box.woken() in reasons
        # The zombie is no reason to wake again.
        waitForState(first.pid, "Z")
        await box.sleep()
        await turns(box.reactor)
        assert box.reasons == []
        second.kill()
        assert await box.woken() == f"sleep[{second.pid}] ended"

    @asynchronous
    async def test_between(self, boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is gone between being listed and being watched wakes."""
        box = boxes()
        box.cgroup.spawn(["sleep", "1000"])
        gone = subprocess.Popen(["true"])
        gone.wait()
        monkeypatch.setattr(box.freezer, "processes", lambda: [gone.pid])
        await box.sleep()
        assert await box.woken() == "a process ended"

    @asynchronous
    async def test_mainThreadEnded(self, boxes: Boxes) -> None:
        """A process whose main thread has ended shows as a zombie, and lives."""
        box = boxes(interval=0.01)
        process = box.run(
            "import ctypes, threading, time\n"
            "threading.Thread(target=time.sleep, args=[1000]).start()\n"
            "print('ready', flush=True)\n"
            "ctypes.CDLL(None).syscall(60 if ctypes.sizeof(ctypes.c_long) == 8 else 1, 0)\n"
        )
        waitForState(process.pid, "Z")
        await box.sleep()
        await box.quiet()
        await box.sleep()
        process.kill()
        assert (await box.woken()).endswith(f"[{process.pid}] ended")

    @asynchronous
    async def test_outOfDescriptors(self, boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without pidfds the looks find who has died; it warns once."""
        box = boxes()
        first, second = (box.cgroup.spawn(["sleep", "1000"]) for _ in range(2))
        real = os.pidfd_open
        opened: list[int] = []

        def scarce(pid: int) -> int:
            if opened:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            opened.append(real(pid))
            return opened[0]

        monkeypatch.setattr(os, "pidfd_open", scarce)
        with capturedLogs() as events:
            await box.sleep()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(opened[0])
            first.kill()
            assert await box.woken() == f"sleep[{first.pid}] ended"
            # Somebody waits for it; a name that is not there any more is as good.
            await box.sleep()
            second.kill()
            second.wait()
            assert await box.woken() == f"sleep[{second.pid}] ended"
        assert [formatEvent(event) for event in events] == [
            "box: its processes cannot be watched while it sleeps ([Errno 24] Too many open"
            " files): one that ends is noticed within 0.01 s; raise the limit of open files"
        ]

    @asynchronous
    async def test_reallyNoDescriptor(self, boxes: Boxes) -> None:
        """Not one is left: it warns, fails nobody, and finds out later."""
        box = boxes()
        sleep = box.cgroup.spawn(["sleep", "1000"])
        box.watch.beforeFreeze()
        await box.freezer.freeze()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with capturedLogs() as events:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                box.watch.start()
                await box.looked()
                await box.looked()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        texts = [formatEvent(event) for event in events]
        told = "signals to sleeping containers are looked for, not told of by the kernel"
        assert [re.split(": | \\(", text.removeprefix("box: "))[0] for text in texts] == [
            "its processes are not watched",
            *([told] if box.trace is not None else []),
            "its processes cannot be watched while it sleeps",
            "a look at a process failed",
        ]
        assert all("Too many open files" in text for text in texts)
        assert box.reasons == []
        sleep.kill()
        assert await box.woken() in (f"sleep[{sleep.pid}] ended", f"?[{sleep.pid}] ended")


class TestLimits:
    """What bounds the watch, without real containers."""

    def watch(
        self, processes: list[int], most: int = 100, interval: float = 1
    ) -> tuple[FakeReactor, FakeFreezer, SleepWatch, list[str]]:
        """A watch of some real processes."""
        reactor, freezer = FakeReactor(), FakeFreezer()
        freezer.processList = processes
        reasons: list[str] = []
        watch = SleepWatch(
            "box",
            reactor,
            freezer,
            Bounds(signalInterval=interval, watchedProcesses=most),
            reasons.append,
        )
        return reactor, freezer, watch, reasons

    def test_most(self) -> None:
        """Of too many some are watched, and one line says what to raise."""
        reactor, _, watch, _ = self.watch([os.getpid(), os.getppid(), 1], most=2)
        with capturedLogs() as events:
            for _ in range(2):
                watch.start()
                watch.start()
                assert len(watch._watched) == 2
                watch.stop()
                watch.stop()
        assert [formatEvent(event) for event in events] == [
            "box: only 2 of its 3 processes are watched while it sleeps; raise watched-processes"
        ]
        assert reactor.getDelayedCalls() == []
        assert reactor.getReaders() == []

    def test_none(self) -> None:
        """None at all is a choice, and no reason to warn."""
        _, _, watch, _ = self.watch([1], most=0)
        with capturedLogs() as events:
            watch.start()
        assert events == []
        assert watch._watched == []
        watch.stop()

    def test_unlisted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A freezer that cannot list the processes is spoken of once."""

        def fail() -> list[int]:
            raise FreezerError("no list")

        reactor, freezer, watch, reasons = self.watch([])
        monkeypatch.setattr(freezer, "processes", fail)
        with capturedLogs() as events:
            for _ in range(2):
                watch.start()
                reactor.run(3)
                watch.stop()
        assert [formatEvent(event) for event in events] == [
            "box: its processes are not watched: no list"
        ]
        assert reasons == []

    def test_stopBeforeTold(self) -> None:
        """A reason that was found at once is not told after a stop."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        reactor, _, watch, reasons = self.watch([gone.pid])
        watch.start()
        watch.stop()
        reactor.run(3)
        assert reasons == []
        watch.start()
        assert reasons == []
        reactor.run(3)
        assert reasons == ["a process ended"]
        assert reactor.getDelayedCalls() == []

    def test_startWithinWoken(self) -> None:
        """Who is told may start it again."""
        reactor, freezer = FakeReactor(), FakeFreezer()
        sleep = sleeper()
        freezer.processList = [sleep.pid]
        reasons: list[str] = []

        def woken(reason: str) -> None:
            reasons.append(reason)
            watch.start()

        watch = SleepWatch(
            "box", reactor, freezer, Bounds(signalInterval=1, watchedProcesses=10), woken
        )
        watch.start()
        sleep.kill()
        waitForState(sleep.pid, "Z")
        reactor.turn()
        assert reasons == [f"sleep[{sleep.pid}] ended"]
        # The zombie is not watched any more.
        reactor.run(3)
        assert len(reasons) == 1
        watch.stop()
        sleep.wait()

    def test_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where /proc hides a process, its death is still seen, and its life is no death."""
        sleep = sleeper()
        monkeypatch.setattr(ProcessStatus, "read", lambda pid: None)
        reactor, _, watch, reasons = self.watch([sleep.pid])
        watch.start()
        reactor.run(3)
        assert reasons == []
        sleep.kill()
        sleep.wait()
        reactor.turn()
        assert reasons == [f"?[{sleep.pid}] ended"]


class TestProcesses:
    """Reading /proc."""

    def test_blocked(self) -> None:
        """A process that blocks a signal which waits for it, and lives."""
        # One of its own: in this process the signal may go to another thread.
        script = (
            "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); "
            "os.kill(os.getpid(), signal.SIGUSR2); print(); input()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            status = ProcessStatus.read(process.pid)
            assert status is not None
            assert status.blocked & maskOf(signal.SIGUSR2)
            assert status.pending == maskOf(signal.SIGUSR2)
            assert status.state in "RS"
            assert not status.ended
            process.communicate(b"\n", timeout=10)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0

    def test_oddName(self) -> None:
        """A name may look like fields of the file."""
        script = "import ctypes; ctypes.CDLL(None).prctl(15, b') Z 1\\nState:'); input()"
        process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
        try:
            while processName(process.pid) != ") Z 1\\nState:":
                assert process.poll() is None
            assert startTime(process.pid) > 0
            status = ProcessStatus.read(process.pid)
            assert status is not None
            assert status.state in "RSD"
        finally:
            process.communicate()

    def test_gone(self) -> None:
        """Nothing is said of a process that is not there."""
        process = subprocess.Popen(["true"])
        while processState(process.pid) != "Z":
            pass
        status = ProcessStatus.read(process.pid)
        assert status is not None
        assert status.ended
        process.wait()
        assert ProcessStatus.read(process.pid) is None
        assert startTime(process.pid) == 0

    def test_unknownFormat(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel that does not tell of signals is an error, not a process without any."""
        monkeypatch.setattr("chanproxy.kernel.processes.contents", lambda pid, name: b"Name:\tx\n")
        with pytest.raises(OSError, match="does not tell of signals"):
            ProcessStatus.read(1)

    def test_names(self) -> None:
        """Signals of the middle have no names."""
        assert namesOf(0) == []
        assert namesOf(maskOf(15, 1, 40)) == ["SIGHUP", "SIGTERM", "signal 40"]
        assert namesOf(1 << 63) == ["SIGRTMAX"]


def sleeper() -> subprocess.Popen[bytes]:
    """A process that does nothing, and has its name already."""
    process = subprocess.Popen(["sleep", "1000"])
    # Popen() is back a moment before the new program shows.
    while processName(process.pid) != "sleep":
        assert process.poll() is None
    return process


def processName(pid: int) -> str:
    """The name in its status; empty, when it is gone."""
    status = ProcessStatus.read(pid)
    return "" if status is None else status.name
