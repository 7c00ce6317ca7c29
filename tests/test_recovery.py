"""What is written down of what is frozen, and who may thaw it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chanproxy.interfaces import FreezerError
from chanproxy.recovery import FrozenRecord, runtimeDirectory, thawRecorded


def test_liveRecord(tmp_path: Path) -> None:
    """A living owner's record is left alone, unless everything is asked for."""
    thawed: list[str] = []
    record = FrozenRecord("cgroup:x", str(tmp_path))
    record.write()
    assert thawRecorded(thawed.append, False, str(tmp_path)) == ([], [])
    assert thawRecorded(thawed.append, True, str(tmp_path)) == (["cgroup:x"], [])
    record.clear()
    assert thawRecorded(thawed.append, True, str(tmp_path)) == ([], [])
    assert thawed == ["cgroup:x"]
    with pytest.raises(FreezerError, match="another chanproxy"):
        FrozenRecord("cgroup:x", str(tmp_path))
    record.close()
    assert list(tmp_path.iterdir()) == []


def die(directory: Path, action: str) -> None:
    """A process that made a record and was killed."""
    script = (
        "import os, sys; from chanproxy.recovery import FrozenRecord\n"
        f"record = FrozenRecord('cgroup:x', sys.argv[1]); {action}\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(directory)]).returncode == -9


def test_deadRecord(tmp_path: Path) -> None:
    """A dead owner's record is thawed once."""
    die(tmp_path, "record.write()")
    thawed: list[str] = []
    assert thawRecorded(thawed.append, False, str(tmp_path)) == (["cgroup:x"], [])
    assert thawRecorded(thawed.append, False, str(tmp_path)) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_deadRecordOfThawed(tmp_path: Path) -> None:
    """An owner that died while its container ran leaves nothing to thaw."""
    die(tmp_path, "record.write(); record.clear()")
    assert thawRecorded(lambda spec: pytest.fail(spec), False, str(tmp_path)) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_failedThaw(tmp_path: Path) -> None:
    """What could not be thawed stays written down, and is named."""
    die(tmp_path, "record.write()")

    def refuse(spec: str) -> None:
        raise FreezerError("no right")

    _, [sentence] = thawRecorded(refuse, False, str(tmp_path))
    assert sentence.startswith("cgroup:x: no right")
    assert thawRecorded(lambda spec: None, False, str(tmp_path)) == (["cgroup:x"], [])


def test_foreignDirectory(tmp_path: Path) -> None:
    """A directory that somebody else made is not believed."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(FreezerError, match="belongs to user 12345"):
        FrozenRecord("cgroup:x", str(tmp_path))


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment decides, not the configuration."""
    monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", "/somewhere")
    assert runtimeDirectory() == "/somewhere"
    monkeypatch.delenv("CHANPROXY_RUNTIME_DIRECTORY")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert runtimeDirectory() == "/run/user/7/chanproxy"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtimeDirectory() == "/tmp/chanproxy-7"
