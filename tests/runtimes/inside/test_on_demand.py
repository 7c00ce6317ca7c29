"""A container that does not run: who connects has it started, and is answered by it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.arena import KIND, asleep, program
from support.runtimes import PORT, PROGRAM, Docker, Runtime, Systemd, until
from tests.runtimes.inside.test_located import Service

pytestmark = pytest.mark.runtimes("docker", "podman", "systemd")


class Demanding(Service):
    """With a channel."""

    keys = ""
    ours = 7200

    @property
    def table(self) -> str:
        """See L{Service}."""
        place = f"{KIND}:web:{PORT}" if KIND != "systemd" else f"tcp:127.0.0.1:{PORT}"
        return (
            f'on-demand = "start"\n{self.keys}[containers.web.channels.c]\n'
            f'listen = "tcp:{self.ours}"\nconnect = "{place}"\nhandled = "answered"\n'
        )


def ask(text: bytes = b"hello") -> bytes:
    """Through the channel."""
    with socket.create_connection(("127.0.0.1", Demanding.ours), 60) as peer:
        peer.settimeout(60)
        peer.sendall(text)
        with contextlib.suppress(ConnectionResetError):
            return peer.recv(64)
    return b""


@pytest.fixture
def service(runtime: Runtime, place: Path) -> Iterator[Demanding]:
    """It is not started yet; there is a container, and it does not run."""
    runtime.start()
    runtime.stop()
    assert not program()
    with Demanding(place, runtime) as made:
        yield made
        with contextlib.suppress(AssertionError):
            runtime.remove()


def test_started(service: Demanding) -> None:
    """However many connect; then it sleeps, and wakes as ever."""
    service.start()
    answers: list[bytes] = []

    def one(number: int) -> None:
        answers.append(ask(b"%d" % number))

    threads = [threading.Thread(target=one, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [b"%d" % number for number in range(8)]
    assert service.log.read_text().count("somebody connects: started") == 1
    for _ in range(3):
        until("asleep", asleep)
        assert ask() == b"hello"


def test_stopped(runtime: Runtime, service: Demanding) -> None:
    """Asleep for long, it is stopped, in its own time; and comes again, time after time."""
    service.keys = 'stop-after = "1s"\n'
    service.start()
    for _ in range(3):
        assert ask() == b"hello"
        until("asleep", asleep)
        until("stopped", lambda: not program())
    assert "stopped after 1 s asleep; who connects starts it" in service.log.read_text()
    if isinstance(runtime, Docker):
        said = runtime.command("inspect", "--format={{.State.ExitCode}}", "web")
        assert said == "0\n"
    assert ask() == b"hello"


def test_none(runtime: Runtime, service: Demanding) -> None:
    """Where nothing can be started the connection ends, and it is said why."""
    if isinstance(runtime, Systemd):
        unit = runtime.directory / "root/etc/systemd/system/web.service"
        text = unit.read_text()
        unit.write_text("[Service]\nExecStart=/usr/bin/false\n")
        runtime.command("daemon-reload")
        why = "it has failed; see systemctl status"
    else:
        runtime.remove()
        why = "there is no such container"
    try:
        service.start()
        began = time.monotonic()
        assert ask() == b""
        assert time.monotonic() - began < 10
        until("said", lambda: why in service.log.read_text())
    finally:
        if isinstance(runtime, Systemd):
            unit.write_text(text)
            runtime.command("daemon-reload")


@pytest.mark.runtimes("docker")
def test_unhealthy(runtime: Runtime, service: Demanding) -> None:
    """Nor is one waited for that does not become healthy, for longer than is said."""
    runtime.remove()
    health = ["--health-cmd=false", "--health-interval=1s"]
    options = ["--name=web", "--network=host", "--volume=/usr:/usr:ro", *health]
    runtime.command("create", *options, "image", *PROGRAM)
    service.keys = "start-limit = 3\n"
    service.start()
    began = time.monotonic()
    assert ask() == b""
    assert 2.5 < time.monotonic() - began < 15
    why = "it does not run, or is not healthy, within 3 s"
    until("said", lambda: why in service.log.read_text())


@pytest.mark.runtimes("docker")
def test_before(runtime: Runtime, service: Demanding) -> None:
    """What it depends on, as Compose writes it, is started first, and healthy."""
    runtime.remove()
    labels = ["--label=com.docker.compose.project=shop"]
    after = "/tmp/healthy"
    base = ["--network=none", "--volume=/usr:/usr:ro", *labels]
    health = [f"--health-cmd=test -e {after}", "--health-interval=1s"]
    begins = f"import time; time.sleep(2); open({after!r}, 'w'); time.sleep(1000)"
    runtime.command(
        *("create", "--name=db", "--label=com.docker.compose.service=db", *base, *health),
        *("image", "/usr/bin/python3", "-c", begins),
    )
    depends = "--label=com.docker.compose.depends_on=db:service_healthy:false"
    web = ["--name=web", "--network=host", "--volume=/usr:/usr:ro", *labels, depends]
    runtime.command("create", *web, "image", *PROGRAM)
    service.start()
    try:
        assert ask() == b"hello"
        asked = "inspect", "--format={{.State.StartedAt}} {{.State.Health.Status}}", "db"
        database, health_ = runtime.command(*asked).split()
        assert health_ == "healthy"
        assert database < runtime.command("inspect", "--format={{.State.StartedAt}}", "web")
    finally:
        runtime.command("rm", "--force", "db")
