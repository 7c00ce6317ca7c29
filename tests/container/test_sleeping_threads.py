"""Signals for single threads of a frozen container, and those of its own timers."""

from __future__ import annotations

import ctypes
import os
import signal

import pytest

from chanproxy.container.sleeping import TIMERS
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.processes import ProcessStatus, maskOf, otherThreads, timerSignals
from support.cgroups import unusable
from tests.container.boxes import WAYS, Box, Boxes, hear, makeBoxes
from tests.shared.sides import asynchronous, until

pytestmark = [
    pytest.mark.lasts(20),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

boxes = pytest.fixture(params=WAYS)(makeBoxes)

THREADS = """
import signal, threading
signal.signal(signal.SIGUSR1, lambda number, frame: None)
def work(number):
    if number == 7:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        begun.release()
        while True:
            signal.sigwait([signal.SIGUSR2])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    begun.release()
    threading.Event().wait()
begun = threading.Semaphore(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
threads = [threading.Thread(target=work, args=[n], daemon=True) for n in range(10)]
for thread in threads:
    thread.start()
    begun.acquire()
print("ready", flush=True)
print(threads[7].native_id, flush=True)
while True: signal.pause()
"""

TICKER = """
import select, signal, sys
def handle(number, frame): print(signal.Signals(number).name, flush=True)
signal.signal(signal.SIGALRM, handle)
signal.signal(signal.SIGHUP, handle)
{start}
print("ready", flush=True)
while True:
    # Python's handlers run between two of its steps: one that comes right before a call waits for
    # the end of that.
    if select.select([sys.stdin], [], [], 0.1)[0]:
        exec(sys.stdin.readline())
        print("done", flush=True)
"""

POSIX = """
import ctypes, signal, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def handle(number, frame): pass
signal.signal(signal.SIGRTMIN, handle)
def start(tid, first, then):
    # struct sigevent: value, signal, SIGEV_THREAD_ID or SIGEV_SIGNAL, the thread.
    event = struct.pack("@qiii44x", 0, signal.SIGRTMIN, 4 if tid else 0, tid)
    timer = ctypes.c_void_p()
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0, ctypes.get_errno()
    parts = [int(first), int(first % 1 * 1e9)]
    setting = struct.pack("@qqqq", int(then), int(then % 1 * 1e9), *parts)
    assert libc.timer_settime(timer, 0, setting, None) == 0
wait = threading.Thread(target=threading.Event().wait, daemon=True)
wait.start()
{start}
print("ready", flush=True)
while True: signal.pause()
"""


def tgkill(pid: int, tid: int, number: int) -> None:
    """Send a signal to a thread."""
    assert ctypes.CDLL(None).tgkill(pid, tid, number) == 0


def name(box: Box, pid: int) -> str:
    """What the watch calls a process."""
    (process,) = (each for each in box.watch._watched if each.pid == pid)
    return str(process)


@asynchronous
async def test_thread(boxes: Boxes) -> None:
    """A signal for one thread wakes, blocked there or not, each time that it is taken."""
    # No look at everything comes within the test.
    box = boxes(1000)
    process = box.run(THREADS)
    tid = int(hear(process))
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        await box.sleep()
        who = name(box, process.pid)
        tgkill(process.pid, tid, number)
        assert await box.woken() == f"{number.name} is pending for thread {tid} of {who}"
        await until(box.reactor, lambda: ProcessStatus.readThread(process.pid, tid) is None)


@asynchronous
async def test_threadBlocks(boxes: Boxes) -> None:
    """What no thread notices is found by going round; once, if it is never taken."""
    box = boxes(0.05)
    process = box.run(THREADS)
    hear(process)
    tid = otherThreads(process.pid)[2]
    await box.sleep()
    who = name(box, process.pid)
    tgkill(process.pid, tid, signal.SIGUSR2)
    assert await box.woken() == f"SIGUSR2 is pending for thread {tid} of {who}"
    for _ in range(2):
        await box.sleep()
        await box.quiet()


@asynchronous
async def test_threadBefore(boxes: Boxes) -> None:
    """A thread's signal that came before the first look is found."""
    box = boxes(0.05)
    process = box.run(THREADS)
    tid = int(hear(process))
    await box.sleep(lambda: tgkill(process.pid, tid, signal.SIGUSR1))
    assert (await box.woken()).startswith(f"SIGUSR1 is pending for thread {tid} of ")


@asynchronous
async def test_withoutCpuTime(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not known how much it runs, all are looked at again and again."""

    def fail() -> int:
        raise FreezerError("not known")

    box = boxes(0.05)
    monkeypatch.setattr(box.freezer, "cpuTime", fail)
    process = box.run(THREADS)
    tid = int(hear(process))
    await box.sleep()
    tgkill(process.pid, tid, signal.SIGUSR1)
    assert (await box.woken()).startswith(f"SIGUSR1 is pending for thread {tid} of ")
    await box.sleep()
    process.send_signal(signal.SIGUSR1)
    assert (await box.woken()).startswith("SIGUSR1 is pending for ")


@pytest.mark.parametrize("block", ["", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])"])
@asynchronous
async def test_soon(boxes: Boxes, block: str) -> None:
    """A signal is noticed soon, however seldom all are looked at; one that is blocked, too."""
    box = boxes(1000)
    process = box.run(TICKER.replace("{start}", block))
    took = []
    for _ in range(3):
        await box.sleep()
        sent = box.reactor.seconds()
        process.send_signal(signal.SIGHUP)
        assert (await box.woken()).startswith("SIGHUP is pending for ")
        took.append(box.reactor.seconds() - sent)
        if block:
            assert process.stdin is not None
            process.stdin.write(b"signal.sigwait([signal.SIGHUP])\n")
            process.stdin.flush()
            assert hear(process) == "done"
        else:
            assert hear(process) == "SIGHUP"
    # Others may have the processors for a while.
    assert min(took) < 0.3


@asynchronous
async def test_alarm(boxes: Boxes) -> None:
    """A time that has come wakes."""
    box = boxes(1000, passedOver=0)
    began = box.reactor.seconds()
    process = box.run(TICKER.replace("{start}", "signal.alarm(2)"))
    await box.sleep()
    assert (await box.woken()).startswith("SIGALRM is pending for ")
    assert box.reactor.seconds() - began >= 1.9
    assert hear(process) == "SIGALRM"


async def _ticksOver(box: Box, what: str) -> None:
    """It wakes three times at most, then sleeps on."""
    for _ in range(3):
        await box.sleep()
        assert (await box.woken()).startswith(what)
    await box.sleep()
    await until(box.reactor, lambda: box.reactor.seconds() - box.watch._looks.since > 1)
    assert box.reasons == []


@asynchronous
async def test_interval(boxes: Boxes) -> None:
    """A timer that ticks is passed over, once it was seen to; not so what comes after it."""
    box = boxes(1000, passedOver=0)
    process = box.run(TICKER.replace("{start}", "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)"))
    await _ticksOver(box, "SIGALRM is pending for ")
    assert box.watch.ticking == [f"SIGALRM of {name(box, process.pid)}"]
    # Another signal wakes all the same.
    process.send_signal(signal.SIGHUP)
    assert (await box.woken()).startswith("SIGHUP is pending for ")
    while hear(process) != "SIGHUP":
        pass
    # It is passed over still; then it is stopped, and the next alarm is waited for again.
    await box.sleep()
    await box.looked()
    assert box.reasons == []
    box.watch.stop()
    await box.freezer.thaw()
    assert process.stdin is not None
    process.stdin.write(b"signal.setitimer(signal.ITIMER_REAL, 0); signal.alarm(3)\n")
    process.stdin.flush()
    while hear(process) != "done":
        pass
    await box.sleep()
    assert (await box.woken()).startswith("SIGALRM is pending for ")
    assert box.watch.ticking == []


@pytest.mark.parametrize("thread", ["0", "wait.native_id"])
@asynchronous
async def test_posixInterval(boxes: Boxes, thread: str) -> None:
    """Likewise one of timer_create, with any signal, for the process or for a thread."""
    box = boxes(1000)
    process = box.run(POSIX.replace("{start}", f"start({thread}, 0.05, 0.05)"))
    assert timerSignals(process.pid) == maskOf(signal.SIGRTMIN)
    await _ticksOver(box, "SIGRTMIN is pending for ")
    assert [text.partition(" of ")[0] for text in box.watch.ticking] == ["SIGRTMIN"]
    box.watch.stop()
    await box.freezer.thaw()


@pytest.mark.parametrize("thread", ["0", "wait.native_id"])
@asynchronous
async def test_posixOnce(boxes: Boxes, thread: str) -> None:
    """One that comes once wakes, for the process or for a thread."""
    box = boxes(1000)
    process = box.run(POSIX.replace("{start}", f"start({thread}, 1.5, 0)"))
    await box.sleep()
    reason = await box.woken()
    assert reason.startswith("SIGRTMIN is pending for ")
    assert ("thread " in reason) == (thread != "0")
    assert process.poll() is None


@asynchronous
async def test_inBetween(boxes: Boxes) -> None:
    """Alarms of requests in a row are no tick: something else wakes between them."""
    box = boxes(1000, passedOver=0)
    process = box.run(TICKER.replace("{start}", ""))
    assert process.stdin is not None
    for _ in range(5):
        await box.sleep()
        box.watch.stop()
        await box.freezer.thaw()
        process.stdin.write(b"signal.setitimer(signal.ITIMER_REAL, 0.1)\n")
        process.stdin.flush()
        assert hear(process) == "done"
        await box.sleep()
        assert (await box.woken()).startswith("SIGALRM is pending for ")
        assert hear(process) == "SIGALRM"


def test_timerSignals() -> None:
    """Nobody has none; those of setitimer are not listed, and wait under their own names."""
    assert timerSignals(2**22 + 1) == 0
    assert timerSignals(os.getpid()) == 0
    assert maskOf(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF) == TIMERS
