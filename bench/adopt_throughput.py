"""
What adopting costs while awake and at work: C{python -m bench.adopt_throughput [--quick]}.

The same server under the same load, and the same work, with the service watching its container and
without, in short rounds that alternate: in every other one the service is stopped (SIGSTOP).
Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from support.cgroups import TemporaryCgroup
from support.live import until
from support.ports import freePort
from support.programs import Sleeper, answers, get
from support.servers import NGINX
from support.worker import COMPUTES, NAPS, WRITES, Worker


def measure(
    what: str,
    unit: str,
    directory: Path,
    cgroup: TemporaryCgroup,
    work: Callable[[], float],
    rounds: int,
) -> None:
    """
    A row.

    @param work: one round; returns how much was done in a second, or how long it took.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    # With the settings that a user gets.
    with Sleeper(directory, cgroup, linger=0.5, short_sleep=1) as sleeper:
        sleeper.start()
        service = sleeper.service
        assert service is not None
        try:
            work()
            for number in range(rounds):
                for watched in (True, False) if number % 2 else (False, True):
                    service.send_signal(signal.SIGCONT if watched else signal.SIGSTOP)
                    assert not cgroup.frozen(), "stopped in the middle of a try"
                    times[watched].append(work())
        finally:
            service.send_signal(signal.SIGCONT)
    with_, without = times[True], times[False]
    a, b = statistics.median(with_), statistics.median(without)
    spread = statistics.quantiles(without, n=4)
    print(
        f"| {what} | {a:,.4g} {unit} | {b:,.4g} {unit} | {a / b:.3f} "
        f"| {(spread[2] - spread[0]) / b:.1%} | {rounds} |",
        flush=True,
    )


def redis(stack: ExitStack, directory: Path, rounds: int, quick: bool) -> None:
    """C{redis-benchmark}, with and without pipelines."""
    port = freePort()
    cgroup = stack.enter_context(TemporaryCgroup())
    argv = [get("redis-server"), "--port", str(port), "--save", "", "--dir", str(directory)]
    cgroup.spawn([*argv, "--logfile", str(directory / "redis.log")], stdin=subprocess.DEVNULL)
    until("redis", lambda: answers(port))
    for name, depth, count in (("one at a time", 1, 20_000), ("16 at a time", 16, 150_000)):
        command = [get("redis-benchmark"), "-p", str(port), "-t", "set", "-q", "--csv"]
        command += ["-P", str(depth), "-n", str(count // 4 if quick else count)]

        def load(command: list[str] = command) -> float:
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = re.search(r'"SET[^"]*","([0-9.]+)"', printed)
            assert found is not None, printed
            return float(found[1])

        measure(f"redis, SET, 50 connections, {name}", "/s", directory, cgroup, load, rounds)


def nginx(stack: ExitStack, directory: Path, rounds: int, quick: bool) -> None:
    """Pipelined requests over four connections in turn."""
    port = freePort()
    cgroup = stack.enter_context(TemporaryCgroup())
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=directory, user=user, port=port))
    argv = [get("nginx"), "-p", str(directory), "-c", str(configuration), "-e", "error.log"]
    cgroup.spawn(argv, stdin=subprocess.DEVNULL)
    until("nginx", lambda: answers(port))
    batch = b"GET /echo/1 HTTP/1.1\r\nHost: test\r\n\r\n" * 50
    count = 20 if quick else 100

    def load() -> float:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        began = time.perf_counter()
        # A connection carries a thousand requests, by its default.
        for number in range(count):
            if number % 20 == 19:
                for connection in connections:
                    connection.close()
                connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
            for connection in connections:
                connection.sendall(batch)
            for connection in connections:
                _receive(connection, 50)
        took = time.perf_counter() - began
        for connection in connections:
            connection.close()
        return count * 200 / took

    measure("nginx, two workers, 50 requests at a time", "/s", directory, cgroup, load, rounds)


def _receive(connection: socket.socket, count: int) -> None:
    data = b""
    while data.count(b"/echo/1") < count:
        more = connection.recv(65536)
        assert more, "closed"
        data += more


def works(stack: ExitStack, directory: Path, rounds: int) -> None:
    """What is no server: it never sleeps at work, and takes as long."""
    for name, work in (
        ("computes", COMPUTES),
        ("writes to disk, with fsync", WRITES),
        ("sleeps 1 ms, 150 times", NAPS),
    ):
        worker = Worker(work, directory / "file")
        stack.callback(worker.cgroup.close)

        def seconds(worker: Worker = worker) -> float:
            worker.begin(1)
            return worker.finish()[0]

        measure(f"{name}", "s", directory, worker.cgroup, seconds, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    options = parser.parse_args()
    rounds = 6 if options.quick else 60
    print(f"Load average {os.getloadavg()[0]:.2f} at the start.\n")
    print("| | watched | not watched | ratio | spread | rounds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis(stack, directory, rounds, options.quick)
        nginx(stack, directory, rounds, options.quick)
        works(stack, directory, rounds)
    print("\nThe spread is between the quartiles of the rounds not watched, over their median.")
    print(f"Load average {os.getloadavg()[0]:.2f} at the end.")


if __name__ == "__main__":
    main()
