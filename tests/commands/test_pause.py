"""
Paused containers, through the commands: real programs in real cgroups, and real peers.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import Live, LiveService, listens, until
from support.ports import freePort
from tests.shared.stage import PROGRAM, Stage

pytestmark = [
    pytest.mark.lasts(30),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


@pytest.fixture(params=["control", "http"])
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Asked in both ways; ended whatever happens."""
    with Stage(tmp_path, remote=request.param == "http") as made:
        yield made


def test_pause(stage: Stage) -> None:
    """It is stopped whatever comes; each command says so, and by whom; unpaused it answers."""
    assert stage.ask("pause", "web").startswith("web is paused; ")
    assert stage.web.frozen()
    # Who asks has to wait: nothing is lost.
    with socket.create_connection(("127.0.0.1", stage.port)) as asking:
        asking.sendall(b"hello")
        stage.ask("suspend", "web", status=1)
        refused = stage.ask("resume", "web", status=1)
        assert re.search(r"paused by .?chanproxy pause \(root\)", refused), refused
        assert "chanproxy unpause" in refused
        (row,) = stage.fields("ps", "web")
        assert (row["state"], row["paused_by"]) == ("asleep", "chanproxy pause (root)")
        assert re.search(r"(?m)^web +paused .*paused by chanproxy pause \(root\)$", stage.ask("ps"))
        said = stage.ask("why", "web")
        assert "It was paused by chanproxy pause (root) " in said
        assert "Nothing wakes it until it is unpaused (chanproxy unpause)" in said
        assert "socket" not in said
        assert stage.fields("why", "web")[0]["wakes_by"] == []
        asking.settimeout(0.3)
        with pytest.raises(TimeoutError):
            asking.recv(5)
        assert stage.web.frozen()
        assert stage.ask("unpause", "web") == "web is awake\n"
        asking.settimeout(60)
        assert asking.recv(5) == b"hello"
    assert stage.ask("unpause", "web") == "web was not paused\n"
    assert "web paused by chanproxy pause (root): it sleeps" in stage.log.read_text()
    assert "web awake: chanproxy unpause (root); slept " in stage.log.read_text()
    assert stage.fields("why", "web")[0]["paused_by"] == ""


def test_works(stage: Stage) -> None:
    """One that is at work is stopped all the same; and the end of the service ends its pause."""
    assert stage.fields("pause", "indexer") == [{"name": "indexer", "paused": True}]
    assert stage.indexer.frozen()
    (unpaused,) = stage.fields("unpause", "indexer")
    assert unpaused == {"name": "indexer", "paused": False, "was_paused": True}
    assert not stage.indexer.frozen()
    stage.ask("pause", "indexer")
    stage.end()
    assert not stage.indexer.frozen()


def test_killed(stage: Stage) -> None:
    """Nothing stays stopped that nobody would wake."""
    stage.ask("pause", "editor")
    assert stage.service is not None
    stage.service.send_signal(signal.SIGKILL)
    until("thawed", lambda: not stage.editor.frozen())


def test_top(stage: Stage) -> None:
    """A key pauses what is chosen, and the same one ends that."""
    with stage.screen("top", "--interval", "0.2") as screen:
        screen.shows("3 containers, ")
        screen.press("n")
        screen.until("in order", lambda frame: frame[2].startswith("editor"))
        screen.press("z")
        frame = screen.until("paused", lambda frame: re.match(r"editor +paused", frame[2]))
        assert "paused by chanproxy pause" in frame[2]
        assert stage.editor.frozen()
        screen.press("z")
        screen.until("awake", lambda frame: re.match(r"editor +awake", frame[2]))
        screen.press("q")
        assert screen.ended() == 0


class Web(LiveService):
    """
    A web server, and chanproxy in front of it: on C{tell} whoever comes while it is paused is told,
    on C{wait} one waits; on C{unix} likewise told, by a Unix socket.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.inside, self.tell, self.wait = freePort(), freePort(), freePort()
        self.unix = directory / "web.sock"
        self.cgroup = TemporaryCgroup()
        (directory / "index.html").write_text("hello")
        server = f"exec {sys.executable} -m http.server {self.inside} -b 127.0.0.1 2> {os.devnull}"
        self.server = self.cgroup.spawn(["sh", "-c", f"cd {directory} && {server}"])

    def start(self) -> None:
        """Run the service, until it listens."""
        lines = [
            f'control = "seqpacket:{self.control}"',
            "[containers.web]",
            f'freezer = "{self.cgroup.spec}"',
            'suspend = "manual"',
        ]
        for name, listen, more in (
            ("tell", f"tcp:{self.tell}", ""),
            ("wait", f"tcp:{self.wait}", 'when-paused = "wait"'),
            ("unix", f"unix:{self.unix}", 'descriptors = "refuse"'),
        ):
            lines += [f"[containers.web.channels.{name}]", f'listen = "{listen}"', more]
            lines += [f'connect = "tcp:127.0.0.1:{self.inside}"']
        (self.directory / "chanproxy.toml").write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", "chanproxy.toml")
        self.waitFor("listening", lambda: listens(self.control))
        until("an answer", lambda: self.ask(self.tell)[0] == 200)

    def ask(self, port: int) -> tuple[int, str]:
        """What a client of HTTP gets, and what it reads."""
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(asking):
            try:
                asking.request("GET", "/")
                answer = asking.getresponse()
                return answer.status, answer.read().decode()
            except (http.client.RemoteDisconnected, ConnectionResetError):
                return 0, ""

    def say(self, *words: str) -> str:
        """What a command says."""
        argv = [*PROGRAM, *words, "--socket", str(self.control)]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            self.cgroup.close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """In front of a server that answers."""
    with Web(tmp_path) as made:
        made.start()
        yield made


def test_toldInWords(web: Web) -> None:
    """Who speaks HTTP gets an answer, large requests too; unpaused, it is the container's again."""
    web.say("pause", "web")
    expected = 503, "web is paused, and answers when that is over.\n"
    assert web.ask(web.tell) == expected
    for path in (f"http://127.0.0.1:{web.tell}/", "http://localhost/"):
        unix = ["--unix-socket", str(web.unix)] if "localhost" in path else []
        argv = ["curl", "-sS", "-w", "%{http_code}", "--data-binary", "@-", *unix, path]
        done = subprocess.run(argv, input=b"x" * 200000, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == f"{expected[1]}503"
    assert web.cgroup.frozen()
    assert "web/tell: turned away: web is paused" in web.log.read_text()
    web.say("unpause", "web")
    assert web.ask(web.tell) == (200, "hello")
    web.end()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"GET", b"PING\r\n", b"X" * 9000])
def test_toldByItsEnd(web: Web, said: bytes) -> None:
    """Whoever speaks anything else, or says nothing, is not left waiting."""
    web.say("pause", "web")
    with socket.create_connection(("127.0.0.1", web.tell), timeout=10) as visitor:
        visitor.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert visitor.recv(100) == b""
    assert web.cgroup.frozen()


def test_waits(web: Web) -> None:
    """With when-paused = wait, whoever comes waits, and is answered when it is unpaused."""
    web.say("pause", "web")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(web.ask, web.wait)
        until("a peer", lambda: "web/wait#1: open" in web.log.read_text())
        assert web.cgroup.frozen()
        assert not asked.done()
        web.say("unpause", "web")
        assert asked.result(60) == (200, "hello")


def test_endsMeanwhile(web: Web) -> None:
    """A service that ends while somebody is being told leaves nobody waiting."""
    web.say("pause", "web")
    with socket.create_connection(("127.0.0.1", web.tell), timeout=60) as visitor:
        until("a peer", lambda: "turned away" in web.log.read_text())
        web.end()
        with contextlib.suppress(ConnectionResetError):
            assert visitor.recv(100) == b""
    assert not web.cgroup.frozen()


def test_packets(tmp_path: Path) -> None:
    """Packets of connections that stand wait; who comes new sees its end at once."""
    with Live(tmp_path) as live:
        live.accept()
        live.start()
        place = ["--socket", str(live.control), "echo"]
        with live.peer() as before:
            before.send(b"one")
            assert before.recv(10) == b"one"
            subprocess.run([*PROGRAM, "pause", *place], check=True, timeout=60)
            before.send(b"two")
            with live.peer() as visitor, contextlib.suppress(ConnectionResetError):
                assert visitor.recv(10) == b""
            before.settimeout(0.2)
            with pytest.raises(TimeoutError):
                before.recv(10)
            assert live.cgroup.frozen()
            subprocess.run([*PROGRAM, "unpause", *place], check=True, timeout=60)
            before.settimeout(60)
            assert before.recv(10) == b"two"
