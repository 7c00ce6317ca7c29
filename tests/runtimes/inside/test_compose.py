"""The example of the README: a compose file with one label."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from support.places import EXAMPLES, ROOT
from support.runtimes import Runtime, until
from tests.runtimes.inside.test_discovered import Discovering, has, service

__all__ = ["service"]

pytestmark = pytest.mark.runtimes("docker")

OVERRIDE = """
services:
  web:
    volumes: ["/usr:/usr:ro"]
    command: ["/usr/bin/python3", "-m", "http.server", "80"]
    stop_signal: SIGKILL
"""
"""Nothing can be pulled here; what is called nginx is this machine's Python."""


COUNTS = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection(("db", 6379), 10) as peer:
            peer.sendall(b"INCR visits\\r\\n")
            visits = peer.recv(64).strip(b":\\r\\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(visits)
http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
"""

DATABASE = f"""
services:
  web:
    volumes: ["/usr:/usr:ro"]
    command: ["/usr/bin/python3", "-c", {json.dumps(COUNTS)}]
    stop_signal: SIGKILL
  db:
    volumes: ["/usr:/usr:ro"]
    command: ["/usr/bin/redis-server", "--protected-mode", "no", "--dir", "/tmp"]
"""


def made(runtime: Runtime, compose: str, override: str, *images: str) -> list[str]:
    """The command for a project of its own."""
    project = runtime.directory / "shop"
    project.mkdir(exist_ok=True)
    (project / "compose.yaml").write_text(compose)
    (project / "override.yaml").write_text(override)
    for each in images:
        runtime.command("tag", "image", each)
    files = [f"--file={project}/{name}.yaml" for name in ("compose", "override")]
    return ["docker-compose", "--project-name=shop", *files]


@pytest.fixture
def compose(runtime: Runtime) -> Iterator[list[str]]:
    """That of the README, which is gone at the end."""
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = (EXAMPLES / "compose.yaml").read_text().splitlines(keepends=True)
    assert shown == ["".join(line for line in lines if not line.startswith("#"))]
    argv = made(runtime, shown[0], OVERRIDE, "nginx")
    try:
        yield argv
    finally:
        runtime.do(*argv, "down", "--timeout=1")


@pytest.fixture
def database(runtime: Runtime) -> Iterator[list[str]]:
    """That with a database."""
    argv = made(
        runtime, (EXAMPLES / "compose-database.yaml").read_text(), DATABASE, "shop", "redis"
    )
    try:
        yield argv
    finally:
        runtime.do(*argv, "down", "--timeout=1")


def page() -> int:
    """Ask for the page."""
    return asked()[0]


def asked() -> tuple[int, bytes]:
    """Likewise, and what is on it."""
    with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=20) as answer:
        return int(answer.status), answer.read()


def test_compose(runtime: Runtime, service: Discovering, compose: list[str]) -> None:
    """It comes, sleeps, answers by its published port, is made anew, and goes."""
    runtime.do(*compose, "up", "--detach")
    has(service, ["shop_web_1"], "asleep")
    for _ in range(3):
        assert page() == 200
        has(service, ["shop_web_1"], "asleep")
    runtime.do(*compose, "up", "--detach", "--force-recreate", "--timeout=1")
    has(service, ["shop_web_1"], "asleep")
    assert page() == 200
    runtime.do(*compose, "restart", "--timeout=1")
    has(service, ["shop_web_1"], "asleep")
    runtime.do(*compose, "down", "--timeout=1")
    has(service, [])
    assert "left alone" not in service.log.read_text()
    assert "rror" not in service.log.read_text()


def test_database(runtime: Runtime, service: Discovering, database: list[str]) -> None:
    """One request wakes both, each time, and nothing of it is lost."""
    runtime.do(*database, "up", "--detach")
    both = ["shop_db_1", "shop_web_1"]
    has(service, both)
    until("its program", _counts)
    _, before = asked()
    for number in range(1, 6):
        has(service, both, "asleep")
        assert asked() == (200, b"%d" % (int(before) + number))


@pytest.mark.parametrize("service", ["by-project = true\n"], indirect=True)
def test_together(runtime: Runtime, service: Discovering, database: list[str]) -> None:
    """With one more line for all projects, who wakes the one wakes the other, in one turn."""
    runtime.do(*database, "up", "--detach")
    both = ["shop_db_1", "shop_web_1"]
    has(service, both)
    until("its program", _counts)
    has(service, both, "asleep")
    chanproxy = [sys.executable, "-m", "chanproxy"]
    where = ["shop_web_1", "--socket", str(service.control)]
    subprocess.run([*chanproxy, "resume", *where], check=True, stdout=subprocess.DEVNULL)
    until("a wake", lambda: "shop_db_1 awake: group docker:shop" in service.log.read_text())


def _counts() -> bool:
    try:
        return asked()[0] == 200
    except OSError:
        return False
