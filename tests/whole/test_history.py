"""The history, for real: a service under C{twistd}, a container that sleeps, the command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from chanproxy import config
from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService
from chanproxy.wake.history import keeper, store
from chanproxy.wake.history.store import Store
from support.cgroups import unusable
from support.live import TWISTD, Live, listens, until
from support.programs import describe
from tests.shared.sides import asynchronous
from tests.shared.sides import until as eventually

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

Tree = dict[str, Any]

WORKS = """
import time
while True:
    until = time.thread_time() + 0.002
    while time.thread_time() < until:
        pass
    time.sleep(0.02)
"""
"""Uses some of the processor all the time, as programs do that tick."""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """A container that accepts; the service is not started yet."""
    with Live(tmp_path) as live:
        live.accept()
        yield live


def historyOf(live: Live) -> Path:
    """Where its service keeps it."""
    return live.directory / "state" / "history.sqlite"


def report(path: Path) -> Tree:
    """What the command says."""
    done = subprocess.run(
        [sys.executable, "-m", "chanproxy", "report", "--json", "--history", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    tree: Tree = json.loads(done.stdout)
    return tree


def wakesOf(live: Live) -> int:
    """How many are written."""
    return sum(each["wakes"] for each in report(historyOf(live))["containers"])


def waitAsleep(live: Live) -> None:
    """Until the service has seen that it is frozen: what comes before that is no wake."""
    live.waitFor("the control socket", lambda: listens(live.control))
    until("asleep", lambda: describe(live.control, "echo")["state"] == "asleep")


def wake(live: Live, peer: socket.socket) -> None:
    """Let it fall asleep, and have it answer."""
    waitAsleep(live)
    peer.send(b"hello")
    assert peer.recv(100) == b"hello"


def said(live: Live, text: str) -> Callable[[], bool]:
    """Whether it stands in the log."""
    return lambda: text in live.log.read_text()


def test_restarted(live: Live) -> None:
    """Each service adds to what is there; who woke it and how long that took stands in it."""
    for number in (1, 2):
        live.start()
        began = time.monotonic()
        with live.peer() as peer:
            for _ in range(5):
                wake(live, peer)
            waitAsleep(live)
            time.sleep(0.3)
        live.end()
        lasted = time.monotonic() - began
        (echo,) = report(historyOf(live))["containers"]
        assert echo["wakes"] >= number * 6
        assert echo["asleep"] > number * 0.3
        assert echo["asleep"] + echo["awake"] < 60
        assert echo["latency_count"] >= number * 5
        assert 0 < echo["latency_p50"] <= echo["latency_p99"] < lasted
        assert echo["own_cpu"] > 0
        reasons = {each["reason"]: each["wakes"] for each in echo["woken_by"]}
        # And either the end of the connection, or the stop.
        assert reasons["rpc"] >= number * 5
    assert "history" not in live.log.read_text()
    assert historyOf(live).stat().st_mode & 0o777 == 0o600


def test_killed(live: Live) -> None:
    """What was written before a SIGKILL stays, the file is good, and the next one goes on."""
    live.start()
    with live.peer() as peer:
        for _ in range(3):
            wake(live, peer)
        # It is written by itself, while the service runs and the command asks nobody.
        until("written", lambda: wakesOf(live) >= 3)
        live.waitFrozen()
    live.end(signal.SIGKILL)
    before = report(historyOf(live))
    assert before["until"] <= time.time()
    live.start()
    with live.peer() as peer:
        wake(live, peer)
    live.end()
    after = report(historyOf(live))
    (old,), (new,) = before["containers"], after["containers"]
    assert new["wakes"] > old["wakes"] >= 3
    assert new["asleep"] >= old["asleep"]
    assert after["until"] > before["until"]


def test_spared(live: Live) -> None:
    """What is spared follows from what was measured: use when idle, times the time asleep."""
    # It ends with the cgroup.
    live.cgroup.spawn([sys.executable, "-c", WORKS])
    live.linger = 1.0
    live.start()
    with live.peer() as peer:
        for _ in range(9):
            wake(live, peer)
        waitAsleep(live)
        time.sleep(3)
        peer.send(b"hello")
        assert peer.recv(100) == b"hello"
    live.end()
    (echo,) = report(historyOf(live))["containers"]
    assert echo["idle_time"] > 5
    # A part of what it used while awake, in a part of the time.
    assert 0 < echo["idle_cpu"] <= echo["awake_cpu"]
    assert echo["asleep_cpu"] < 0.1
    estimate = echo["idle_cpu"] / echo["idle_time"] * echo["asleep"] - echo["asleep_cpu"]
    assert echo["spared_cpu"] == pytest.approx(estimate, abs=0.001)
    assert echo["spared_cpu"] > 0


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount"
)
def test_fullDisk(live: Live) -> None:
    """The log says so, wakes go on, and when there is room all of it is written."""
    state = historyOf(live).parent
    state.mkdir()
    options = "size=128k,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chanproxy-test", state], check=True)
    try:
        filler = state / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        live.start()
        live.waitFor("the line", said(live, "history: "))
        with live.peer() as peer:
            for _ in range(3):
                wake(live, peer)
            assert "is tried again" in live.log.read_text()
            filler.unlink()
            live.waitFor("the other line", said(live, "is written again"))
        live.end()
        assert live.log.read_text().count("is tried again") == 1
        (echo,) = report(historyOf(live))["containers"]
        assert echo["wakes"] >= 3
    finally:
        live.close()
        subprocess.run(["umount", state], check=True)


def test_twoServices(live: Live) -> None:
    """The second one says whose it is, and runs all the same."""
    live.start()
    until("written", historyOf(live).exists)
    other = live.directory / "other"
    other.mkdir()
    (other / "c.toml").write_text(
        f'[history]\npath = "{historyOf(live)}"\n[containers.still]\nfreezer = "none"\n'
        f'[containers.still.channels.c]\nlisten = "seqpacket:{other}/out"\n'
        f'connect = "seqpacket:{other}/in"\n'
    )
    log = other / "log"
    with subprocess.Popen(
        [*TWISTD, "-n", "--pidfile=", f"--logfile={log}", "chanproxy", "-c", str(other / "c.toml")],
        cwd=other,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(other / "runtime")),
    ) as second:
        try:
            until("the line", lambda: log.exists() and "another service" in log.read_text())
            assert (other / "out").exists()
        finally:
            second.terminate()
            assert second.wait(20) in (0, -signal.SIGTERM)
    with live.peer() as peer:
        wake(live, peer)
    live.end()
    (line,) = [each for each in log.read_text().splitlines() if "history: " in each]
    assert re.search(r"history\.sqlite: another service writes it; give this one another", line)
    assert [each["name"] for each in report(historyOf(live))["containers"]] == ["echo"]


def test_off(live: Live) -> None:
    """Who does not want it says so, in the file or as an option."""
    file = live.configuration()
    file.write_text('history = {path = "off"}\n' + file.read_text())
    live.start("--config", str(file))
    live.waitFrozen()
    live.end()
    live.start(
        *["--listen", f"seqpacket:{live.outside}", "--connect", f"seqpacket:{live.inside}"],
        *["--freezer", live.cgroup.spec, "--history", "off"],
    )
    live.waitFrozen()
    live.end()
    assert not historyOf(live).parent.exists()


def loaded(history: str) -> config.Configuration:
    """One container that is never frozen."""
    return config.load(
        f'history = {{path = "{history}"}}\n[containers.still]\nfreezer = "none"\nlinger = 0.05\n'
    )


async def asleep(reactor: ChanproxyReactor, container: Container) -> None:
    """Until it is."""
    await eventually(reactor, lambda: container.suspension.state == "asleep")


@asynchronous
async def test_library(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """In a program of one's own nothing is written, unless a path is given."""
    for path, written in (("auto", False), (f"{tmp_path}/mine/history", True)):
        service = ChanproxyService(loaded(path), reactor)
        service.startService()
        container = service.containers["still"]
        await asleep(reactor, container)
        await container.resume("enough")
        await service.stopService()
        assert Path(path).exists() == written
    assert not (tmp_path / "state").exists()
    (still,) = report(tmp_path / "mine" / "history")["containers"]
    assert {each["reason"] for each in still["woken_by"]} > {"enough"}
    assert still["spared_cpu"] is None


@asynchronous
async def test_withoutSqlite(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python that was built without it runs all else."""
    monkeypatch.setitem(sys.modules, "chanproxy.wake.history.store", None)
    service = ChanproxyService(loaded(f"{tmp_path}/history"), reactor)
    with capturedLogs() as events:
        service.startService()
    await asleep(reactor, service.containers["still"])
    await service.stopService()
    assert any("history: nothing is kept" in formatEvent(each) for each in events)
    assert not (tmp_path / "history").exists()


@asynchronous
async def test_removedContainer(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is known of a container that goes is written; that of one which comes again, too."""
    path = tmp_path / "history"
    service = ChanproxyService(loaded(str(path)), reactor)
    service.startService()
    (still,) = loaded(str(path)).containers
    for number in range(2):
        container = service.containers["still"]
        await asleep(reactor, container)
        await service.removeContainer("still")
        if not number:
            service.addContainer(still)
    await service.stopService()
    (found,) = report(path)["containers"]
    assert found["wakes"] == 2
    assert found["asleep"] > 0


class _Stuck(Store):
    """As on a disk that does not answer."""

    entered = threading.Event()
    released = threading.Event()

    def write(self, *arguments: Any) -> list[str]:
        self.entered.set()
        assert self.released.wait(60)
        return super().write(*arguments)


@asynchronous
async def test_stuckDisk(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No wake and no sleep waits for it; a stop does, but not for long."""
    monkeypatch.setattr(store, "Store", _Stuck)
    monkeypatch.setattr(keeper, "AT_THE_END", 0.2)
    service = ChanproxyService(loaded(f"{tmp_path}/history"), reactor)
    service.startService()
    try:
        assert _Stuck.entered.wait(20)
        container = service.containers["still"]
        for _ in range(3):
            await asleep(reactor, container)
            await container.resume("enough")
        with capturedLogs() as events:
            await service.stopService()
        assert any("is not written within 0 s" in formatEvent(each) for each in events)
    finally:
        _Stuck.released.set()
    # What it has begun ends then, and nothing of it is left.
    lock = tmp_path / "history-lock"
    await eventually(reactor, lambda: lock.exists() and not _isLocked(lock))


def _isLocked(lock: Path) -> bool:
    probe = Store(str(lock).removesuffix("-lock"), 1, 1 << 20)
    try:
        probe._takeLock()
    except Exception:
        return True
    finally:
        probe.close()
    return False
