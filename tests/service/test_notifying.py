"""What twistd chanproxy tells systemd; its side is a socket of the test's."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from support.cgroups import unusable
from support.live import Live, guardiansOf, until
from tests.service.test_notices import NAMES, Manager, manager

__all__ = ["manager"]


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_service(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A service tells that it is ready when it listens, how many sleep, that it turns, and its end.

    What it starts beside itself knows nothing of systemd.
    """
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    monkeypatch.setenv("WATCHDOG_USEC", "500000")
    with Live(tmp_path) as live:
        live.within = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh"]
        live.accept()
        live.service = live.run("--config", str(live.configuration()))
        first = manager.take()
        assert first == {"STATUS": "1 container, 0 asleep", "READY": "1"}
        assert live.connectable()
        taken = manager.takeUntil("STATUS", "1 container, 1 asleep")
        live.waitFrozen()
        taken += manager.takeUntil("WATCHDOG")
        pid = live.service.pid
        until("a guardian", lambda: guardiansOf(pid))
        (guardian,) = guardiansOf(pid)
        environment = Path(f"/proc/{guardian}/environ").read_bytes().split(b"\0")
        assert not [each for each in environment if each.partition(b"=")[0].decode() in NAMES]
        live.end()
        taken += manager.takeUntil("STOPPING")
        assert manager.nothing()
        assert {name for each in taken for name in each} == {"STATUS", "WATCHDOG", "STOPPING"}


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_reload(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP: the file is read again, which is told before and after that, also when it is bad."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    with Live(tmp_path) as live:
        live.accept()
        file = live.configuration()
        live.service = live.run("--config", str(file))
        manager.takeUntil("READY")
        good = file.read_text()
        for text in (good.replace("linger = 0.02", "linger = 0.03"), "[[[", good):
            file.write_text(text)
            before = time.monotonic_ns() // 1000
            live.service.send_signal(signal.SIGHUP)
            *_, begun = manager.takeUntil("RELOADING")
            assert int(begun["MONOTONIC_USEC"]) >= before
            manager.takeUntil("READY", "1")
        log = live.log.read_text()
        assert log.count("reloaded: container echo: changed: linger") == 2
        assert log.count("not reloaded: ") == 1
        for _ in range(20):
            live.service.send_signal(signal.SIGHUP)
        live.end()
        # However many come, in the end it is ready, or ends.
        *_, last = manager.takeUntil("STOPPING")
        assert "RELOADING" not in last
