"""
What noticing signals in a sleeping container costs: C{python -m bench.signal_look [--quick]}.

One look by processes and threads, in microseconds of a processor; what reading the files takes;
how soon a signal is noticed, told of or looked for; what the service uses by the second while
containers sleep; and what the kernel's telling takes.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from chanproxy.container import Bounds
from chanproxy.container.bpf.signals import SignalProgram
from chanproxy.container.sleeping import SleepWatch
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.processes import ProcessStatus, otherThreads
from chanproxy.testing.reactor import FakeReactor
from support.cgroups import TemporaryCgroup
from support.live import until
from support.programs import Sleeper

WAITS = """
import os, signal, sys, threading
processes, threads, blocks = map(int, sys.argv[1:])
if blocks:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
for _ in range(processes - 1):
    if os.fork() == 0:
        signal.pause()
for _ in range(threads - 1):
    threading.Thread(target=os.read, args=(os.pipe()[0], 1), daemon=True).start()
print("ready", flush=True)
signal.pause()
"""

TAKES = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *unused: print(time.time(), flush=True))
print("ready", flush=True)
reading = os.pipe()[0]
while True:
    os.read(reading, 1)
"""


def microseconds(step: Callable[[], object], rounds: int) -> float:
    """Of a processor, for one step of many: the best of three."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        for _ in range(rounds):
            step()
        found.append((time.thread_time() - began) / rounds * 1e6)
    return min(found)


def spawn(cgroup: TemporaryCgroup, program: str, *words: object) -> subprocess.Popen[bytes]:
    """A program that has said that it is ready."""
    argv = [sys.executable, "-c", program, *map(str, words)]
    process = cgroup.spawn(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    # It prints first, and waits a moment later.
    time.sleep(0.2)
    return process


def files(rounds: int) -> None:
    """Rows: reading what a look reads, opened each time or kept open."""
    with TemporaryCgroup() as cgroup:
        pid = spawn(cgroup, WAITS, 1, 2, 0).pid
        cgroup.write("cgroup.freeze", "1")
        until("frozen", cgroup.frozen)
        (tid,) = otherThreads(pid)
        paths = [
            f"/proc/{pid}/status",
            f"/proc/{pid}/task/{tid}/status",
            os.path.join(cgroup.path, "cpu.stat"),
        ]
        for path, name in zip(paths, ("status", "a thread's status", "cpu.stat"), strict=True):

            def opened(path: str = path) -> None:
                fd = os.open(path, os.O_RDONLY)
                os.read(fd, 4096)
                os.close(fd)

            fd = os.open(path, os.O_RDONLY)
            kept = microseconds(lambda fd=fd: os.pread(fd, 4096, 0), rounds)  # type: ignore[misc]
            os.close(fd)
            print(f"| {name} | {microseconds(opened, rounds):.1f} µs | {kept:.1f} µs |")
        read = microseconds(lambda: ProcessStatus.read(pid), rounds)
        thread = microseconds(lambda: ProcessStatus.readThread(pid, tid), rounds)
        print(f"| status, and what it says | {read:.1f} µs | |")
        print(f"| a thread's status, and that nothing is in it | {thread:.1f} µs | |", flush=True)


def looks(processes: int, threads: int, blocks: bool, rounds: int) -> None:
    """A row: a look while nothing happens, one at all processes, and one at all threads."""
    reactor = FakeReactor()
    with TemporaryCgroup() as cgroup:
        spawn(cgroup, WAITS, processes, threads, int(blocks))
        cgroup.write("cgroup.freeze", "1")
        until("frozen", cgroup.frozen)
        freezer = CgroupFreezer(cgroup.path, reactor)
        watch = SleepWatch(
            "it",
            cast(ChanproxyReactor, reactor),
            freezer,
            Bounds(signalInterval=86400, watchedProcesses=4096),
            lambda reason: None,
        )
        watch.start()
        cadence = watch._cadence

        def look() -> None:
            assert watch._call is not None
            watch._call.cancel()
            watch._search._round = []
            watch._search._roundAt = reactor.seconds()
            watch._look()

        def everyProcess() -> None:
            for process in watch._watched:
                watch._looks.process(process)

        every = watch._looks.othersOf(watch._watched)
        for _ in range(20):
            look()
        quiet, interval = microseconds(look, rounds), cadence.interval()
        each = microseconds(everyProcess, max(rounds // processes, 3))
        each_thread = microseconds(lambda: watch._looks.threads(every), max(rounds // threads, 3))
        watch.stop()
        print(
            f"| {processes} | {threads} | {'yes' if blocks else 'no'} | {quiet:.0f} µs "
            f"| {interval:.2f} s | {each:.0f} µs | {each_thread:.0f} µs |",
            flush=True,
        )


def telling(rounds: int) -> None:
    """Rows: the program is loaded; a process is added, and removed; what a signal costs with it."""
    began = time.perf_counter()
    program = SignalProgram()
    print(f"| loaded in | {(time.perf_counter() - began) * 1000:.0f} ms |")
    with subprocess.Popen(["sleep", "1000"]) as process:

        def both() -> None:
            program.add(process.pid)
            program.remove(process.pid)

        def send() -> None:
            # To be stopped again is queued, and wakes nobody.
            process.send_signal(signal.SIGSTOP)

        print(f"| a process, added and removed | {microseconds(both, rounds):.1f} µs |")
        process.send_signal(signal.SIGSTOP)
        others = microseconds(send, 100 * rounds)
        program.add(process.pid)
        watched = microseconds(send, 100 * rounds)
        program.close()
        without = microseconds(send, 100 * rounds)
        process.kill()
    print(f"| a signal, without the program | {without:.2f} µs |")
    print(f"| with it, to another process | {others:.2f} µs |")
    print(f"| with it, to one that is told of already | {watched:.2f} µs |", flush=True)


def processor(pid: int) -> float:
    """Seconds that a process has run, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


UNTOLD = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin")
"""Runs a service that may not ask the kernel to tell of signals."""


def asleep(
    what: str, seconds: float, signals: int, interval: float, within: Sequence[str] = ()
) -> None:
    """A row: what the service uses while one container sleeps, and how soon a TERM is handled."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cgroup = stack.enter_context(TemporaryCgroup())
        process = spawn(cgroup, TAKES)
        assert process.stdout is not None
        sleeper = stack.enter_context(
            Sleeper(directory, cgroup, linger=0.5, signal_interval=interval, max_asleep="never")
        )
        sleeper.within = within
        sleeper.start()
        until("frozen", cgroup.frozen)
        told = sleeper.describe()["signals"]
        time.sleep(1)
        assert sleeper.service is not None
        before = processor(sleeper.service.pid)
        time.sleep(seconds)
        used = (processor(sleeper.service.pid) - before) / seconds
        took = []
        for number in range(signals):
            until("frozen", cgroup.frozen)
            time.sleep(0.05 + number % 10 * 0.037)
            sent = time.time()
            process.send_signal(signal.SIGTERM)
            took.append(float(process.stdout.readline()) - sent)
        shown = (
            f"{statistics.median(took) * 1e3:.1f} ms | {max(took) * 1e3:.1f} ms" if took else " | "
        )
        print(f"| {what} | {told} | {used * 100:.3f} % | {shown} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    options = parser.parse_args()
    rounds = 20 if options.quick else 1000
    print(f"Load average {os.getloadavg()[0]:.2f} at the start.\n")
    print("| reading | opened | kept open |")
    print("| --- | ---: | ---: |")
    files(rounds)
    print(
        "\n| processes | threads of one | block a signal | a look | every | all processes "
        "| all threads |"
    )
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for processes, threads, blocks in (
        (1, 1, False),
        (1, 1, True),
        (10, 1, False),
        (10, 1, True),
        (100, 1, False),
        (100, 1, True),
        (1, 10, False),
        (1, 100, False),
        (1, 1000, False),
    ):
        looks(processes, threads, blocks, rounds)
    print("\n| one asleep | signals | service | TERM handled after, median | longest |")
    print("| --- | --- | ---: | ---: | ---: |")
    seconds, signals = (2, 2) if options.quick else (30, 30)
    asleep("the defaults", seconds, signals, 2)
    asleep("without CAP_BPF", seconds, signals, 2, UNTOLD)
    asleep("signal-interval = 0", seconds, 0, 0)
    print("\n| the kernel's telling | |")
    print("| --- | ---: |")
    telling(rounds)
    print(f"\nLoad average {os.getloadavg()[0]:.2f} at the end.")


if __name__ == "__main__":
    main()
