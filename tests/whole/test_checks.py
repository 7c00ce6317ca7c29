"""Checks that wake nobody: a real web server in a real cgroup, and curl."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import LiveService, listens, until
from support.ports import freePort

pytestmark = [
    pytest.mark.lasts(20),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

SERVER = """
import http.server, sys
counts = {}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = self.path.partition("?")[0]
        counts[path] = counts.get(path, 0) + 1
        body = b"%d" % counts[path]
        if path == "/health/large":
            body *= 100000
        self.send_response(503 if path == "/health/ill" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Said", self.headers.get("X-Says", ""))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Web(LiveService):
    """The server, and channels to it that take requests for one path as checks."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.inside = freePort()
        self.ports = {name: freePort() for name in ("health", "ill", "large", "connect")}
        self.cgroup = TemporaryCgroup()
        self.server = self.cgroup.spawn([sys.executable, "-c", SERVER, str(self.inside)])

    def start(self) -> None:
        """Run the service, until it listens, and the server answers."""
        lines = [
            f'control = "seqpacket:{self.control}"',
            "[containers.web]",
            f'freezer = "{self.cgroup.spec}"',
            "linger = 0.1",
        ]
        checks = {"ill": "/health/ill", "large": "/health/large", "connect": "connect"}
        for name, port in self.ports.items():
            lines += [f"[containers.web.channels.{name}]", f'listen = "tcp:{port}"']
            lines += [f'checks = "{checks.get(name, "/health")}"', 'handled = "answered"']
            lines += [f'connect = "tcp:127.0.0.1:{self.inside}"']
        (self.directory / "chanproxy.toml").write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", "chanproxy.toml")
        self.waitFor("listening", lambda: listens(self.control))
        until("an answer", self.answers)

    def answers(self) -> bool:
        """Whether the server does, by itself."""
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.inside), 10).close()
            return True
        return False

    def asleep(self) -> None:
        """Until it is."""
        until("asleep", self.cgroup.frozen)

    @property
    def slept(self) -> int:
        """How often it has been woken."""
        argv = [sys.executable, "-m", "chanproxy", "call", "--socket", str(self.control)]
        done = subprocess.run([*argv, "Describe", "container=web"], check=True, capture_output=True)
        return int(json.loads(done.stdout)["description"]["statistics"]["success_count"])

    def ask(self, path: str, channel: str = "health", method: str = "GET") -> tuple[int, str, str]:
        """The status, what it says, and by whom."""
        asking = http.client.HTTPConnection("127.0.0.1", self.ports[channel], timeout=60)
        with contextlib.closing(asking):
            asking.request(method, path, headers={"X-Says": "this"})
            answer = asking.getresponse()
            body = answer.read().decode()
            assert answer.getheader("X-Said") == "this"
            return answer.status, body, answer.getheader("X-Chanproxy", "the server")

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            self.cgroup.close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """It runs."""
    with Web(tmp_path) as made:
        made.start()
        yield made


def test_sleepsOn(web: Web) -> None:
    """It is asked once at each wake, and sleeps on for all others; each path has its own answer."""
    web.asleep()
    assert web.ask("/health") == (200, "1", "the server")
    web.asleep()
    before = web.slept
    for _ in range(10):
        assert web.ask("/health") == (200, "1", "asleep")
        assert web.cgroup.frozen()
    url = f"http://127.0.0.1:{web.ports['health']}/health"
    curl = subprocess.run(["curl", "-sSi", "-H", "X-Says: this", url], capture_output=True)
    assert re.match(rb"HTTP/1.1 200 OK\r\n", curl.stdout)
    assert b"\r\nX-Chanproxy: asleep\r\n" in curl.stdout
    assert curl.stdout.endswith(b"\r\n\r\n1")
    assert web.slept == before
    # What is no check wakes it; and then it is asked once more.
    assert web.ask("/") == (200, "1", "the server")
    web.asleep()
    assert web.ask("/health") == (200, "2", "the server")
    assert web.ask("/health?more") == (200, "3", "the server")
    assert web.ask("/health", method="HEAD") == (200, "", "the server")
    web.asleep()
    before = web.slept
    assert web.ask("/health") == (200, "2", "asleep")
    assert web.ask("/health?more") == (200, "3", "asleep")
    assert web.ask("/health", method="HEAD") == (200, "", "asleep")
    assert web.slept == before
    web.end()


def test_busy(web: Web) -> None:
    """While it has something else to do it is asked each time; when it only lingers, it is not."""
    with socket.create_connection(("127.0.0.1", web.ports["health"]), 60) as peer:
        # Half a request: it is to read the rest.
        peer.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n")
        until("a wake", lambda: "web/health#1: open" in web.log.read_text())
        assert web.ask("/health")[1:] == ("1", "the server")
        assert web.ask("/health")[1:] == ("2", "the server")
        peer.sendall(b"Host: x\r\n\r\nhello")
        peer.settimeout(60)
        assert peer.recv(100).startswith(b"HTTP/1.1 501 ")
    web.asleep()
    assert web.ask("/health")[1:] == ("2", "asleep")


def test_ill(web: Web) -> None:
    """Bad news is never said twice: whoever asks again is told by the server itself."""
    for number in (1, 2, 3):
        web.asleep()
        assert web.ask("/health/ill", "ill") == (503, str(number), "the server")


def test_large(web: Web) -> None:
    """What is larger than an answer to that is carried as any other."""
    for number in (1, 2):
        web.asleep()
        status, body, who = web.ask("/health/large", "large")
        assert (status, len(body), who) == (200, 100000, "the server")
        # It was asked in vain before that.
        assert set(body) == {str(2 * number)}


@pytest.mark.parametrize("channel", ["connect", "health"])
def test_connects(web: Web, channel: str) -> None:
    """Who only looks whether somebody listens wakes nobody; who speaks late is answered."""
    web.asleep()
    before = web.slept
    for _ in range(10):
        socket.create_connection(("127.0.0.1", web.ports[channel]), 60).close()
    with socket.create_connection(("127.0.0.1", web.ports[channel]), 60) as peer:
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
    assert (web.slept, web.cgroup.frozen()) == (before, True)
    with socket.create_connection(("127.0.0.1", web.ports[channel]), 60) as peer:
        until("a wake", lambda: f"web/{channel}#1: open" in web.log.read_text())
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 200 ")


REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Says: this\r\n"

SAID = [
    # In pieces, which is a check; with another one behind it, or as something else, which is none.
    ([REQUEST[:6], REQUEST[6:30], REQUEST[30:] + b"\r\n"], b"HTTP/1.1 200 OK", True),
    ([REQUEST + b"\r\n" + REQUEST + b"Connection: close\r\n\r\n"], b"HTTP/1.1 200 OK", False),
    ([b"PUT /health HTTP/1.1\r\nHost: x\r\n\r\n"], b"HTTP/1.1 501 ", False),
    ([b"GET /health HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"], b"HTTP/1.1 200 OK", False),
    ([b"GET /healthy HTTP/1.0\r\n\r\n"], b"HTTP/1.1 200 OK", False),
    ([b"\x16\x03\x01rubbish\r\n\r\n"], b"Error code: 400", False),
    ([b"G" * 9000 + b"\r\n\r\n"], b"Error code: 400", False),
    ([REQUEST + b"X: " + b"x" * 9000, b"\r\n\r\n"], b"HTTP/1.1 200 OK", False),
]


@pytest.mark.parametrize(("pieces", "answer", "isCheck"), SAID)
def test_said(web: Web, pieces: list[bytes], answer: bytes, isCheck: bool) -> None:
    """All that is no check gets to the server as it was said, and to nobody else."""
    web.asleep()
    web.ask("/health")
    web.asleep()
    before = web.slept
    with socket.create_connection(("127.0.0.1", web.ports["health"]), 60) as peer:
        for piece in pieces:
            peer.sendall(piece)
            time.sleep(0.03)
        peer.settimeout(60)
        wanted = sum(piece.count(REQUEST) for piece in pieces) or 1
        text = b""
        while text.count(answer) < wanted and (more := peer.recv(65536)):
            text += more
        assert text.count(answer) == wanted, text
        assert (b"X-Chanproxy" in text) == isCheck
    assert (web.slept == before) == isCheck


def test_serverAway(web: Web) -> None:
    """When the server does not answer, it is said as of any other connection."""
    web.asleep()
    web.server.kill()
    web.server.wait()
    with pytest.raises((http.client.HTTPException, OSError)):
        web.ask("/health")
    assert "connection closed" in web.log.read_text()
    with socket.create_connection(("127.0.0.1", web.ports["health"]), 60) as peer:
        web.end()
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
