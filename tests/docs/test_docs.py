"""The docs' examples run, and the docs' picture is the machine's."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from chanproxy import config
from chanproxy.adopt.settings import Adoption
from chanproxy.commands.units import unit
from chanproxy.kernel.keepalive import Keepalive
from chanproxy.service.tap import Options
from support.cgroups import unusable
from support.live import until
from support.places import DOCS, EXAMPLES, ROOT
from support.rooms import modules
from tests.shared.pages import PATIENCE, blocks, runs, started, unsaid

pytestmark = pytest.mark.lasts(60)


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_tutorial(tmp_path: Path) -> None:
    """Its blocks do what it says, and leave nothing behind."""
    output, cgroup = runs(DOCS / "tutorial.md", "chanproxy-tutorial", tmp_path)
    frozen = [line for line in output.splitlines() if line.startswith("frozen ")]
    # What is in between depends on how long a busy machine takes to look.
    assert frozen[0] == "frozen 1", output
    assert frozen[-2:] == ["frozen 0", "frozen 0"], output
    assert "packet 3, with a descriptor: echoed after" in output
    assert re.search(r"^echo: woken by .*\nmain  ", output, re.MULTILINE), output
    assert f"thawed cgroup:{cgroup}" in output
    assert len(blocks(DOCS / "tutorial.md", "text")) > 8
    assert unsaid(DOCS / "tutorial.md", output) == [], output


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_watchAndHold(tmp_path: Path) -> None:
    """Its blocks do what it says, and leave nothing behind."""
    output, _ = runs(DOCS / "howto-watch-and-hold.md", "chanproxy-howto", tmp_path)
    lines = output.splitlines()
    refusal = "org.chanproxy.Manager.WakeLocksExist: held wake locks keep the container awake: "
    for name, said in (("backup", "stays awake"), ("doorbell", "the doorbell rings")):
        at = lines.index(said)
        assert lines[at - 1] == f"{refusal}'{name}'; have them released first", output
    changes = [json.loads(line) for line in lines if line.startswith('{"state": ')]
    assert [(change["state"], change["reason"]) for change in changes] == [
        ("awake", ""),
        ("asleep", ""),
        ("awake", "timeout"),
        ("asleep", ""),
        ("awake", "breakfast"),
        ("asleep", ""),
        ("awake", "lunch"),
    ], output
    answers = [json.loads(line) for line in lines if line.startswith('{"suspend_time": ')]
    reasons = [answer["resume_reason"] for answer in answers]
    assert reasons == ["timeout", "breakfast", "lunch", "timeout"], output
    assert answers[0]["suspend_time"] >= 500_000_000
    ends = [re.fullmatch(r"asleep for (\d+\.\d) s, until: example", line) for line in lines]
    assert [float(end[1]) >= 0.1 for end in ends if end] == [True], output


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_trouble(tmp_path: Path) -> None:
    """Its blocks do what it says, print what it shows, and leave nothing behind."""
    page = DOCS / "trouble.md"
    output, _ = runs(page, "chanproxy-trouble", tmp_path)
    assert sum(len(block.splitlines()) for block in blocks(page, "text")) > 10
    assert unsaid(page, output) == [], output


def test_sentences() -> None:
    """What the page about trouble has of sentences is what the package says."""
    text = (DOCS / "trouble.md").read_text()
    words = re.findall(r"`([^`]+)`", "".join(re.findall(r"(?m)^\| (`.*?) \|", text)))
    assert len(words) > 15
    source = "".join(path.read_text() for _, path in modules())
    assert [each for each in words if each not in source] == []


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_reload(tmp_path: Path) -> None:
    """Its blocks do what it says, and leave nothing behind."""
    output, _ = runs(DOCS / "howto-reload.md", "chanproxy-reload", tmp_path)
    lines = output.splitlines()
    said = ["container mail: added", "frozen 1"]
    at = lines.index(said[0])
    assert lines[at : at + 2] == said, output
    assert "container editor: changed: linger" in lines, output
    at = lines.index("as before")
    wrong = re.compile(r"chanproxy: /\S+/chanproxy\.toml:\d+: containers\.mail\.")
    assert all(map(wrong.match, lines[at - 2 : at])), output
    assert lines[at + 1] == "nothing has changed", output
    again = "chanproxy: the service is back, and has job again"
    assert lines[lines.index(again) - 1].endswith("job runs on, awake, until it is back"), output


def test_useEndpoint(tmp_path: Path) -> None:
    """The Twisted example answers the tutorial's peer, and is short."""
    program, path, log = EXAMPLES / "use_endpoint.py", tmp_path / "socket", tmp_path / "log"
    with started([sys.executable, program, path], tmp_path, log) as server:
        until("listening", lambda: server.poll() is not None or "listening" in log.read_text())
        assert server.poll() is None, log.read_text()
        peer = subprocess.run(
            [sys.executable, str(EXAMPLES / "peer.py"), str(path)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert peer.returncode == 0, peer.stderr
    assert len(peer.stdout.splitlines()) == 4
    assert len(program.read_text().splitlines()) <= 50


def test_lifecycle(tmp_path: Path) -> None:
    """The picture in the docs is the machine's; another one is refused with a sentence."""
    check = [sys.executable, "-m", "docs.draw_lifecycle", "--check"]
    same = subprocess.run(check, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert (same.returncode, same.stderr) == (0, "")
    (tmp_path / "lifecycle.dot").write_text("digraph lifecycle {}\n")
    there = [*check, "--directory", str(tmp_path)]
    other = subprocess.run(there, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert other.returncode == 1
    assert "does not show the machine" in other.stderr


def test_configuration() -> None:
    """Every TOML block can be used, and the reference leaves out no key or option."""
    reference = DOCS / "configuration.md"
    for file in (ROOT / "README.md", reference):
        (block,) = blocks(file, "toml")
        assert config.load(block).containers
    text = reference.read_text()
    for name, *_ in Options.optParameters:
        assert f"`--{name} " in text or f"| `{name}` |" in text
    # Where the attribute is not called as the key is.
    called = {"adoption": "wake-on", "keepalive": "keepalive-idle"}
    tables = (config.Limits, config.Container, config.Channel, config.AccessEntry, config.History)
    for table in (*tables, Adoption):
        for field in attrs.fields(table):
            key = re.sub("[A-Z]", lambda letter: f"-{letter[0].lower()}", field.name)
            key = called.get(key, key)
            # Names of tables, and tables in tables, are no keys of their own.
            assert f"| `{key}` |" in text or field.name in ("name", "channels")


def test_keepalive() -> None:
    """Its keys stand in the reference, with the defaults."""
    text = (DOCS / "configuration.md").read_text()
    for field in attrs.fields(Keepalive):
        (line,) = re.findall(rf"^\| `keepalive-{field.name}` \|.*$", text, re.MULTILINE)
        assert f"| {field.default} |" in line


def test_wake(tmp_path: Path) -> None:
    """The picture of a wake is that of the recorded trace; a trace without one is a sentence."""
    draw = [sys.executable, str(DOCS / "draw_trace.py"), "--check"]
    same = subprocess.run(draw, capture_output=True, text=True, timeout=PATIENCE)
    assert (same.returncode, same.stderr) == (0, "")
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    other = subprocess.run([*draw, empty], capture_output=True, text=True, timeout=PATIENCE)
    assert other.returncode == 1
    assert "it has no wake by a message" in other.stderr


def _tests(file: Path) -> set[str]:
    """The names of a file's tests, as pytest writes them behind the file's."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        inner = [node]
        prefix = ""
        if isinstance(node, ast.ClassDef):
            inner, prefix = node.body, f"{node.name}::"
        for each in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + each.name)
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_security() -> None:
    """Each test that the threat model names is there, each limit is in the reference."""
    text = (DOCS / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", text)
    assert len(named) > 80
    # Every mention, written in whatever way, is one of these.
    assert text.count("test_") == sum(f"{file}::{test}".count("test_") for file, test in named)
    missing = [f"{f}::{t}" for f, t in named if t not in _tests(ROOT / f)]
    assert missing == []
    reference = (DOCS / "configuration.md").read_text()
    for key in re.findall(r"`limits\.([\w-]+)`", text):
        assert f"| `{key}` |" in reference
    for directive in re.findall(r"^(\w+)=", blocks(DOCS / "security.md", "ini")[0], re.MULTILINE):
        # Argued, each of them.
        assert directive == "ExecStart" or f"`{directive}=" in text


def test_systemd() -> None:
    """Each directive of the units has its reason, as has each that is not in them; files load."""
    page = DOCS / "howto-systemd.md"
    there, _, missing = page.read_text().partition("What is not there, ")
    for user in (False, True):
        text = unit("/t", "/c", "/f", user)
        directives = set(re.findall(r"^(\w+)=", text, re.MULTILINE)) - {"Description"}
        assert len(directives) > 12
        for directive in directives:
            assert f"`{directive}=" in there, directive
        left = re.findall(r"`(\w+)=(\w*)`[^|]* \| ", missing)
        assert len(left) > 8
        for directive, value in left:
            assert f"\n{directive}={value}" not in text
    for block in blocks(page, "toml"):
        config.load(block)
