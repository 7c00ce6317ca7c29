"""
What all that can be switched on costs: C{python -m bench.everything [--quick]}.

Two services side by side: one with nothing but its containers; one with the control socket, the
history, and HTTP, of which a page follows the events and a scraper takes the metrics.  Messages
through a channel, wakes by a program's own sockets, and then containers that merely sleep.  Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from attrs import frozen

from bench.measure import Failed, adoptOrphans, compile_, processors, raiseDescriptorLimit, spent
from bench.peers import SEQPACKET, UNIX, Between, Peer, startChanproxy
from bench.rounds import Bench, Effort
from bench.works import APART, Figure, Sample, Work, setups
from support.cgroups import TemporaryCgroup
from support.live import LiveService, until
from support.ports import freePort

OFF, ON = "nothing", "everything"

SCRAPES = 5.0
"""Seconds from one look at the metrics to the next: three times as often as Prometheus does."""

SETTLING = 75.0
"""Seconds asleep after which breaths come as seldom as they do later on."""

LOOKED = 0.15
"""Seconds frozen after which it sleeps: it has been looked into, and nothing was found."""

ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(64):
        connection.send(data)
"""

WORKS = [Work(SEQPACKET, 64), Work(UNIX, 200), Work(SEQPACKET, 64, trips=APART)]


@frozen
class Amount:
    """How much of everything; seconds are of the sleepers."""

    effort: Effort
    wakes: int
    sleepers: int
    seconds: float


FULL = Amount(Effort(30, 1, 250, 2000, 0, 0, 0), 300, 100, 120)
QUICK = Amount(Effort(3, 1, 100, 500, 0, 0, 0), 20, 5, 5)


def keys(directory: Path, which: str) -> str:
    """The top of a configuration."""
    if which == OFF:
        return '[history]\npath = "off"\n'
    return f'control = "seqpacket:{directory}/control.sock"\nhttp = "unix:{directory}/http.sock"\n'


class _Client(http.client.HTTPConnection):
    """Over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


@contextmanager
def audience(path: Path) -> Iterator[None]:
    """A page and a scraper, as long as a service is measured."""
    over = threading.Event()

    def follow() -> None:
        client = _Client(path)
        client.request("GET", "/events")
        answer = client.getresponse()
        with suppress(OSError, ValueError, http.client.HTTPException):
            while not over.is_set() and answer.read1(65536):
                pass

    def scrape() -> None:
        while not over.wait(SCRAPES):
            client = _Client(path)
            with suppress(OSError, http.client.HTTPException):
                client.request("GET", "/metrics")
                assert client.getresponse().read()
            client.close()

    until("http", path.exists)
    threads = [threading.Thread(target=each, daemon=True) for each in (follow, scrape)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()


class Service(LiveService):
    """One of the two, in front of containers."""

    def __init__(self, directory: Path, which: str, tables: Sequence[str]) -> None:
        super().__init__(directory)
        directory.mkdir()
        file = directory / "chanproxy.toml"
        top = keys(directory, which)
        # Tables come after keys.
        file.write_text("\n".join([top, *tables] if which == ON else [*tables, top]))
        self.service = self.run("--config", str(file))

    def spent(self) -> float:
        """Seconds of a processor so far, with its guardian and what closes for it."""
        assert self.service is not None
        pids = [self.service.pid]
        children = Path(f"/proc/{self.service.pid}/task/{self.service.pid}/children").read_text()
        return spent([*pids, *map(int, children.split())]).cpu

    def resident(self) -> int:
        """Bytes of its process."""
        assert self.service is not None
        text = Path(f"/proc/{self.service.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024


def table(name: str, cgroup: TemporaryCgroup, *lines: str) -> str:
    """Of a container."""
    return "\n".join([f"[containers.{name}]", f'freezer = "{cgroup.spec}"', *lines])


def shown(value: Figure, form: str = "{:.3f}") -> str:
    """A median and its quartiles."""
    low, high = form.format(value.low), form.format(value.high)
    return f"{form.format(value.median)} ({low} to {high})"


def pump(directory: Path, amount: Amount) -> None:
    """Messages through a channel: each pair of rounds by itself."""
    # The two other parts wait for what their services leave behind.
    adoptOrphans()
    load = compile_(directory, "loads", "loads.c", "trips.c")
    with ExitStack() as stack:

        def start(which: str, between: Between) -> object:
            top = keys(between.directory, which)
            child = startChanproxy(between, top if which == ON else "", top * (which == OFF))
            if which == ON:
                stack.enter_context(audience(between.directory / "http.sock"))
            return child

        kinds = frozenset((SEQPACKET, UNIX))
        peers = [
            Peer(which, kinds, True, 3, False, partial(start, which))  # type: ignore[arg-type]  # a child
            for which in (OFF, ON)
        ]
        limit = raiseDescriptorLimit(4096)
        where = processors()
        bench = Bench(directory, load, peers, where, limit, amount.effort, lambda text: None)
        for setup in setups(WORKS):
            bench.run(setup)
    print("| through a channel | nothing on | everything on | ratio, pair by pair |")
    print("| --- | --- | --- | --- |")
    for series in bench.results.series:

        def cpu(sample: Sample) -> float:
            return sample.cpu

        ratio = series.ratio(ON, OFF, cpu)
        off, on = series.figure(OFF, cpu), series.figure(ON, cpu)
        assert ratio is not None
        assert off is not None
        assert on is not None
        print(
            f"| {series.work.title}, CPU per message | {off.median * 1e6:.2f} µs "
            f"| {on.median * 1e6:.2f} µs | {shown(ratio)} |"
        )
    for note in bench.results.notes:
        print(f"\n{note}")
    print(f"\nMedians of {amount.effort.rounds} pairs, with quartiles.\n")


def wakes(directory: Path, amount: Amount) -> None:
    """From a request to a container that sleeps to its answer, by turns."""
    with ExitStack() as stack:
        peers: dict[str, tuple[socket.socket, TemporaryCgroup]] = {}
        memory: dict[str, int] = {}
        services: dict[str, Service] = {}
        for which in (OFF, ON):
            cgroup = stack.enter_context(TemporaryCgroup())
            port = freePort()
            cgroup.spawn([sys.executable, "-c", ECHO, str(port)], stdin=subprocess.DEVNULL)
            until("the server", partial(_connects, port))
            mine = directory / which
            keyed = table("it", cgroup, 'wake-on = "sockets"', "linger = 0.05", "short-sleep = 0")
            services[which] = stack.enter_context(Service(mine, which, [keyed]))
            if which == ON:
                stack.enter_context(audience(mine / "http.sock"))
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peers[which] = peer, cgroup
        took: dict[str, list[float]] = {OFF: [], ON: []}
        for number in range(amount.wakes + 3):
            for which in (OFF, ON) if number % 2 else (ON, OFF):
                peer, cgroup = peers[which]
                until("asleep", partial(_sleeps, cgroup))
                begin = time.perf_counter()
                peer.send(b"ping")
                assert peer.recv(64) == b"ping"
                if number >= 3:
                    took[which].append(time.perf_counter() - begin)
        for which, service in services.items():
            memory[which] = service.resident()
            service.end()
    print("| a wake by its own socket | nothing on | everything on |")
    print("| --- | --- | --- |")
    for name, share in (("median", 0.5), ("nine of ten", 0.9), ("99 of 100", 0.99)):
        cells = (_quantile(took[which], share) * 1e3 for which in (OFF, ON))
        print(f"| {name} | " + " | ".join(f"{cell:.2f} ms" for cell in cells) + " |")
    sizes = (f"{memory[which] / 2**20:.1f} MiB" for which in (OFF, ON))
    print("| resident memory of the service after that | " + " | ".join(sizes) + " |")
    print(f"\n{amount.wakes} wakes each, by turns.\n")


def _connects(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _sleeps(cgroup: TemporaryCgroup) -> bool:
    """Whether it has been looked into as well, which is done while it is frozen."""
    end = time.monotonic() + LOOKED
    while time.monotonic() < end:
        if not cgroup.frozen():
            return False
        time.sleep(0.01)
    return True


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def sleepers(directory: Path, amount: Amount) -> None:
    """Containers that nobody asks for anything."""
    print(f"| {amount.sleepers} containers that sleep | share of a processor of the service |")
    print("| --- | --- |")
    for title, lines in (
        ("woken by channels", ()),
        ("woken by their own sockets, breathing", ('wake-on = "sockets"',)),
        (
            'woken by their own sockets, with `max-asleep = "never"`',
            ('wake-on = "sockets"', 'max-asleep = "never"'),
        ),
    ):
        with ExitStack() as stack:
            cgroups = [stack.enter_context(TemporaryCgroup()) for _ in range(amount.sleepers)]
            for cgroup in cgroups:
                cgroup.spawn(["sleep", "1000000"], stdin=subprocess.DEVNULL)
            tables = [table(f"c{n}", cgroup, *lines) for n, cgroup in enumerate(cgroups)]
            mine = directory / f"sleepers{len(os.listdir(directory))}"
            service = stack.enter_context(Service(mine, ON, tables))
            stack.enter_context(audience(mine / "http.sock"))
            for cgroup in cgroups:
                until("asleep", cgroup.frozen)
            time.sleep(SETTLING if amount is FULL else 1)
            shares = []
            for _ in range(4):
                before = service.spent()
                time.sleep(amount.seconds / 4)
                shares.append((service.spent() - before) / (amount.seconds / 4))
            print(f"| {title} | {100 * statistics.mean(shares):.2f} % |")
            service.end()
    print(f"\nOver {amount.seconds:g} s, after {SETTLING:g} s asleep; everything on.")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="bench.everything", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--only", choices=["pump", "wakes", "sleepers"])
    arguments = parser.parse_args()
    amount = QUICK if arguments.quick else FULL
    for each in (wakes, sleepers, pump):
        if arguments.only in (None, each.__name__):
            with tempfile.TemporaryDirectory(prefix="everything-") as directory:
                try:
                    each(Path(directory), amount)
                except Failed as failure:
                    raise SystemExit(f"bench: {failure}") from failure


if __name__ == "__main__":
    main()
