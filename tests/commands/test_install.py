"""chanproxy install: the unit that it writes, and what it says; a real systemd has another test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chanproxy.commands.units import quoted, unit
from chanproxy.service.confining import BEFORE, KEPT
from support.programs import find

ANALYZE = find("systemd-analyze")

verified = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def install(directory: Path, *words: str, status: int = 0) -> str:
    """What it prints; it ends, and by no exception."""
    done = subprocess.run(
        [sys.executable, "-m", "chanproxy", "install", *words],
        cwd=directory,
        env=dict(
            os.environ, XDG_CONFIG_HOME=str(directory / "home"), XDG_RUNTIME_DIR="/run/user/7"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


def analyze(directory: Path, *words: str) -> str:
    """What systemd says of a unit; empty, if it has nothing to say."""
    assert ANALYZE is not None
    done = subprocess.run(
        [ANALYZE, *words],
        env=dict(os.environ, XDG_RUNTIME_DIR=str(directory)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@verified
@pytest.mark.parametrize("user", [False, True])
def test_verified(tmp_path: Path, user: bool) -> None:
    """systemd knows each key of it, and finds its commands."""
    flags = ["--user"] if user else []
    file = tmp_path / "chanproxy.service"
    file.write_text(install(tmp_path, "--systemd", "--print", *flags))
    assert analyze(tmp_path, *flags, "verify", str(file)) == ""
    # What verifies anything would be worth nothing.
    file.write_text(file.read_text().replace("WatchdogSec", "WatchdogTime"))
    assert "WatchdogTime" in analyze(tmp_path, *flags, "verify", str(file))


@verified
def test_exposure(tmp_path: Path) -> None:
    """It gives up what it can: 10.0 is everything that a service may do."""
    file = tmp_path / "chanproxy.service"
    file.write_text(install(tmp_path, "--systemd", "--print"))
    said = analyze(tmp_path, "security", "--offline=true", "--threshold=50", str(file))
    assert "Overall exposure level" in said


def test_system(tmp_path: Path) -> None:
    """What is in the unit of the system's manager."""
    lines = install(tmp_path, "--systemd", "--print", "--config", "my conf.toml").splitlines()
    assert "Type=notify" in lines
    (start,) = (line for line in lines if line.startswith("ExecStart="))
    command = start.removeprefix("ExecStart=").split(" ", 1)
    assert os.access(command[0], os.X_OK)
    assert command[1] == f'-n --pidfile= chanproxy --config "{tmp_path}/my conf.toml"'
    assert f"CapabilityBoundingSet={' '.join([*BEFORE, *KEPT])}" in lines
    assert "WantedBy=multi-user.target" in lines
    # What it works with.
    for name in ("ProtectControlGroups", "PrivateUsers", "ProcSubset", "PrivateTmp", "ProtectHome"):
        assert not [line for line in lines if line.startswith(name)]


def test_written(tmp_path: Path) -> None:
    """For a user, to where systemd looks; another one is not written over."""
    place = tmp_path / "home" / "systemd" / "user" / "chanproxy.service"
    said = install(tmp_path, "--systemd", "--user")
    assert said.startswith(f"{place} is written.\nFirst write {tmp_path}/home/chanproxy.toml")
    assert 'control = "/run/user/7/chanproxy/control.sock"' in said
    assert "systemctl --user enable --now chanproxy" in said
    text = place.read_text()
    assert "WantedBy=default.target" in text
    assert "CapabilityBoundingSet" not in text
    assert f"{place} is as it was." in install(tmp_path, "--systemd", "--user")
    place.write_text("[Service]\n")
    refused = install(tmp_path, "--systemd", "--user", status=1)
    assert f"{place} is there, and another one; --force replaces it" in refused
    assert place.read_text() == "[Service]\n"
    install(tmp_path, "--systemd", "--user", "--force")
    assert place.read_text() == text


def test_configuration(tmp_path: Path) -> None:
    """The file is read, if it is there: a unit that cannot start is not written."""
    file = tmp_path / "c.toml"
    file.write_text('[containers.web]\nfreezer = "none"\nlingr = 1\n')
    said = install(tmp_path, "--systemd", "--user", "--config", "c.toml", status=1)
    assert "containers.web.lingr: is not known; did you mean linger?" in said
    assert not (tmp_path / "home").exists()
    file.write_text('control = "/run/x.sock"\n')
    said = install(tmp_path, "--systemd", "--user", "--config", "c.toml")
    assert "First write" not in said
    assert "RestrictNamespaces=yes" in install(
        tmp_path, "--systemd", "--print", "--config", "c.toml"
    )
    # It is to keep all of its rights.
    file.write_text('control = "/run/x.sock"\nconfine = false\n')
    text = install(tmp_path, "--systemd", "--print", "--config", "c.toml")
    assert "Restrict" not in text
    assert "Capability" not in text
    assert "Type=notify" in text


def test_wrong(tmp_path: Path) -> None:
    """It says what is missing, and where it may not write."""
    assert "Write --systemd" in install(tmp_path, status=2)
    (tmp_path / "home").write_text("in the way")
    said = install(tmp_path, "--systemd", "--user", status=1)
    assert f"{tmp_path}/home/systemd/user/chanproxy.service: Not a directory" in said


def test_quoted() -> None:
    """Words of a command line are what systemd makes of them again."""
    assert quoted("/opt/a-b_c/twistd") == "/opt/a-b_c/twistd"
    assert quoted("/a b") == '"/a b"'
    assert quoted("100%$HOME") == "100%%$$HOME"
    assert quoted('"\\') == '"\\"\\\\"'
    assert 'ExecStart="/a b/twistd" -n' in unit("/a b/twistd", "/c", "/d")
