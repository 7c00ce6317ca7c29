"""Real frozen containers whose signals the kernel tells of; and what it does not tell of."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from chanproxy.config import Configuration
from chanproxy.config import Container as Configured
from chanproxy.container.bpf.signals import SignalProgram, Unavailable
from chanproxy.container.cadence import SHORTEST
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.processes import ProcessStatus, otherThreads
from chanproxy.service import ChanproxyService
from support.cgroups import TemporaryCgroup, unusable
from support.processes import waitForState
from tests.container.boxes import WAYS, Box, Boxes, hear, makeBoxes
from tests.container.test_sleeping_threads import POSIX, THREADS, tgkill
from tests.shared.sides import asynchronous, until

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

boxes = pytest.fixture(params=WAYS[:1])(makeBoxes)
either = pytest.fixture(params=WAYS)(makeBoxes)

SOON = 0.05
"""Seconds within which a signal is noticed that is told of; looks would take four times that."""

HANDLES = """
import signal
signal.signal(signal.SIGTERM, lambda *unused: None)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("ready", flush=True)
while True: signal.pause()
"""

WAITS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
while True: signal.sigtimedwait([signal.SIGTERM], 1000)
"""

SIGNALFD = """
import ctypes, os, select, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
mask = ctypes.c_uint64(1 << signal.SIGTERM - 1)
fd = ctypes.CDLL(None).signalfd(-1, ctypes.create_string_buffer(bytes(mask) + bytes(120)), 0)
epoll = select.epoll()
epoll.register(fd, select.EPOLLIN)
print("ready", flush=True)
while True:
    epoll.poll()
    os.read(fd, 128)
"""

BORN = """
import ctypes, os, struct, sys
# clone3(CLONE_INTO_CGROUP), which systemd and newer container runtimes use.
cgroup = os.open(sys.argv[1], os.O_RDONLY)
arguments = struct.pack("=11Q", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, cgroup)
if ctypes.CDLL(None).syscall(435, arguments, len(arguments)) == 0:
    os.execlp("sleep", "sleep", "60")
"""


async def soon(box: Box, send: Callable[[], object], again: Callable[[], object]) -> str:
    """A reason to wake comes soon; the best of some tries, as others may have the processors."""
    took = []
    for _ in range(5):
        await box.sleep()
        assert box.told
        # Nothing that would look at them is about to come.
        await until(box.reactor, lambda: len(box.reactor.getDelayedCalls()) <= 2)
        sent = time.monotonic()
        send()
        reason = await box.woken()
        took.append(time.monotonic() - sent)
        again()
    assert min(took) < SOON
    return reason


def takenBy(pid: int) -> Callable[[], None]:
    """What waits until a process has taken its signals."""

    def taken() -> None:
        deadline = time.monotonic() + 5
        while any(status is not None and status.pending for status in statuses(pid)):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    return taken


def statuses(pid: int) -> list[ProcessStatus | None]:
    """Of all threads of a process."""
    threads = [ProcessStatus.readThread(pid, tid) for tid in otherThreads(pid)]
    return [ProcessStatus.read(pid), *threads]


@pytest.mark.parametrize("script", [HANDLES, WAITS, SIGNALFD], ids=["handled", "wait", "signalfd"])
@asynchronous
async def test_soon(boxes: Boxes, script: str) -> None:
    """However a program takes it, it is noticed without a look at the clock."""
    box = boxes(1000)
    process = box.run(script)
    pid = process.pid
    reason = await soon(box, lambda: process.send_signal(signal.SIGTERM), takenBy(pid))
    assert reason.startswith("SIGTERM is pending for ")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
@asynchronous
async def test_thread(boxes: Boxes, number: signal.Signals) -> None:
    """Likewise one for a single thread, which blocks it or not."""
    box = boxes(1000)
    process = box.run(THREADS)
    tid = int(hear(process))
    send = lambda: tgkill(process.pid, tid, number)  # noqa: E731  # it is passed on
    reason = await soon(box, send, takenBy(process.pid))
    assert reason.startswith(f"{number.name} is pending for thread {tid} of ")


@asynchronous
async def test_continued(boxes: Boxes) -> None:
    """SIGCONT, which all programs ignore, makes one go on that was stopped."""
    box = boxes(1000)
    process = box.run(HANDLES)

    def stop() -> None:
        process.send_signal(signal.SIGSTOP)
        waitForState(process.pid, "T")

    stop()
    reason = await soon(box, lambda: process.send_signal(signal.SIGCONT), stop)
    assert reason.startswith("SIGCONT came for ")


@pytest.mark.parametrize("thread", ["0", "wait.native_id"])
@asynchronous
async def test_timer(boxes: Boxes, thread: str) -> None:
    """A timer's signal, for the process or for a thread, comes when the time does."""
    box = boxes(1000)
    late = []
    for _ in range(3):
        process = box.run(POSIX.replace("{start}", f"start({thread}, 0.4, 0)"))
        began = time.monotonic()
        await box.sleep()
        assert (await box.woken()).startswith("SIGRTMIN is pending for ")
        late.append(time.monotonic() - began - 0.4)
        process.kill()
        process.wait()
    assert min(late) < SOON


@asynchronous
async def test_nothing(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process ignores is not even told of; without signals, nobody looks at it."""
    box = boxes(1000)
    process = box.run(HANDLES)
    await box.sleep()
    looked: list[int] = []
    monkeypatch.setattr(ProcessStatus, "read", lambda pid: looked.append(pid))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGCHLD)
    end = box.reactor.seconds() + 3 * SHORTEST
    await until(box.reactor, lambda: box.reactor.seconds() > end)
    assert looked == []
    assert box.reasons == []


@asynchronous
async def test_flood(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals without end take next to nothing, and another container's is noticed all the same."""
    script = (
        "import resource, signal\n"
        # What waits is counted by user: others of this one need some for their timers.
        "resource.setrlimit(resource.RLIMIT_SIGPENDING, (100, 100))\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    box, other = boxes(1000), boxes(1000)
    flooded, process = box.run(script), other.run(HANDLES)
    flooded.send_signal(signal.SIGRTMIN)
    await box.sleep()
    assert (await box.woken()).startswith("SIGRTMIN is pending for ")
    looked: list[int] = []
    read = ProcessStatus.read

    def look(pid: int) -> ProcessStatus | None:
        looked.append(pid)
        return read(pid)

    monkeypatch.setattr(ProcessStatus, "read", look)
    await box.sleep()
    await other.sleep()
    flood = f"import os\nwhile True: os.kill({flooded.pid}, {int(signal.SIGRTMIN)})"
    with subprocess.Popen([sys.executable, "-c", flood]) as sender:
        try:
            looked.clear()
            began = box.reactor.seconds()
            await until(box.reactor, lambda: box.reactor.seconds() > began + 1)
            assert 1 <= looked.count(flooded.pid) <= 60
            assert box.reasons == []
            process.send_signal(signal.SIGTERM)
            assert (await other.woken()).startswith("SIGTERM is pending for ")
        finally:
            sender.kill()


@asynchronous
async def test_born(either: Boxes) -> None:
    """One that is born in a frozen container changes nothing that is told of: it is listed."""
    box = either(0.5)
    box.run(HANDLES)
    await box.sleep()
    subprocess.run([sys.executable, "-c", BORN, box.cgroup.path], check=True, timeout=30)
    assert (await box.woken()).endswith(" came in")


@asynchronous
async def test_services(boxes: Boxes) -> None:
    """Several services, each with what is its own: here, one for each container."""
    first, second = boxes(1000), boxes(1000)
    assert first.trace is not second.trace
    processes = [box.run(HANDLES) for box in (first, second)]
    await first.sleep()
    await second.sleep()
    processes[1].send_signal(signal.SIGTERM)
    assert (await second.woken()).endswith(f"[{processes[1].pid}]")
    assert first.reasons == []
    processes[0].send_signal(signal.SIGTERM)
    assert (await first.woken()).endswith(f"[{processes[0].pid}]")


@pytest.mark.parametrize("told", WAYS)
@asynchronous
async def test_service(
    reactor: ChanproxyReactor, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """A service loads the program once, for all containers and sleeps, and closes it at its end."""
    loaded: list[SignalProgram] = []
    load = SignalProgram.__init__

    def loading(self: SignalProgram) -> None:
        loaded.append(self)
        if not told:
            raise Unavailable("as the test wants")
        load(self)

    monkeypatch.setattr(SignalProgram, "__init__", loading)
    with TemporaryCgroup() as one, TemporaryCgroup() as other:
        cgroups = {"one": one, "other": other}
        configured = [Configured(name, each.spec, 60) for name, each in cgroups.items()]
        service = ChanproxyService(Configuration(containers=tuple(configured)), reactor)
        service.startService()
        try:
            assert loaded == []
            for _ in range(2):
                for name, cgroup in cgroups.items():
                    process = cgroup.spawn([sys.executable, "-c", HANDLES], stdout=subprocess.PIPE)
                    assert hear(process) == "ready"
                    container = service.containers[name]
                    resumed = container.suspend()
                    await until(reactor, cgroup.frozen)
                    assert container.signals == ("told" if told else "looked_for")
                    process.send_signal(signal.SIGTERM)
                    reason = (await resumed).reason
                    assert reason.startswith("SIGTERM is pending for ")
            assert len(loaded) == 1
        finally:
            # What is left of it then is seen when the test ends.
            await service.stopService()
