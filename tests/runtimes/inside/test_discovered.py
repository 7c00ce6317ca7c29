"""
Containers that are found by their labels, and reached by their names, whatever becomes of them.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.arena import KIND
from support.live import LiveService, listens
from support.runtimes import PORT, Docker, Podman, Runtime, until

pytestmark = pytest.mark.runtimes("docker", "podman")

# It says who it is, so that two of them are not taken for each other.
ANSWERS = f"""
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = socket.create_server(("0.0.0.0", {PORT}))
while True:
    connection, _ = server.accept()
    connection.sendall(sys.argv[1].encode() + b" " + connection.recv(64))
    connection.close()
"""

SELF = {
    "chanproxy.channels.web.connect": f"self:{PORT}",
    "chanproxy.channels.web.handled": "answered",
}


class Discovering(LiveService):
    """
    A service that has no container in its file.

    @ivar settings: lines of the table of its engine.
    """

    settings = ""

    def start(self) -> None:
        """Until it listens."""
        file = self.directory / "chanproxy.toml"
        file.write_text(
            f'control = "seqpacket:{self.control}"\n[discovery.{KIND}]\n{self.settings}'
        )
        self.service = self.run("--config", str(file))
        self.waitFor("listening", lambda: listens(self.control))


class Some:
    """Containers of one runtime that are gone at the end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.names: list[str] = []

    def run(self, name: str, labels: dict[str, str], *options: str, does: str = ANSWERS) -> None:
        """One more."""
        self.names.append(name)
        said = [f"--label={key}={value}" for key, value in labels.items()]
        words = ["--detach", f"--name={name}", "--volume=/usr:/usr:ro", *said, *options]
        program = ["/usr/bin/python3", "-c", does, name]
        self.runtime.command("run", *words, "image", *program)

    def remove(self, name: str) -> None:
        """It is gone."""
        self.names.remove(name)
        self.runtime.command("rm", "--force", name)


@pytest.fixture
def some(runtime: Runtime) -> Iterator[Some]:
    """None yet."""
    assert isinstance(runtime, (Docker, Podman))
    made = Some(runtime)
    try:
        yield made
    finally:
        for name in list(made.names):
            made.remove(name)


@pytest.fixture
def service(place: Path, request: pytest.FixtureRequest) -> Iterator[Discovering]:
    """One that runs; it may be given settings."""
    with Discovering(place) as made:
        made.settings = getattr(request, "param", "")
        made.start()
        yield made


def states(service: Discovering) -> dict[str, str]:
    """Of all containers."""
    argv = [sys.executable, "-m", "chanproxy", "call", "--socket", str(service.control)]
    done = subprocess.run([*argv, "ListContainers"], stdout=subprocess.PIPE, check=True)
    return {each["name"]: each["state"] for each in json.loads(done.stdout)["containers"]}


def ps(service: Discovering, *words: str) -> str:
    """The rows of all containers."""
    argv = [sys.executable, "-m", "chanproxy", "ps", "--socket", str(service.control), *words]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout.decode()


def ask(port: int, text: bytes = b"hello") -> bytes:
    """Ask whoever answers there."""
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(text)
        return peer.recv(64)


def has(service: Discovering, names: Sequence[str], state: str = "") -> None:
    """Until it has these, and no other."""
    wanted = dict.fromkeys(names, state)

    def there() -> bool:
        found = states(service)
        return (found == wanted) if state else (found.keys() == wanted.keys())

    until(f"{', '.join(names) or 'none'} {state}", there)


def test_oneLabel(some: Some, service: Discovering) -> None:
    """That is enough to sleep, for as long as it is there; who has none is left alone."""
    some.run("plain", {"chanproxy.linger": "0.05"}, "--network=none")
    enable = {"chanproxy.enable": "true", "chanproxy.linger": "0.05", "chanproxy.short-sleep": "0"}
    some.run("web", enable, "--network=none")
    has(service, ["web"], "asleep")
    some.runtime.command("stop", "--time=5", "web")
    has(service, ["web"], "awake")
    some.runtime.command("start", "web")
    has(service, ["web"], "asleep")
    some.runtime.command("rename", "web", "web2")
    some.names[:] = ["plain", "web2"]
    has(service, ["web2"], "asleep")
    some.remove("web2")
    has(service, [])
    # Before the service is there, and after it is away.
    service.end()
    some.run("web", enable, "--network=none")
    service.start()
    has(service, ["web"], "asleep")


def test_wrongLabel(some: Some, service: Discovering) -> None:
    """It is named in the log, and nobody else is touched."""
    some.run("bad", {"chanproxy.enable": "true", "chanproxy.lingr": "30s"}, "--network=none")
    some.run("good", {"chanproxy.enable": "true", "chanproxy.linger": "0.05"}, "--network=none")
    has(service, ["good"], "asleep")
    said = f"bad of {KIND} is left alone: chanproxy.lingr: is not known; did you mean linger?"
    until("said", lambda: said in service.log.read_text())
    wrong = "chanproxy.lingr: is not known; did you mean linger?"
    (row,) = [" ".join(line.split()) for line in ps(service).splitlines() if "bad" in line]
    assert row == f"bad left alone of {KIND}: {wrong}"
    (line,) = [line for line in ps(service, "--json").splitlines() if '"bad"' in line]
    assert json.loads(line) == {
        "name": "bad",
        "state": "left_alone",
        "engine": KIND,
        "why": wrong,
    }
    # Who asks for others has no use for it.
    assert "bad" not in ps(service, "good")
    some.remove("bad")
    some.run("bad", {"chanproxy.enable": "true", "chanproxy.linger": "0.05"}, "--network=none")
    has(service, ["bad", "good"], "asleep")
    assert service.log.read_text().count("is left alone") == 1


def test_channel(some: Some, service: Discovering) -> None:
    """It is reached where it is at the time, also when another one has had its address since."""
    labels = {"chanproxy.enable": "true", "chanproxy.linger": "0.05", **SELF}
    some.run("web", {**labels, "chanproxy.channels.web.listen": "tcp:7100"})
    has(service, ["web"], "asleep")
    for _ in range(5):
        assert ask(7100) == b"web hello"
        has(service, ["web"], "asleep")
    some.runtime.command("stop", "--time=5", "web")
    # It has the address that the other one has left.
    some.run("other", {})
    some.runtime.command("start", "web")
    until("its program", lambda: _answers(7100))
    has(service, ["web"], "asleep")
    assert ask(7100) == b"web hello"
    # Anew, with another label.
    some.remove("web")
    some.run("web", {**labels, "chanproxy.channels.web.listen": "tcp:7101"})
    until("its program", lambda: _answers(7101))
    assert not _answers(7100)
    service.end(signal.SIGTERM)


def _answers(port: int, who: str = "web") -> bool:
    try:
        return ask(port) == f"{who} hello".encode()
    except OSError:
        return False


def test_addresses(some: Some, service: Discovering) -> None:
    """By whatever network it has; and who has none is told what to do."""
    on = {"chanproxy.enable": "true", "chanproxy.linger": "3600", **SELF}
    some.run("hosted", {**on, "chanproxy.channels.web.listen": "tcp:7102"}, "--network=host")
    has(service, ["hosted"])
    until("its program", lambda: _answers(7102, "hosted"))
    some.remove("hosted")
    some.run("base", {}, does="import signal; signal.pause()")
    sharing = {**on, "chanproxy.channels.web.listen": "tcp:7103"}
    some.run("sharing", sharing, "--network=container:base")
    has(service, ["sharing"])
    until("its program", lambda: _answers(7103, "sharing"))
    some.remove("sharing")
    some.run("none", {**on, "chanproxy.channels.web.listen": "tcp:7104"}, "--network=none")
    has(service, ["none"])
    assert not _answers(7104, "none")
    until("said", lambda: f"publish its port {PORT}" in service.log.read_text())
