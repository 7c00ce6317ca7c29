"""
Containers of real runtimes, by their names, behind a real service that wakes them by their sockets.

Run in an arena, by C{tests/runtimes/insides.py}, for one runtime at a time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.arena import KIND, asleep, program
from support.live import LiveService, childrenOf, listens
from support.runtimes import Docker, Podman, Runtime, ask, until

WAKES = int(os.environ.get("CHANPROXY_TEST_WAKES", "100"))

EXECUTIONS = int(os.environ.get("CHANPROXY_TEST_EXECUTIONS", "5"))


class Service(LiveService):
    """In front of the container of a runtime."""

    def __init__(self, directory: Path, runtime: Runtime) -> None:
        super().__init__(directory)
        self.runtime = runtime
        self.within = runtime.within

    @property
    def table(self) -> str:
        """What else is said of it."""
        return 'wake-on = "sockets"\nshort-sleep = 0\n'

    def start(self) -> None:
        """Until it listens."""
        file = self.directory / "chanproxy.toml"
        file.write_text(
            f'control = "seqpacket:{self.control}"\n[containers.web]\n'
            f'freezer = "{self.runtime.spec}"\nlinger = 0.05\n{self.table}'
        )
        self.service = self.run("--config", str(file))
        # The network's sockets are not listed for others than those in it.
        there = self.control.exists if self.within else lambda: listens(self.control)
        self.waitFor("listening", there)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Also where what was started only waits for it."""
        if self.within and self.service is not None:
            for child in childrenOf(self.service.pid):
                os.kill(child, number)
            self.service.wait(30)
            assert self.service.stderr is not None
            self.service.stderr.close()
            self.service = None
        else:
            super().end(number)


@pytest.fixture
def service(runtime: Runtime, place: Path) -> Iterator[Service]:
    """One that runs; its container does not yet."""
    with Service(place, runtime) as made:
        made.start()
        yield made
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            runtime.remove()


def test_wakes(runtime: Runtime, service: Service) -> None:
    """Each request is answered, asleep or on its way."""
    runtime.start()
    for number in range(WAKES):
        until("asleep", asleep)
        text = str(number).encode()
        assert ask(text) == text
        assert ask(text * 2) == text * 2
    until("asleep", asleep)
    service.end()
    assert not asleep()


def test_serviceLater(runtime: Runtime, service: Service) -> None:
    """One that runs already is found."""
    service.end()
    runtime.start()
    service.start()
    until("asleep", asleep)
    assert ask() == b"hello"


def test_comesAndGoes(runtime: Runtime, service: Service) -> None:
    """Stopped while it sleeps, it ends in its own time; started, or made anew, it is found."""
    runtime.start()
    until("asleep", asleep)
    for end in (runtime.stop, runtime.remove):
        began = time.monotonic()
        end()
        # Its program takes 0.3 s to write something down.
        assert time.monotonic() - began < 4
        assert not program()
        runtime.start()
        until("asleep", asleep)
        assert ask() == b"hello"


@pytest.mark.runtimes("docker", "podman", "runc", "crun", "lxc")
def test_execute(runtime: Runtime, service: Service) -> None:
    """What is run in one that sleeps is done."""
    runtime.start()
    for number in range(EXECUTIONS):
        until("asleep", asleep)
        assert str(number) in runtime.execute("echo", str(number))
    until("asleep", asleep)
    assert ask() == b"hello"
    service.end()
    assert "awake" in runtime.execute("echo", "awake")


@pytest.mark.runtimes("docker", "podman")
def test_killed(runtime: Runtime, service: Service) -> None:
    """Its engine is killed while it sleeps: it wakes, and is followed when that is there again."""
    assert isinstance(runtime, (Docker, Podman))
    runtime.start()
    until("asleep", asleep)
    runtime.kill()
    assert ask() == b"hello"
    until("asleep", asleep)
    runtime.serve()
    assert ask() == b"hello"
    runtime.remove()
    runtime.start()
    until("asleep", asleep)
    assert ask() == b"hello"


PAUSES = {
    **dict.fromkeys(("docker", "podman"), ("pause web", "unpause web")),
    **dict.fromkeys(("runc", "crun"), ("pause web", "resume web")),
    "lxc": ("freeze", "unfreeze"),
    "systemd": ("freeze web", "thaw web"),
}


def staysPaused(runtime: Runtime) -> None:
    """No message undoes it, until those who have paused it do."""
    with pytest.raises(TimeoutError):
        ask(patience=0.5)
    assert asleep()
    runtime.command(*PAUSES[KIND][1].split())


def test_paused(runtime: Runtime, service: Service) -> None:
    """What somebody else has paused while it was awake is theirs: no message undoes that."""
    service.end()
    runtime.start()
    runtime.command(*PAUSES[KIND][0].split())
    service.start()
    until("paused", asleep)
    staysPaused(runtime)
    assert ask() == b"hello"
    until("asleep", asleep)
    assert ask() == b"hello"


# systemd finds it frozen, and writes nothing.
@pytest.mark.runtimes("docker", "podman", "runc", "crun", "lxc")
def test_pausedAsleep(runtime: Runtime, service: Service) -> None:
    """Likewise what they pause while it sleeps."""
    runtime.start()
    until("asleep", asleep)
    runtime.command(*PAUSES[KIND][0].split())
    staysPaused(runtime)
    assert ask() == b"hello"
    until("asleep", asleep)
    assert ask() == b"hello"


@pytest.mark.runtimes("docker", "podman", "runc", "crun")
def test_pausedThroughUs(runtime: Runtime, service: Service) -> None:
    """Then it is paused for everybody: what is run in it is refused, and does not wake it."""
    runtime.start()
    until("asleep", asleep)
    chanproxy = [sys.executable, "-m", "chanproxy"]
    where = ["web", "--socket", str(service.control)]
    subprocess.run([*chanproxy, "pause", *where], check=True, stdout=subprocess.DEVNULL)
    with pytest.raises(AssertionError, match="paused"):
        runtime.execute("true")
    # As long as it would be held for somebody, and more.
    time.sleep(1)
    assert asleep()
    with pytest.raises(TimeoutError):
        ask(patience=0.5)
    subprocess.run([*chanproxy, "unpause", *where], check=True, stdout=subprocess.DEVNULL)
    assert ask() == b"hello"
    until("asleep", asleep)
    assert "said" in runtime.execute("echo", "said")
