"""C{twistd chanproxy} with bad input: a sentence with the key, status 1, nothing started."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import pytest
from twisted.python import usage

from chanproxy import config
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import preflight
from chanproxy.service.tap import Options
from support.cgroups import unifiedMount
from tests.shared.refusing import refused


def test_noOptions(tmp_path: Path) -> None:
    """Nothing given."""
    assert "--config FILE" in refused(tmp_path)
    assert "not together" in refused(tmp_path, "--config", "x", "--listen", "y")
    for name in ("control", "history"):
        text = refused(tmp_path, "--config", "x", f"--{name}", "/y")
        assert f"not together with --{name}" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-n", "--config", "x"], "-n is for twistd, and stands before the word chanproxy"),
        (["x.toml"], "'x.toml' is no option; a file is given as --config x.toml"),
        (["--cofnig", "x"], "option --cofnig not recognized"),
    ],
)
def test_wrongWords(words: list[str], says: str) -> None:
    """Also what stands at the wrong place, or lacks its option, has a way out."""
    with pytest.raises(usage.UsageError) as raised:
        Options().parseOptions(words)  # type: ignore[no-untyped-call]  # it has no annotations
    assert str(raised.value) == says


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


@pytest.mark.parametrize(
    ("listen", "connect", "key"),
    [
        ("tcp:0", "tls:localhost:1", "connect"),
        ("haproxy:ssl:0", "tcp:localhost:1", "listen"),
    ],
)
def test_withoutTls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str, connect: str, key: str
) -> None:
    """Where what TLS needs is not installed, it is said what to install."""
    (tmp_path / "OpenSSL.py").write_text("raise ImportError('it is not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    options = ["--listen", listen, "--connect", connect, "--freezer", "none"]
    (line,) = refused(tmp_path, *options).splitlines()
    path = f"containers.container.channels.channel.{key}"
    assert line == (
        f"chanproxy: {path}: TLS is not installed here; install it: pip install 'chanproxy[tls]'"
    )


@pytest.mark.parametrize(
    ("listen", "connect", "says"),
    [
        ("tcp:0", "tls:localhost", "it lacks 'port'; write for example 'tls:example.org:443'"),
        ("tcp:0", "tls:localhost:x", "'x' is no number; write for example 'tls:example.org:443'"),
        ("tcp:0", "ssl:localhost:1:x=2", "there is no argument 'x'"),
        ("tcp:0", "tls:localhost:1:trustRoots=/no", "/no: No such file or directory; name a file"),
        ("ssl:0", "tcp:localhost:1", "server.pem: No such file or directory; name a file that can"),
        ("ssl:0:privateKey=/etc/hosts", "tcp:localhost:1", "a file of it holds no key, or no cert"),
    ],
)
def test_twistedsKinds(reactor: ChanproxyReactor, listen: str, connect: str, says: str) -> None:
    """What Twisted says of arguments that are wrong, in words for who wrote them."""
    pytest.importorskip("OpenSSL")
    channel = {"listen": listen, "connect": connect}
    (problem,) = preflight(config.fromOptions({"freezer": "none"}, channel), reactor)
    assert "Twisted says of " in problem.wrong
    assert says in problem.wrong


@pytest.mark.parametrize("path", ["/sys/fs/cgroup", "MOUNT", "/proc", "MOUNT/../x"])
def test_proposedCgroup(reactor: ChanproxyReactor, path: str) -> None:
    """Where a cgroup is not what a container can have, what is proposed is taken."""
    mount = unifiedMount()
    if mount is None:
        assert not os.environ.get("CI")
        pytest.skip("no cgroup v2 is mounted")
    freezer = f"cgroup:{path.replace('MOUNT', mount)}"
    (problem,) = preflight(config.fromOptions({"freezer": freezer}), reactor)
    found = re.search(r"write (cgroup:[^\s,]+)", problem.wrong)
    assert found, problem
    proposed = found[1].replace("NAME", f"chanproxy-{secrets.token_hex(8)}")
    assert preflight(config.fromOptions({"freezer": proposed}), reactor) == []


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
