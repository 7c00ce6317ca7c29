"""Servers as they are: each sleeps, and each request that comes meanwhile is answered, rightly."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import PATIENCE
from support.ports import freePort
from support.programs import CYCLES, Sleeper, answers, connect, get, running
from support.redisclient import Redis
from support.servers import NGINX
from tests.shared.needs import needs

pytestmark = pytest.mark.lasts(90)

LOAD_SECONDS = 8 if CYCLES <= 50 else 180
"""How long a load goes on and off."""


@contextmanager
def redis(directory: Path) -> Iterator[tuple[Sleeper, int]]:
    """A server that keeps nothing on disk, and its port."""
    port = freePort()
    argv = [get("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    argv += ["--dir", str(directory), "--logfile", str(directory / "redis.log")]
    with running(directory, argv, lambda: answers(port)) as sleeper:
        yield sleeper, port


@needs("redis-server")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
def test_redis(tmp_path: Path, kept: bool) -> None:
    """Over a connection that is kept, and over a new one each time."""
    with redis(tmp_path) as (sleeper, port), Redis(port) as client:

        def ask(number: int) -> None:
            if kept:
                assert client.call("INCR", "count") == number + 1
            else:
                with Redis(port) as other:
                    assert other.call("INCR", "count") == number + 1

        sleeper.cycles(ask)


@needs("redis-server")
def test_redisLoad(tmp_path: Path) -> None:
    """A load that goes on and off: what was written is there, once, in order."""
    chance = random.Random(1)
    with redis(tmp_path) as (sleeper, port), Redis(port) as first, Redis(port) as second:
        clients = [first, second]
        pushed, total = hashlib.sha256(), 0
        count = 0
        end = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < end:
            on = time.monotonic() + chance.uniform(0, 0.1)
            while True:
                client = chance.choice(clients)
                value = chance.randrange(1000)
                # Several in one packet, answered in order.
                client.send("RPUSH", "list", str(value))
                client.send("INCRBY", "sum", str(value))
                count, total = count + 1, total + value
                assert client.receive() == count
                assert client.receive() == total
                pushed.update(b"%d " % value)
                if time.monotonic() > on:
                    break
            # Its own tick has to be known again before it sleeps.
            time.sleep(chance.uniform(0, 1.5))
        found = first.call("LRANGE", "list", "0", "-1")
        assert isinstance(found, list)
        assert len(found) == count
        assert hashlib.sha256(b"".join(b"%s " % value for value in found)).digest() == (
            pushed.digest()
        )
        assert first.call("GET", "sum") == b"%d" % total
        assert sleeper.slept() >= LOAD_SECONDS / 8, sleeper.describe()


@needs("nginx")
def test_nginx(tmp_path: Path) -> None:
    """Two workers that accept on one socket; short answers, and a file by sendfile."""
    port = freePort()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(directory=tmp_path, user=user, port=port))
    (tmp_path / "files").mkdir()
    content = random.Random(2).randbytes(300_000)
    (tmp_path / "files" / "content").write_bytes(content)

    def ask(number: int) -> None:
        if number % 5:
            assert fetch(port, f"/echo/{number}") == b"/echo/%d" % number
        else:
            assert fetch(port, "/content") == content

    argv = [get("nginx"), "-p", str(tmp_path), "-c", str(configuration), "-e", "error.log"]
    with running(tmp_path, argv, lambda: answers(port)) as sleeper:
        sleeper.cycles(ask)


def fetch(port: int, path: str) -> bytes:
    """Get something over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read()
    finally:
        connection.close()


NODE = """
const server = require("http").createServer((request, response) => response.end(request.url));
// By default five seconds, which a loaded machine may need between two requests.
server.keepAliveTimeout = 600000;
server.listen(Number(process.argv[1]), "127.0.0.1");
"""


@needs("node")
def test_node(tmp_path: Path) -> None:
    """An event loop beside helper threads; every other request over a kept connection."""
    port = freePort()
    argv = [get("node"), "-e", NODE, str(port)]
    with running(tmp_path, argv, lambda: answers(port)) as sleeper:
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

        def ask(number: int) -> None:
            if number % 2:
                assert fetch(port, f"/{number}") == b"/%d" % number
                return
            kept.request("GET", f"/{number}")
            assert kept.getresponse().read() == b"/%d" % number

        try:
            sleeper.cycles(ask)
        finally:
            kept.close()


ASYNCIO = """
import asyncio, sys

async def serve(reader, writer):
    while line := await reader.readline():
        # A hand-over to a thread and back, and a timer.
        text = await asyncio.to_thread(line.upper)
        await asyncio.sleep(0.001)
        writer.write(text)
        await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


@needs()
def test_asyncio(tmp_path: Path) -> None:
    """An event loop with a pool of threads."""
    port = freePort()
    argv = [sys.executable, "-c", ASYNCIO, str(port)]
    with running(tmp_path, argv, lambda: answers(port)) as sleeper, connect(port) as kept:
        sleeper.cycles(lambda number: exchangeLine(port, kept, number))


def exchangeLine(port: int, kept: socket.socket, number: int) -> None:
    """Have a line turned to capitals, over a kept connection or a new one."""
    if number % 2:
        with connect(port) as fresh:
            _exchange(fresh, number)
    else:
        _exchange(kept, number)


def _exchange(connection: socket.socket, number: int) -> None:
    connection.sendall(b"line %d\n" % number)
    received = b""
    while not received.endswith(b"\n"):
        data = connection.recv(100)
        assert data, "closed"
        received += data
    assert received == b"LINE %d\n" % number


UDP = """
import socketserver, sys

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, server = self.request
        server.sendto(data[::-1], self.client_address)

with socketserver.UDPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


@needs()
def test_udp(tmp_path: Path) -> None:
    """Datagrams, none of which is sent twice; the server also looks around twice a second."""
    port = freePort(kind=socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))

        def exchange(text: bytes) -> None:
            client.settimeout(PATIENCE)
            client.send(text)
            assert client.recv(100) == text[::-1]

        def ready() -> bool:
            client.settimeout(0.1)
            try:
                client.send(b"ready")
                return client.recv(100) == b"ydaer"
            except (ConnectionRefusedError, TimeoutError):
                return False

        argv = [sys.executable, "-c", UDP, str(port)]
        with running(tmp_path, argv, ready) as sleeper:
            sleeper.cycles(lambda number: exchange(b"datagram %d" % number))


SHELL = """\
#!/bin/sh
if [ "$1" = serve ]; then
    while read -r line; do
        echo "$line" | tr a-z A-Z
    done
else
    socat "TCP-LISTEN:$1,bind=127.0.0.1,reuseaddr,fork" "EXEC:$0 serve"
fi
"""


@needs("socat")
def test_shell(tmp_path: Path) -> None:
    """Processes that come and go, wait for each other, and speak through pipes."""
    port = freePort()
    script = tmp_path / "serve.sh"
    script.write_text(SHELL)
    script.chmod(0o755)
    argv = [str(script), str(port)]
    with running(tmp_path, argv, lambda: answers(port)) as sleeper, connect(port) as kept:
        sleeper.cycles(lambda number: exchangeLine(port, kept, number))
