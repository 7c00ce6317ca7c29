"""
What one packet costs the proxy: C{python bench/per_message.py}.

Runs the real service with freezer C{none} between a sender and a receiver, and beside it the same
work with no proxy at all, in rounds that alternate.  Prints medians, a ratio, and the CPU time of
the proxy process per packet.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

PACKETS = 20000
ROUNDS = 5
TICKS = os.sysconf("SC_CLK_TCK")


def cpuSeconds(pid: int) -> float:
    """CPU time of a process, C{proc(5)}: fields 14 and 15 of its stat, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def oneRound(sending: socket.socket, receiving: socket.socket, data: bytes) -> float:
    """Seconds for all packets from one end to the other."""

    def receive() -> None:
        for _ in range(PACKETS):
            receiving.recv(300000)

    thread = threading.Thread(target=receive)
    begin = time.perf_counter()
    thread.start()
    for _ in range(PACKETS):
        sending.send(data)
    thread.join()
    return time.perf_counter() - begin


def measure(directory: Path, table: Table) -> None:
    inside, outside = directory / "inside", directory / "outside"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(inside))
    listening.listen()
    service = subprocess.Popen(
        [
            *[sys.executable, "-c", "from twisted.scripts.twistd import run; run()"],
            *["-n", "--pidfile=", f"--logfile={directory / 'log'}", "chanproxy"],
            *["--listen", f"seqpacket:{outside}", "--connect", f"seqpacket:{inside}"],
            *["--freezer", "none"],
        ],
        cwd=directory,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime")),
    )
    try:
        sending = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        deadline = time.monotonic() + 10
        while sending.connect_ex(str(outside)):
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.01)
        receiving, _ = listening.accept()
        direct = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for size in (64, 4096, 65536):
            data = b"x" * size
            through, without, cpu = [], [], []
            for _ in range(ROUNDS):
                before = cpuSeconds(service.pid)
                through.append(oneRound(sending, receiving, data))
                cpu.append((cpuSeconds(service.pid) - before) / PACKETS)
                without.append(oneRound(*direct, data))
            a, b = statistics.median(through), statistics.median(without)
            table.add_row(
                f"{size} B",
                f"{b / a:.2f}",
                f"{PACKETS / a:,.0f}/s",
                f"{PACKETS / b:,.0f}/s",
                f"{statistics.median(cpu) * 1e6:.1f} µs",
            )
    finally:
        service.terminate()
        service.wait()


def main() -> None:
    table = Table("packet", "speed ratio", "through chanproxy", "no proxy", "proxy CPU per packet")
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), table)
    Console().print(table)


if __name__ == "__main__":
    main()
