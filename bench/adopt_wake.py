"""
What a wake by a program's own sockets takes: C{python -m bench.adopt_wake [--quick]}.

Each cycle waits until the container sleeps, sends a request, and takes the time to its answer; then
another one 10 ms later, while the container is still awake.  Beside it the cold start that
systemd-socket-proxyd stands for: nothing runs until the first connection.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from support.ports import freePort
from support.programs import Sleeper, answers, get, running
from support.redisclient import Redis
from support.servers import NGINX

PROXYD = "/lib/systemd/systemd-socket-proxyd"

PAUSE = 0.01
"""Seconds between an answer and the next request, to a container that is awake."""

LINGER = 0.05

ACTIVATOR = """
import os, select, socket, subprocess, sys, time

port, proxyd, *redis = sys.argv[1:]
listening = socket.create_server(("127.0.0.1", 0), backlog=16)
print(listening.getsockname()[1], flush=True)
select.select([listening], [], [])
server = subprocess.Popen(redis, stdout=subprocess.DEVNULL)
while True:
    try:
        socket.create_connection(("127.0.0.1", int(port))).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.0005)
proxy = os.fork()
if not proxy:
    os.dup2(listening.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execv(proxyd, [proxyd, f"127.0.0.1:{port}"])
sys.stdin.readline()
os.kill(proxy, 15)
os.waitpid(proxy, 0)
server.terminate()
server.wait()
"""
"""What systemd does for a socket unit whose proxy requires redis, in the same order."""


class Times:
    """One row."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.asleep: list[float] = []
        self.awake: list[float] = []

    def __str__(self) -> str:
        awake, asleep = statistics.median(self.awake), statistics.median(self.asleep)
        return (
            f"| {self.what} | {awake:.2f} ms | {asleep:.2f} ms | {_p99(self.asleep):.2f} ms "
            f"| {asleep - awake:.2f} ms | {len(self.asleep)} |"
        )


def _p99(values: list[float]) -> float:
    return sorted(values)[min(int(len(values) * 0.99), len(values) - 1)]


def milliseconds(ask: Callable[[], object]) -> float:
    """One request and its answer."""
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1000


def adopt(what: str, sleeper: Sleeper, ask: Callable[[], object], cycles: int) -> None:
    """A row of a container that sleeps by its own sockets."""
    times = Times(what)
    before = sleeper.slept()
    for _ in range(cycles):
        sleeper.waitAsleep()
        time.sleep(0.005)
        times.asleep.append(milliseconds(ask))
        time.sleep(PAUSE)
        times.awake.append(milliseconds(ask))
    assert sleeper.slept() - before == cycles, "it did not sleep before each request"
    print(times, flush=True)


class RawRedis:
    """PING over a socket, with nothing else that takes time."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self._address = address
        self._kept = self._connect()

    def _connect(self) -> socket.socket:
        family = socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.connect(self._address)
        return connection

    def kept(self) -> None:
        """Over the connection that stays."""
        self._kept.sendall(b"PING\r\n")
        assert self._kept.recv(64) == b"+PONG\r\n"

    def new(self) -> None:
        """Over another one."""
        with self._connect() as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(64) == b"+PONG\r\n"


def redis(cycles: int) -> None:
    """Redis over TCP and over its Unix socket."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, path = freePort(), directory / "redis.sock"
        argv = [get("redis-server"), "--port", str(port), "--save", "", "--dir", str(directory)]
        argv += ["--unixsocket", str(path), "--logfile", str(directory / "redis.log")]
        container = running(directory, argv, lambda: answers(port), linger=LINGER)
        sleeper = stack.enter_context(container)
        over = {"TCP": RawRedis(("127.0.0.1", port)), "Unix socket": RawRedis(str(path))}
        for name, client in over.items():
            adopt(f"redis, {name}, connection kept", sleeper, client.kept, cycles)
            adopt(f"redis, {name}, new connection", sleeper, client.new, cycles)


def channel(cycles: int) -> None:
    """Redis behind a channel, which carries and counts what goes over its Unix socket."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        inside, outside = directory / "redis.sock", directory / "outside.sock"
        argv = [get("redis-server"), "--port", "0", "--save", "", "--dir", str(directory)]
        argv += ["--unixsocket", str(inside), "--logfile", str(directory / "redis.log")]
        tables = f"""
[containers.it.channels.redis]
listen = "unix:{outside}"
connect = "unix:{inside}"
handled = "answered"
"""
        container = running(directory, argv, inside.exists, tables, linger=LINGER)
        sleeper = stack.enter_context(container)
        client = RawRedis(str(outside))
        adopt("redis, Unix socket through a channel, kept", sleeper, client.kept, cycles)
        adopt("redis, Unix socket through a channel, new connection", sleeper, client.new, cycles)


def nginx(cycles: int) -> None:
    """Nginx with two workers, a connection for each request."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = freePort()
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=directory, user=user, port=port))
        argv = [get("nginx"), "-p", str(directory), "-c", str(configuration), "-e", "error.log"]
        container = running(directory, argv, lambda: answers(port), linger=LINGER)
        sleeper = stack.enter_context(container)

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET /echo/1 HTTP/1.0\r\n\r\n")
                received = b""
                while data := connection.recv(65536):
                    received += data
                assert received.endswith(b"/echo/1")

        adopt("nginx, TCP, new connection", sleeper, ask, cycles)


def proxyd(cycles: int) -> None:
    """Redis that is started for the first connection, behind systemd-socket-proxyd."""
    times = Times("redis stopped, started behind systemd-socket-proxyd, new connection")
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(cycles):
            inner = freePort()
            server = [get("redis-server"), "--port", str(inner), "--save", "", "--dir", directory]
            with subprocess.Popen(
                [sys.executable, "-c", ACTIVATOR, str(inner), PROXYD, *server],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as activator:
                assert activator.stdout is not None
                port = int(activator.stdout.readline())

                def ask(port: int = port) -> None:
                    with Redis(port) as client:
                        assert client.call("PING") == b"PONG"

                try:
                    times.asleep.append(milliseconds(ask))
                    for _ in range(5):
                        time.sleep(PAUSE)
                        times.awake.append(milliseconds(ask))
                finally:
                    activator.communicate(b"\n")
            assert activator.returncode == 0
    print(times, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cycles only")
    options = parser.parse_args()
    cycles = 20 if options.quick else 300
    load = os.getloadavg()[0]
    print(f"Load average {load:.2f} at the start.\n")
    print("| | awake, median | asleep, median | asleep, p99 | added, median | cycles |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    redis(cycles)
    nginx(cycles)
    channel(cycles)
    if os.path.exists(PROXYD):
        proxyd(3 if options.quick else 30)
    else:
        print(f"| redis stopped, started behind systemd-socket-proxyd | no {PROXYD} | | | | |")
    print(f"\nLoad average {os.getloadavg()[0]:.2f} at the end.")


if __name__ == "__main__":
    main()
