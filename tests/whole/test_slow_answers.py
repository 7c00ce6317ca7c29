"""
A handler that takes long, behind a channel with all defaults, in a container that is really frozen.

The same program without chanproxy answers in just the time that the handler takes.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup
from support.live import LiveService, until
from support.ports import freePort
from tests.shared.needs import needs

pytestmark = [pytest.mark.lasts(90), pytest.mark.punctual]

HANDLER = 3.0
LATE = 0.5
"""Seconds, beside what the service has to wait for a processor; see L{Three.late}."""

# Each connection has a thread; of lines that come at once, each is handled after the other.
SERVER = """
import socket, sys, threading, time
family, kind, address = eval(sys.argv[1])
listening = socket.socket(family, kind)
listening.bind(address)
listening.listen()
print(listening.getsockname()[-1], flush=True)
def serve(connection):
    rest = b""
    while data := connection.recv(1000):
        rest += data
        while b"\\n" in rest:
            line, _, rest = rest.partition(b"\\n")
            word, _, seconds = line.partition(b" ")
            if word == b"parts":
                for _ in range(10):
                    connection.sendall(b"part\\n")
                    time.sleep(float(seconds))
            if word == b"large":
                for _ in range(int(seconds)):
                    connection.sendall(bytes(10000))
            if word == b"handle":
                time.sleep(float(seconds))
                connection.sendall(line + b"\\n")
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""

KINDS = {"unix": "unix", "tcp": "tcp", "packets": "seqpacket"}


class Three(LiveService):
    """The server three times, each behind a channel of another kind."""

    def __init__(self, directory: Path, stack: ExitStack, keys: str = "") -> None:
        super().__init__(directory)
        self.cgroups: dict[str, TemporaryCgroup] = {}
        self.addresses: dict[str, tuple[int, int, object]] = {}
        lines = []
        for name, scheme in KINDS.items():
            kind = socket.SOCK_SEQPACKET if name == "packets" else socket.SOCK_STREAM
            if name == "tcp":
                family, port = socket.AF_INET, freePort()
                inner: object = ("127.0.0.1", 0)
                self.addresses[name] = (family, kind, ("127.0.0.1", port))
            else:
                family, inner = socket.AF_UNIX, f"{directory}/{name}.in"
                self.addresses[name] = (family, kind, f"{directory}/{name}.out")
            cgroup = self.cgroups[name] = TemporaryCgroup()
            stack.callback(cgroup.close)
            place = repr((int(family), int(kind), inner))
            server = cgroup.spawn([sys.executable, "-c", SERVER, place], stdout=subprocess.PIPE)
            assert server.stdout is not None
            bound = server.stdout.readline().decode().strip()
            ends = f"{directory}/{name}.out", f"{directory}/{name}.in"
            if name == "tcp":
                ends = str(port), f"127.0.0.1:{bound}"
            lines += [
                f'[containers.{name}]\nfreezer = "{cgroup.spec}"',
                f'[containers.{name}.channels.c]\nlisten = "{scheme}:{ends[0]}"',
                f'connect = "{scheme}:{ends[1]}"\n{keys}',
            ]
        file = directory / "chanproxy.toml"
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        stack.enter_context(self)

    def peer(self, name: str) -> socket.socket:
        """A connection from outside."""
        family, kind, address = self.addresses[name]
        made = socket.socket(family, kind)
        made.settimeout(20)

        def connected() -> bool:
            return made.connect_ex(address) == 0  # type: ignore[arg-type]  # as the family wants

        self.waitFor(f"connecting to {name}", connected)
        return made

    def waitFrozen(self, name: str, patience: float = 20.0) -> float:
        """Until the kernel says so; how long that took."""
        since = time.monotonic()
        until(f"{name} is frozen", self.cgroups[name].frozen, patience)
        return time.monotonic() - since

    def late(self, before: float) -> float:
        """How late an answer may be. @param before: what L{waited} was at the request."""
        return LATE + self.waited() - before

    def each(self, check: Callable[[str], None]) -> None:
        """All three at a time, for it takes long."""
        with ThreadPoolExecutor(len(KINDS)) as pool:
            for future in [pool.submit(check, name) for name in KINDS]:
                future.result()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes in reverse order."""
    with ExitStack() as made:
        yield made


def exchange(peer: socket.socket, requests: bytes, answers: int) -> list[float]:
    """Send it, and say after which times the answers were there."""
    since, got, when = time.monotonic(), 0, []
    peer.sendall(requests)
    while got < answers:
        count = peer.recv(1000).count(b"\n")
        assert count
        got += count
        when += [time.monotonic() - since] * count
    return when


@needs()
def test_slowHandler(tmp_path: Path, stack: ExitStack) -> None:
    """Asleep before, awake until it has answered, however often, asleep afterwards."""
    three = Three(tmp_path, stack)

    def check(name: str) -> None:
        with three.peer(name) as peer:
            for _ in range(2):
                three.waitFrozen(name)
                before = three.waited()
                (took,) = exchange(peer, b"handle %f\n" % HANDLER, 1)
                assert HANDLER <= took <= HANDLER + three.late(before), (name, took)
            # What was quick is asleep again after the linger time.
            three.waitFrozen(name)
            exchange(peer, b"handle 0\n", 1)
            assert three.waitFrozen(name) < 2
        # And on a new connection, whose other direction is shut at once.
        three.waitFrozen(name)
        with three.peer(name) as peer:
            three.waitFrozen(name)
            before, since = three.waited(), time.monotonic()
            peer.sendall(b"handle 2\n")
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(100) == b"handle 2\n"
            assert time.monotonic() - since <= 2 + three.late(before)

    three.each(check)


@needs()
def test_severalAtOnce(tmp_path: Path, stack: ExitStack) -> None:
    """Requests that are sent at once, or before the answer to the last: each answer in time."""
    three = Three(tmp_path, stack)

    def check(name: str) -> None:
        with three.peer(name) as peer:
            three.waitFrozen(name)
            before = three.waited()
            for number, took in enumerate(exchange(peer, b"handle 1\n" * 3, 3), 1):
                assert number <= took <= number + three.late(before), (name, took)
            three.waitFrozen(name)
            before, since = three.waited(), time.monotonic()
            peer.sendall(b"handle 1\n")
            time.sleep(0.1)
            gap = time.monotonic() - since
            for number, took in enumerate(exchange(peer, b"handle 1\n", 2), 1):
                late = gap + took
                assert number <= late <= number + three.late(before), (name, late)
            three.waitFrozen(name)

    three.each(check)


@needs()
def test_inParts(tmp_path: Path, stack: ExitStack) -> None:
    """An answer that comes in parts is not stopped in between; who sends is not idle."""
    three = Three(tmp_path, stack)

    def check(name: str) -> None:
        with three.peer(name) as peer:
            three.waitFrozen(name)
            before = three.waited()
            when = exchange(peer, b"parts 0.3\n", 10)
            assert 2.7 <= when[-1] <= 2.7 + three.late(before), (name, when)
            three.waitFrozen(name)

    three.each(check)


@needs()
def test_slowReader(tmp_path: Path, stack: ExitStack) -> None:
    """A long answer to one who reads it slowly: asleep while nobody takes it, then it goes on."""
    three = Three(tmp_path, stack)

    def check(name: str) -> None:
        with three.peer(name) as peer:
            three.waitFrozen(name)
            pieces = 2000
            peer.sendall(b"large %d\n" % pieces)
            until("woken", lambda: not three.cgroups[name].frozen())
            left = pieces * 10000
            for amount in (left // 3, left // 3, left):
                three.waitFrozen(name)
                stop = max(left - amount, 0)
                while left > stop:
                    got = len(peer.recv(min(left, 100_000)))
                    assert got
                    left -= got
            three.waitFrozen(name)

    three.each(check)


@needs()
def test_oneWay(tmp_path: Path, stack: ExitStack) -> None:
    """With the defaults, what is never answered is waited for once; then it sleeps in between."""
    three = Three(tmp_path, stack)

    def check(name: str) -> None:
        with three.peer(name) as peer:
            three.waitFrozen(name)
            peer.sendall(b"note\n")
            until("woken", lambda: not three.cgroups[name].frozen())
            assert 29 < three.waitFrozen(name, 40) < 36
            for _ in range(3):
                peer.sendall(b"note\n")
                until("woken", lambda: not three.cgroups[name].frozen())
                assert three.waitFrozen(name) < 2
            # When it does answer, it is waited for again.
            (took,) = exchange(peer, b"handle 0\n", 1)
            three.waitFrozen(name)
            before = three.waited()
            (took,) = exchange(peer, b"handle 2\n", 1)
            assert 2 <= took <= 2 + three.late(before)

    three.each(check)


@needs()
def test_unansweredIsSet(tmp_path: Path, stack: ExitStack) -> None:
    """C{unanswered = 0} waits for no answer, as C{consumed}."""
    three = Three(tmp_path, stack, "unanswered = 0")

    def check(name: str) -> None:
        with three.peer(name) as peer:
            three.waitFrozen(name)
            peer.sendall(b"handle 4\n")
            until("woken", lambda: not three.cgroups[name].frozen())
            assert three.waitFrozen(name) < 2

    three.each(check)
