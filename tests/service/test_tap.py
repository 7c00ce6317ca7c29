"""C{twistd chanproxy} with bad input: a sentence with the key, status 1, nothing started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.cgroups import unifiedMount
from tests.shared.refusing import refused


def test_noOptions(tmp_path: Path) -> None:
    """Nothing given."""
    assert "--config FILE" in refused(tmp_path)
    assert "not together" in refused(tmp_path, "--config", "x", "--listen", "y")
    for name in ("control", "history"):
        text = refused(tmp_path, "--config", "x", f"--{name}", "/y")
        assert f"not together with --{name}" in text


def test_noFile(tmp_path: Path) -> None:
    """A file that is not there."""
    assert "none.toml: No such file" in refused(tmp_path, "--config", "none.toml")


def test_allProblems(tmp_path: Path) -> None:
    """A line per problem, each with the path of its key."""
    (tmp_path / "c.toml").write_text('[containers.a]\nlinger = -1\n[containers.b]\nx = "y"\n')
    lines = refused(tmp_path, "--config", "c.toml").splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "containers.a.freezer",
        "containers.a.linger",
        "containers.b.freezer",
        "containers.b.x",
    ]


def test_whatOnlyTheSystemKnows(tmp_path: Path) -> None:
    """Paths that cannot be listened on, and a cgroup in the wrong place, together."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "c.toml").write_text(
        f"""
[containers.a]
freezer = "cgroup:/tmp"
[containers.a.channels.one]
listen = "seqpacket:{tmp_path}/file"
connect = "seqpacket:{tmp_path}/in"
[containers.a.channels.two]
listen = "seqpacket:{tmp_path}/none/sock"
connect = "seqpacket:{tmp_path}/in"
"""
    )
    text = refused(tmp_path, "--config", "c.toml")
    assert "containers.a.freezer" in text
    assert "containers.a.channels.one.listen" in text
    assert "containers.a.channels.two.listen" in text


def test_ourOwnCgroup(tmp_path: Path) -> None:
    """What holds chanproxy itself is never frozen."""
    mount = unifiedMount()
    if mount is None:
        assert not os.environ.get("CI")
        pytest.skip("no cgroup v2 is mounted")
    own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].splitlines()[0]
    text = refused(
        tmp_path,
        *["--listen", f"seqpacket:{tmp_path}/o", "--connect", f"seqpacket:{tmp_path}/i"],
        *["--freezer", f"cgroup:{mount}{own}"],
    )
    assert "containers.container.freezer" in text
