"""
Ports of loopback for programs that are told one.

A port that was found by binding to 0 may be somebody else's by the time the program binds it: the
kernel gives such ports to every client and server that names none, and the suite runs in several
processes at once.  Those here lie below what the kernel gives away by itself, and each process has
a range of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from pathlib import Path

LOWEST = 10_000
"""Below are those of well-known services."""

WORKERS = 8
"""So many ranges; a pytest-xdist worker has that of its number."""


def _candidates() -> itertools.cycle[int]:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    # Where the kernel gives away all of them, that is not to be helped.
    top = int(given[0]) if int(given[0]) > LOWEST + 1000 else 32768
    size = (top - LOWEST) // WORKERS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    first = LOWEST + worker * size
    # Another suite on the same machine begins elsewhere.
    begin = random.randrange(size)
    return itertools.cycle([first + (begin + number) % size for number in range(size)])


_next = _candidates()


def freePort(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> int:
    """One that nobody has; each call gives another one."""
    while True:
        port = next(_next)
        with socket.socket(family, kind) as probe:
            try:
                probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            except OSError:
                continue
        return port
