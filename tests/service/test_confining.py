"""The service gives up what it has no use for, and so do the processes beside it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from chanproxy import config
from chanproxy.service import tap
from chanproxy.service.confining import KEPT
from chanproxy.testing.reactor import FakeReactor
from support.cgroups import unusable
from support.live import Live, childrenOf, until
from support.places import DOCS

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
    pytest.mark.skipif(os.geteuid() != 0, reason="who is not root has nothing to give up"),
]


def rights(pid: int) -> dict[str, int]:
    """What a process has: sets of capabilities, and C{NoNewPrivs}."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.findall(r"^(Cap(?:Prm|Eff|Inh|Bnd|Amb)|NoNewPrivs):\s+(\w+)", text, re.MULTILINE)
    return {name: int(number, 16) for name, number in found}


def started(live: Live, *lines: str) -> list[int]:
    """The service and the processes beside it, when the container sleeps."""
    file = live.configuration()
    file.write_text("\n".join([*lines, file.read_text()]))
    live.start("--config", str(file))
    live.waitFrozen()
    assert live.service is not None
    service = live.service.pid
    # Who closes, and who guards.
    until("its children", lambda: len(childrenOf(service)) >= 2)
    return [service, *childrenOf(service)]


def test_confined(tmp_path: Path) -> None:
    """No more than is kept, in any set, wherever it is started from."""
    mask = sum(1 << number for number in KEPT.values())
    ours = rights(os.getpid())
    with Live(tmp_path) as live:
        live.accept()
        for pid in started(live):
            found = rights(pid)
            for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
                assert found[name] == ours[name] & mask, (pid, name)
            assert found["NoNewPrivs"] == 1
        with live.peer() as peer:
            peer.send(b"hello")
            assert peer.recv(100) == b"hello"
        live.end()
        assert "it keeps rights" not in live.log.read_text()


def test_notConfined(tmp_path: Path) -> None:
    """With C{confine = false} it is as it was started."""
    with Live(tmp_path) as live:
        live.accept()
        for pid in started(live, "confine = false"):
            assert rights(pid) == rights(os.getpid())
        live.end()


def test_documented() -> None:
    """Whatever is kept has its reason in the docs."""
    text = (DOCS / "security.md").read_text()
    assert all(f"`{name}`" in text for name in KEPT)


def test_pluginFreezer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin's freezer takes nobody knows: all is kept, and said so."""
    done: list[bool] = []
    monkeypatch.setattr(tap, "confine", lambda: done.append(True))
    (ours,) = config.load('[containers.a]\nfreezer = "none"\n').containers
    for freezer, confined in (("none", [True]), ("pid:1", [])):
        done.clear()
        configuration = config.Configuration(containers=(evolve(ours, freezer=freezer),))
        with capturedLogs() as events:
            tap._Command(configuration, FakeReactor())._confine()
        assert done == confined
        lines = [formatEvent(event) for event in events]
        assert lines == ([] if done else ["it keeps all of its rights, because of pid:1"])
