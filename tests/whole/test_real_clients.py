"""Real servers behind channels, and their real clients in front of them."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import socket
import subprocess
from pathlib import Path

import pytest
from jeepney import (  # type: ignore[import-untyped]  # it has no annotations
    DBusAddress,
    HeaderFields,
    MessageType,
    new_method_call,
    new_method_return,
)
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]  # likewise
from jeepney.io.blocking import (  # type: ignore[import-untyped]  # likewise
    DBusConnection,
    open_dbus_connection,
)

from chanproxy.interfaces import ChanproxyReactor
from support.live import listens
from support.ports import freePort
from tests.shared.running import Running, thread
from tests.shared.serving import answers, program, serving
from tests.shared.sides import asynchronous

SIZE = 100_000_000
IDLE = 'handled = "idle"\nsilence = 0.05'


# D-Bus.

ECHO = DBusAddress("/echo", "org.chanproxy.Echo", "org.chanproxy.Echo")


def serveBus(connection: DBusConnection, calls: int) -> None:
    """Write into the descriptor of each call, and give another one back."""
    for _ in range(calls):
        while True:
            call = connection.receive(timeout=20)
            if call.header.message_type is MessageType.method_call:
                break
        text, given = call.body
        with given.to_file("wb", buffering=0) as file:
            file.write(b"into " + text.encode())
        readEnd, writeEnd = os.pipe()
        os.write(writeEnd, b"out of " + text.encode())
        os.close(writeEnd)
        connection.send(new_method_return(call, "h", (readEnd,)))
        os.close(readEnd)


def callBus(connection: DBusConnection, calls: int) -> None:
    """Call with a descriptor, and read from both."""
    for number in range(calls):
        readEnd, writeEnd = os.pipe()
        call = new_method_call(ECHO, "Write", "sh", (f"call {number}", writeEnd))
        reply = connection.send_and_get_reply(call, timeout=20)
        os.close(writeEnd)
        with open(readEnd, "rb") as pipe:
            assert pipe.read() == b"into call %d" % number
        (back,) = reply.body
        with back.to_file("rb") as file:
            assert file.read() == b"out of call %d" % number


@asynchronous
async def test_dbus(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A session bus: names, large messages, method calls with descriptors both ways."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    command = (program("dbus-daemon"), "--session", "--nofork", "--nopidfile", "--nosyslog")
    with serving(answers(socket.AF_UNIX, str(inside)), *command, f"--address=unix:path={inside}"):
        running = Running(reactor, f"unix:{outside}", f"unix:{inside}")
        async with running:

            def connect() -> DBusConnection:
                return open_dbus_connection(
                    f"unix:path={outside}", enable_fds=True, auth_timeout=20
                )

            server, client = await thread(connect), await thread(connect)
            try:
                name = message_bus.RequestName(ECHO.bus_name)
                assert (await thread(server.send_and_get_reply, name)).body == (1,)
                served = thread(serveBus, server, 200)
                await thread(callBus, client, 200)
                await served
                # A message of a megabyte, which the bus answers with an error.
                large = new_method_call(message_bus, "NoSuchMethod", "s", ("x" * 1_000_000,))
                reply = await thread(client.send_and_get_reply, large)
                assert reply.header.message_type is MessageType.error
                assert HeaderFields.error_name in reply.header.fields
            finally:
                server.close()
                client.close()
            await running.ended()
            moved = [line for line in running.lines if "ended" in line]
            assert len(moved) == 2


# HTTP.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A large file, and what it hashes to."""
    directory = tmp_path_factory.mktemp("site")
    block = random.Random(5).randbytes(SIZE // 200).hex().encode()
    digest = hashlib.sha256()
    with open(directory / "large.txt", "wb") as file:
        for number in range(100):
            # Each block is another one, or a block twice would not be noticed.
            data = block[number:] + block[:number]
            file.write(data)
            digest.update(data)
    (directory / "small.txt").write_text("small")
    return directory, digest.hexdigest()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def download(connection: http.client.HTTPConnection, path: str) -> tuple[str, str | None]:
    """The hash of what is there, and how it was transferred."""
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    digest = hashlib.sha256()
    while piece := response.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest(), response.getheader("Transfer-Encoding")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@asynchronous
async def test_http(
    reactor: ChanproxyReactor, tmp_path: Path, site: tuple[Path, str], kind: str
) -> None:
    """On one connection that is kept alive: 100 MB plain and in chunks, and what comes after."""
    directory, digest = site
    port, outer = freePort(), freePort()
    place = f"unix:{tmp_path}/in" if kind == "unix" else f"127.0.0.1:{port}"
    temporary = "\n".join(
        f"{each}_temp_path {tmp_path}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;
        events {{ }}
        http {{
            {temporary}
            access_log off;
            server {{
                listen {place};
                root {directory};
                location /chunked/ {{ ssi on; ssi_types *; alias {directory}/; }}
            }}
        }}
        """
    )
    nginx = (
        program("nginx"),
        "-p",
        str(tmp_path),
        "-e",
        "stderr",
        "-c",
        str(tmp_path / "nginx.conf"),
    )
    where: tuple[int, object] = (
        (socket.AF_UNIX, f"{tmp_path}/in")
        if kind == "unix"
        else (socket.AF_INET, ("127.0.0.1", port))
    )
    with serving(answers(*where), *nginx):
        if kind == "unix":
            running = Running(reactor, f"unix:{tmp_path}/out", f"unix:{tmp_path}/in")
        else:
            running = Running(reactor, f"tcp:{outer}", f"tcp:localhost:{port}", IDLE)
        async with running:
            connection: http.client.HTTPConnection = (
                UnixConnection(tmp_path / "out")
                if kind == "unix"
                else http.client.HTTPConnection("127.0.0.1", outer, timeout=20)
            )
            try:
                for path, encoding in (("/large.txt", None), ("/chunked/large.txt", "chunked")):
                    assert await thread(download, connection, path) == (digest, encoding)
                small = hashlib.sha256(b"small").hexdigest()
                for _ in range(50):
                    assert await thread(download, connection, "/small.txt") == (small, None)
                # All on one.
                assert len(running.proxies) == 1
                await running.until(lambda: running.value() == 0)
            finally:
                connection.close()
            await running.ended()


# Redis.


@asynchronous
async def test_redis(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Its own benchmark through its Unix socket: 50 clients, pipelined; nothing is lost."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    server = (program("redis-server"), "--port", "0", "--unixsocket", str(inside))
    plain = ("--save", "", "--appendonly", "no", "--dir", str(tmp_path))
    with serving(answers(socket.AF_UNIX, str(inside)), *server, *plain):
        running = Running(reactor, f"unix:{outside}", f"unix:{inside}")
        async with running:

            def client(name: str, *arguments: str) -> str:
                done = subprocess.run(
                    [program(name), "-s", str(outside), *arguments],
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, done.stderr
                return done.stdout

            table = await thread(
                client,
                *("redis-benchmark", "-n", "20000", "-c", "50", "-P", "16", "--csv"),
                *("-t", "incr,lpush,lrange_300"),
            )
            tests = [line.split(",")[0].strip('"') for line in table.splitlines()[1:]]
            assert tests[:2] == ["INCR", "LPUSH"]
            assert tests[-1].startswith("LRANGE_300")
            # It counts itself what it was asked.
            assert (
                await thread(client, "redis-cli", "get", "counter:__rand_int__")
            ).strip() == "20000"
            await running.ended()


# Socat.


@pytest.mark.parametrize("outward", [False, True])
@asynchronous
async def test_socat(reactor: ChanproxyReactor, tmp_path: Path, outward: bool) -> None:
    """Packets from socat to socat, in either direction: all of them, then the end."""
    socat = program("socat")
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.write_bytes(random.Random(7).randbytes(20_000_000))
    inside, outside = tmp_path / "in", tmp_path / "out"
    listen, connect = f"UNIX-LISTEN:{inside},type=5", f"UNIX-CONNECT:{outside},type=5"
    size = ("-b", "8192")
    reading, writing = f"OPEN:{data},rdonly", f"CREATE:{copy}"
    server = (socat, "-u", *size, *((reading, listen) if outward else (listen, writing)))
    peer = (socat, "-u", *size, *((connect, writing) if outward else (reading, connect)))
    served = subprocess.Popen(server)
    try:
        running = Running(reactor, f"seqpacket:{outside}", f"seqpacket:{inside}")
        async with running:
            await running.until(lambda: listens(inside))
            done = await thread(subprocess.run, peer, -1, None, None, subprocess.PIPE)
            assert done.returncode == 0, done.stdout
            assert await thread(served.wait, 20) == 0
            assert copy.read_bytes() == data.read_bytes()
            await running.ended()
            packets = -(-data.stat().st_size // 8192)
            (line,) = [line for line in running.lines if "ended" in line]
            assert line.endswith(f"in {0 if outward else packets}, out {packets if outward else 0}")
    finally:
        served.kill()
        served.wait()
