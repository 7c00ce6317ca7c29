"""C{chanproxy check}: what is wrong or unwise in a file, with its line; the same as at a start."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chanproxy.commands.main import main
from support.cgroups import TemporaryCgroup, unifiedMount, unusable
from support.live import Live, LiveService
from support.places import DOCS, ROOT
from tests.shared.pages import blocks
from tests.shared.refusing import refused

PROGRAM = [sys.executable, "-m", "chanproxy", "check"]

mounted = pytest.mark.skipif(unifiedMount() is None, reason="no cgroup v2 is mounted")

freezes = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


def check(file: Path, *options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["check", *options, str(file)])


def written(directory: Path, text: str) -> Path:
    """A file with a text."""
    file = directory / "chanproxy.toml"
    file.write_text(text)
    return file


def said(file: Path, *options: str, status: int) -> list[str]:
    """The lines, without the file's name, which each has; and so has the object of C{--json}."""
    result = check(file, *options)
    assert (result.exit_code, result.stderr) == (status, "")
    lines = result.stdout.splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    other = check(file, "--json", *options)
    assert other.exit_code == status
    tree = json.loads(other.stdout)
    assert tree["file"] == str(file)
    assert sorted(map(shown, tree["findings"])) == sorted(lines)
    return [line.removeprefix(f"{file}:") for line in lines]


def shown(finding: dict[str, Any]) -> str:
    """One of the object's as a line."""
    where = finding["file"] if finding["line"] is None else f"{finding['file']}:{finding['line']}"
    mark = "warning: " if finding["kind"] == "warning" else ""
    sentence = finding["says"] + (f"; {finding['remedy']}" if finding["remedy"] else "")
    return ": ".join(part for part in (where, finding["key"], mark + sentence) if part)


WRONG = """\
watchdog = -1

[limits]
mesage-bytes = 1

[containers.a]
freezer = "none"
suspend = [
  "auto",
]

[containers.a.channels.c]
listen = "tcp:x"

[containers."a b"]
"""

LINES = [
    "1: watchdog: -1 is out of range; ",
    "4: limits.mesage-bytes: is not known; did you mean message-bytes?",
    "8: containers.a.suspend: is a list; ",
    "12: containers.a.channels.c.connect: is missing; ",
    "13: containers.a.channels.c.listen: 'x' is no port ",
    "15: containers.'a b': is no usable name; ",
    "15: containers.'a b'.freezer: is missing; ",
]


def test_wrong(tmp_path: Path) -> None:
    """All of it, each with its line, in their order; and so says C{twistd chanproxy}."""
    file = written(tmp_path, WRONG)
    lines = said(file, status=1)
    assert len(lines) == len(LINES)
    for line, begins in zip(lines, LINES, strict=True):
        assert line.startswith(begins)
    assert refused(tmp_path, "--config", str(file)).splitlines() == [f"{file}:{x}" for x in lines]


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (
            "x = 1\n[a\n",
            "2: Expected ']' at the end of a table declaration (at line 2, column 3); ",
        ),
        ("x = 1\ny = [\n", "2: Invalid value (at end of document); "),
        ("", " containers: has no container; "),
    ],
)
def test_syntax(text: str, begins: str, tmp_path: Path) -> None:
    """What is no TOML has its line and column; what is nowhere has no line."""
    file = written(tmp_path, text)
    (line,) = said(file, status=1)
    assert line.startswith(begins)
    assert refused(tmp_path, "--config", str(file)) == f"{file}:{line}\n"


def test_twice(tmp_path: Path) -> None:
    """Two channels that listen at the same place."""
    table = "[containers.a.channels.{}]\nlisten = '@here'\nconnect = '@there'\n"
    table = table.replace("'@", "'seqpacket:@")
    text = "[containers.a]\nfreezer = 'none'\n" + table.format("b") + table.format("c")
    lines = said(written(tmp_path, text), status=1)
    assert [line.partition(", ")[0].partition("; ")[0] for line in lines] == [
        "4: containers.a.channels.b.listen: is the same socket as containers.a.channels.c.listen",
        "7: containers.a.channels.c.listen: is the same socket as containers.a.channels.b.listen",
    ]


SYSTEM = """\
varlink = "{place}/file"
[containers.a]
freezer = "cgroup:/tmp"
control = "{place}/none/guest.sock"

[containers.a.channels.c]
listen = "seqpacket:{place}/other"
connect = "seqpacket:{place}/inside"
"""


@mounted
def test_whatOnlyTheSystemKnows(tmp_path: Path) -> None:
    """What is looked for before a start, with lines; the start says the same."""
    for name in ("file", "other"):
        (tmp_path / name).write_text("x")
    file = written(tmp_path, SYSTEM.format(place=tmp_path))
    lines = said(file, status=1)
    assert [line.partition(": ")[0] for line in lines] == ["1", "3", "4", "7"]
    assert [line.split(": ")[1] for line in lines] == [
        "varlink",
        "containers.a.freezer",
        "containers.a.control",
        "containers.a.channels.c.listen",
    ]
    assert refused(tmp_path, "--config", str(file)).splitlines() == [f"{file}:{x}" for x in lines]
    assert {path.name for path in tmp_path.iterdir()} == {"file", "other", "chanproxy.toml"}


@pytest.mark.parametrize("name", ["none.toml", "."])
def test_unreadable(name: str, tmp_path: Path) -> None:
    """No file: status 2, and so has a wrong call."""
    result = check(tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{tmp_path / name}: ".replace("/.:", ":"))
    assert result.stderr.endswith("; give a file that can be read\n")
    assert check(tmp_path / name, "--lax").exit_code == 2


UNWISE = """\
watchdog = 0
[containers.a]
freezer = "none"
"""


def test_unwise(tmp_path: Path) -> None:
    """A warning has its line, too, and is no failure, unless that is asked for, or it is meant."""
    file = written(tmp_path, UNWISE)
    lines = said(file, status=0)
    assert [line.partition("; ")[0] for line in lines] == [
        "1: watchdog: warning: 0: nobody thaws what sleeps when the service hangs or is killed",
        "3: containers.a.freezer: warning: none stops nothing: this container never sleeps, its "
        "channels are carried only",
    ]
    assert said(file, "--strict", status=1) == lines
    assert said(file, "--strict", "--accept", "watchdog", status=1) == lines[1:]
    accepted = ("--accept", "watchdog", "--accept", "containers.a.freezer")
    assert said(file, "--strict", *accepted, status=0) == []


def test_both(tmp_path: Path) -> None:
    """What is unwise is said beside what keeps it from starting."""
    text = UNWISE + f"[containers.a.channels.c]\nlisten = 'unix:{tmp_path}'\nconnect = 'unix:@x'\n"
    lines = said(written(tmp_path, text), status=1)
    assert [line.partition(": ")[0] for line in lines] == ["1", "3", "5"]
    assert "exists and is no socket" in lines[2]


PLACES = """\
[limits]
user-descriptors = {most}
wake-sources = 32768
[scheduling]
affinity = [8191]
[containers.a]
freezer = "cgroup:chanproxy-test-none"
control = "seqpacket:{place}/guest.sock:mode=666"
[containers.a.channels.c]
listen = "unix:{place}/shared/c"
connect = "unix:{place}/shared/sticky/deeper/c"
"""


@mounted
def test_places(open_: Path) -> None:
    """What is unwise only here: who can write to directories, which limits and CPUs there are."""
    for name, mode in (
        ("shared/sticky/deeper", 0o755),
        ("shared/sticky", 0o1777),
        ("shared", 0o777),
    ):
        (open_ / name).mkdir(parents=True, exist_ok=True)
        (open_ / name).chmod(mode)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1
    file = written(open_, PLACES.format(place=open_, most=most))
    lines = said(file, status=0)
    assert [line.partition(": warning: ")[0] for line in lines] == [
        "2: limits.user-descriptors",
        "5: scheduling.affinity",
        "8: containers.a.control",
        "10: containers.a.channels.c.listen",
        "11: containers.a.channels.c.connect",
    ]
    assert f"{most} is more than the {most - 1} files" in lines[0]
    assert "none of these CPUs is there" in lines[1]
    assert "every user of this machine may connect to it" in lines[2]
    # A directory with a sticky bit keeps what is in it; one without, further up, does not.
    assert f"everybody can write to {open_}/shared, " in lines[3]
    assert f"everybody can write to {open_}/shared, " in lines[4]
    (open_ / "shared").chmod(0o755)
    open_.chmod(0o700)
    assert len(said(file, status=0)) == 2


@mounted
@pytest.mark.parametrize(("key", "kind"), [("control", "seqpacket"), ("varlink", "unix")])
def test_closed(open_: Path, key: str, kind: str) -> None:
    """Access to a socket that nobody can get at."""
    (open_ / "closed").mkdir(mode=0o750)
    text = (
        f"{key} = '{kind}:{open_}/closed/control.sock:mode=666'\n"
        "[containers.a]\nfreezer = 'cgroup:chanproxy-test-none'\nwake-on = 'sockets'\n"
        "[access.dev]\ngroups = [100]\ncontainers = ['a']\n"
    )
    (line,) = said(written(open_, text), status=0)
    assert f"1: {key}: warning: nobody else can go into {open_}/closed, so access gives" in line
    (open_ / "closed").chmod(0o751)
    assert said(open_ / "chanproxy.toml", status=0) == []


class TestRunning:
    """Beside a service that runs with the file."""

    pytestmark = freezes

    def test_inUse(self, tmp_path: Path) -> None:
        """It cannot start; for one that is to be started again, that is a warning."""
        with Live(tmp_path) as live:
            live.accept()
            live.start()
            live.waitFrozen()
            file = live.configuration()
            lines = said(file, status=1)
            problems = [line for line in lines if "warning: " not in line]
            assert [line.split(": ")[1] for line in problems] == [
                "control",
                "containers.echo.freezer",
                "containers.echo.channels.rpc.listen",
            ]
            running = said(file, "--running", status=0)
            assert [line.replace("warning: ", "") for line in running] == [
                line.replace("warning: ", "") for line in lines
            ]
            # Nothing of it was touched.
            assert live.cgroup.frozen()
            live.end()
        assert said(file, status=0) == [line for line in lines if "warning: " in line]

    def test_leftFrozen(self, tmp_path: Path) -> None:
        """A start thaws what a predecessor left; this changes nothing."""
        with TemporaryCgroup() as cgroup:
            cgroup.spawn(["sleep", "1000"])
            cgroup.leaveFrozen()
            text = f"[containers.a]\nfreezer = '{cgroup.spec}'\nwake-on = 'sockets'\n"
            assert said(written(tmp_path, text), status=0) == []
            assert cgroup.frozen()


def examples() -> list[Any]:
    """All configurations in the docs, also those that shells write; each with where it is from."""
    found = []
    for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        shells = "".join(blocks(page, "sh"))
        files = re.findall(r"(?ms)^cat > \S*\.toml\"? <<END\n(.*?)^END$", shells)
        for number, text in enumerate([*blocks(page, "toml"), *files]):
            found.append(pytest.param(text, id=f"{page.stem}-{number}"))
    return found


RUN = """
mount -t tmpfs -o mode=755 run /run && mkdir /run/editor || exit
install -d -m 700 /run/chanproxy-guests && install -d -m 755 /run/chanproxy-guests/editor || exit
exec "$@"
"""
"""The directories that the docs say are there, in a /run that only this process sees."""


@mounted
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("text", examples())
def test_examples(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configuration in the docs can be used, and is wise."""
    text = text.replace("$WORK", str(tmp_path)).replace("$CGROUP", "chanproxy-test-none")
    assert "$" not in text
    command = ["unshare", "-m", "sh", "-c", RUN, "sh", *PROGRAM, "--strict"]
    # Root's runtime directory is the one that they name.
    monkeypatch.delenv("CHANPROXY_RUNTIME_DIRECTORY")
    done = run([*command, str(written(tmp_path, text))])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_allExamples() -> None:
    """There are some, and in the pages where they are expected."""
    pages = {each.id.rpartition("-")[0] for each in examples()}
    assert pages >= {
        "README",
        "configuration",
        "guest",
        "sockets",
        "tutorial",
        "howto-watch-and-hold",
    }


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A program, to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_program(tmp_path: Path) -> None:
    """As a program: the file as it was named, nothing of Twisted's on standard error."""
    written(tmp_path, UNWISE)
    done = subprocess.run(
        [*PROGRAM, "--strict", "chanproxy.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("chanproxy.toml:1: watchdog: warning: ")


@mounted
def test_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the reference shows is what it prints."""
    monkeypatch.chdir(tmp_path)
    lines = ["watchdog = 0", "[containers.web]", 'freezer = "cgroup:web"', 'wake-on = "sockets"']
    written(tmp_path, "\n".join([*lines, 'unseen = "blind"\n']))
    result = check(Path("chanproxy.toml"))
    shown = [block for block in blocks(DOCS / "configuration.md", "text") if block[0] == "$"]
    assert [f"$ chanproxy check chanproxy.toml\n{result.stdout}"] == shown[:1]


def test_atTheStart(tmp_path: Path) -> None:
    """What only shows when it starts has its line, too."""
    table = "[containers.a.channels.{0}]\nlisten = 'seqpacket:{1}/{0}'\nconnect = 'seqpacket:@x'\n"
    text = "".join(table.format(name, tmp_path) for name in "bcd")
    keys = "handled = 'explicit'\n"
    head = "[containers.a]\nfreezer = 'none'\n\n[limits]\nwake-sources = 1\n"
    file = written(tmp_path, head + text.replace("connect", f"{keys}connect"))
    assert check(file).exit_code == 0
    live = LiveService(tmp_path)
    with live.run("--config", str(file)) as process:
        assert process.wait(60) == 1
    assert live.log.read_text().count(f"[stderr#error] {file}:5: limits.wake-sources: ") == 3
