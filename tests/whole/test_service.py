"""The whole, for real: C{twistd chanproxy}, a process in a cgroup, a peer outside."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import unusable
from support.live import Live, until

pytestmark = pytest.mark.lasts(45)

CYCLES = int(os.environ.get("CHANPROXY_TEST_CYCLES", "200"))


@pytest.fixture(autouse=True)
def cgroups() -> None:
    """These tests are worth nothing without cgroups."""
    why = unusable()
    if why:
        assert not os.environ.get("CI"), why
        pytest.skip(why)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """A container that accepts; the service is not started yet."""
    with Live(tmp_path) as live:
        live.accept()
        yield live


class Stream:
    """Numbered packets, some with a descriptor, and the answers they must get, in order."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._sent: list[tuple[bytes, int | None]] = []
        self.count = 0

    def send(self) -> None:
        self.count += 1
        data = b"packet %d " % self.count + b"x" * random.choice([0, 10, 5000, 60000])
        if self.count % 2:
            readEnd, writeEnd = os.pipe()
            socket.send_fds(self._peer, [data[:4000]], [writeEnd])
            os.close(writeEnd)
            self._sent.append((data[:4000], readEnd))
        else:
            self._peer.send(data)
            self._sent.append((data, None))

    def receive(self) -> None:
        """Take one answer, and look into its pipe."""
        data, readEnd = self._sent.pop(0)
        assert self._peer.recv(300000) == data
        if readEnd is not None:
            # All that was written, up to the end: the descriptor arrived once and was closed.
            with open(readEnd, "rb") as pipe:
                assert pipe.read() == data

    def receiveAll(self) -> None:
        while self._sent:
            self.receive()


def test_wakeCycles(live: Live) -> None:
    """Each packet wakes a frozen container, which gets it once, in order, with its descriptor."""
    live.start()
    with live.peer() as peer:
        stream = Stream(peer)
        for _ in range(CYCLES):
            live.waitFrozen()
            for _ in range(random.randint(1, 3)):
                stream.send()
            stream.receiveAll()
        live.waitFrozen()
    live.end()
    assert not live.cgroup.frozen()


def test_race(live: Live) -> None:
    """Packets at random moments around the freeze: nothing is lost and nothing is stuck."""
    # Read is handled: the answer has to be out before this is over, however busy the machine is.
    live.linger = 0.02
    live.start()
    frozen = 0
    with live.peer() as peer:
        stream = Stream(peer)
        for _ in range(CYCLES):
            stream.send()
            stream.receiveAll()
            deadline = time.perf_counter() + random.uniform(0.015, 0.04)
            while time.perf_counter() < deadline:
                pass
            frozen += live.cgroup.frozen()
    # Both sides of the race were seen.
    assert 0 < frozen < CYCLES


def test_peersComeAndGo(live: Live) -> None:
    """
    starnix: channel proxy: 2: a connection and an end-of-file wake the container as well, and it
    sees both.
    """
    live.start()
    for _ in range(10):
        live.waitFrozen()
        with live.peer() as peer:
            stream = Stream(peer)
            stream.send()
            stream.receiveAll()
            live.waitFrozen()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signalsThaw(live: Live, number: int) -> None:
    """However the service is asked to stop, the container is left thawed."""
    # With a file, SIGHUP has it read that again.
    live.start(*(live.options if number == signal.SIGHUP else ()))
    live.waitFrozen()
    live.end(number)
    assert not live.cgroup.frozen()
    assert not live.outside.exists()
    assert list((live.directory / "runtime").iterdir()) == []


def test_killedThenStarted(live: Live) -> None:
    """After SIGKILL the next start thaws, and replaces the stale socket."""
    live.start()
    live.waitFrozen()
    live.end(signal.SIGKILL)
    assert live.cgroup.frozen()
    live.linger = 3600
    live.start()
    until("thawed", lambda: not live.cgroup.frozen())


@pytest.mark.parametrize("text", ["", "[containers.x]\nfreezer = 3\n"])
def test_killedThenAnyConfiguration(live: Live, text: str) -> None:
    """After SIGKILL a start thaws even when its own configuration is useless."""
    live.start()
    live.waitFrozen()
    live.end(signal.SIGKILL)
    other = live.directory / "other.toml"
    other.write_text(text)
    service = live.run("--config", str(other))
    _, errors = service.communicate(timeout=20)
    assert service.returncode == 1
    assert b"thawed" in errors
    until("thawed", lambda: not live.cgroup.frozen())


def chanproxy(live: Live, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chanproxy", *arguments],
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(live.directory / "runtime")),
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_thawAll(live: Live) -> None:
    """C{chanproxy thaw --all} thaws with no service at all."""
    live.start()
    live.waitFrozen()
    live.end(signal.SIGKILL)
    done = chanproxy(live, "thaw", "--all")
    assert done.returncode == 0
    assert done.stdout == f"thawed {live.cgroup.spec}\n"
    until("thawed", lambda: not live.cgroup.frozen())
    assert "nothing is recorded" in chanproxy(live, "thaw", "--all").stdout


def test_strangeRecords(live: Live) -> None:
    """What is no record keeps neither a start nor C{chanproxy thaw} from what is one."""
    live.start()
    live.waitFrozen()
    live.end(signal.SIGKILL)
    runtime = live.directory / "runtime"
    (runtime / "0.frozen").mkdir()
    os.mkfifo(runtime / "1.frozen")
    done = chanproxy(live, "thaw")
    assert done.returncode == 1
    assert done.stdout == f"thawed {live.cgroup.spec}\n"
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        f"{runtime}/0.frozen: is no record: Is a directory; remove it if it is not chanproxy's",
        f"{runtime}/1.frozen: is no record: it is no regular file; remove it",
    ]
    live.start()
    live.waitFrozen()
    live.end()
    assert "1.frozen: is no record" in live.log.read_text()


def test_foreignRecords(live: Live) -> None:
    """A runtime directory that others can write to: nothing starts, and a sentence says why."""
    (live.directory / "runtime").mkdir(mode=0o777)
    (live.directory / "runtime").chmod(0o777)
    done = chanproxy(live, "thaw")
    assert done.returncode == 1
    assert "chmod go-w" in done.stderr
    service = live.run("--config", str(live.configuration()))
    _, errors = service.communicate(timeout=20)
    assert service.returncode == 1
    assert b"chanproxy.toml: records: others can write to the runtime directory" in errors
    for text in (errors, done.stderr.encode()):
        assert b"Traceback" not in text


def test_thawAllUnderALivingService(live: Live) -> None:
    """A living service notices that somebody else thawed, and sleeps again later."""
    live.start()
    live.waitFrozen()
    assert chanproxy(live, "thaw").stdout.startswith("nothing is recorded")
    assert live.cgroup.frozen()
    assert chanproxy(live, "thaw", "--all").returncode == 0
    live.waitFrozen()
    with live.peer() as peer:
        stream = Stream(peer)
        stream.send()
        stream.receiveAll()


def test_exceptionAtStart(live: Live) -> None:
    """A start that fails says why in a line, and leaves the container thawed."""
    live.start()
    live.waitFrozen()
    second = live.run("--config", str(live.configuration()))
    _, errors = second.communicate(timeout=20)
    assert second.returncode == 1
    assert b"containers.echo.channels.rpc.listen" in errors
    assert b"in use by a living process" in errors
    assert b"it is in the hands of another chanproxy that is running (process " in errors
    assert b"Traceback" not in errors
    live.end()
    assert not live.cgroup.frozen()


def test_withoutAFile(live: Live) -> None:
    """One channel by options."""
    live.start(*live.options)
    live.waitFrozen()
    with live.peer() as peer:
        stream = Stream(peer)
        stream.send()
        stream.receiveAll()


def test_containerRefuses(live: Live) -> None:
    """A container that refuses costs that one connection, not the listener."""
    live.start()
    away = live.directory / "away.sock"
    live.inside.rename(away)
    with live.peer() as peer:
        assert peer.recv(1) == b""
    away.rename(live.inside)
    with live.peer() as peer:
        stream = Stream(peer)
        stream.send()
        stream.receiveAll()
    text = live.log.read_text()
    assert "echo/rpc#1: connection closed" in text
    assert "containers.echo.channels.rpc.connect" in text


def test_fullBacklog(tmp_path: Path) -> None:
    """A frozen container with a full backlog is thawed, and each connection gets through."""
    with Live(tmp_path, backlog=1) as live:
        live.start()
        peers = [live.peer() for _ in range(6)]
        try:
            for number, peer in enumerate(peers):
                peer.send(b"%d" % number)
            time.sleep(0.2)
            live.accept()
            for number, peer in enumerate(peers):
                assert peer.recv(10) == b"%d" % number
                # The echo service has one connection at a time.
                peer.close()
        finally:
            for peer in peers:
                peer.close()


def test_killedContainer(live: Live) -> None:
    """A container that is killed while frozen: its peers see the end, the service goes on."""
    live.start()
    with live.peer() as peer:
        stream = Stream(peer)
        stream.send()
        stream.receiveAll()
        live.waitFrozen()
        live.cgroup.kill()
        assert ended(peer)
    live.end()


def ended(peer: socket.socket) -> bool:
    """Whether the next thing that comes is the end, clean or by a reset."""
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True
