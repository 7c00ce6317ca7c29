"""C{chanproxy doctor}: what it says of machines that have all, and of those that lack something."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chanproxy import __version__
from chanproxy.commands.doctor import command as doctor
from chanproxy.commands.doctor import machine
from chanproxy.commands.doctor.findings import Finding
from chanproxy.freezers.frozen import FrozenRecord
from chanproxy.service.confining import BEFORE, KEPT
from support.cgroups import TemporaryCgroup, unifiedMount, unusable
from support.live import Live, childrenOf, until
from support.places import DOCS
from tests.container.boxes import untold
from tests.shared.apart import NOBODY, apart, needsRoot, ownCgroups

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
    needsRoot,
    pytest.mark.lasts(120),
]

DOCTOR = [sys.executable, "-m", "chanproxy", "doctor"]

PATIENCE = 240.0
"""Far more than it may take by itself."""


@pytest.fixture
def alone() -> Iterator[TemporaryCgroup]:
    """A cgroup that is all that the doctor sees: others leave theirs frozen beside us."""
    with TemporaryCgroup() as cgroup:
        yield cgroup


class Said:
    """
    What it said.

    @ivar kinds: of the findings, by topic.
    @ivar says: sentences and remedies, by topic.
    """

    def __init__(self, status: int, output: str) -> None:
        tree = json.loads(output)
        self.findings: list[dict[str, Any]] = tree["findings"]
        self.kinds = {each["topic"]: each["kind"] for each in self.findings}
        self.says = {each["topic"]: f"{each['says']}; {each['remedy']}" for each in self.findings}
        counts = [each["kind"] for each in self.findings]
        assert tree["problems"] == counts.count("problem")
        assert tree["warnings"] == counts.count("warning")
        assert status == (1 if tree["problems"] else 0), output
        for each in self.findings:
            # What is not as it should be has a way out, and nothing else has.
            assert (each["remedy"] is None) == (each["kind"] == "ok"), each
            assert len(str(each["says"]).splitlines()) == 1

    @property
    def wrong(self) -> list[str]:
        """The topics of all problems."""
        return [each["topic"] for each in self.findings if each["kind"] == "problem"]


def run(
    cgroup: TemporaryCgroup | None, command: Sequence[str], **environment: str
) -> tuple[int, str]:
    """A command in a cgroup: its status, and what it prints."""
    procs = os.path.join(cgroup.path, "cgroup.procs") if cgroup else os.devnull
    enter = f"echo 0 > {shlex.quote(procs)}; exec {shlex.join(command)}"
    done = subprocess.run(
        ["sh", "-c", enter],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.returncode, done.stdout


def examined(cgroup: TemporaryCgroup, user: int | None = None, before: str = "") -> Said:
    """What it says of a machine with nothing but that cgroup."""
    command = apart([*DOCTOR, "--json"], "--cgroup", before=f"{ownCgroups()}\n{before}", user=user)
    # Pytest's own directories are root's alone.
    own = {} if user is None else {"CHANPROXY_RUNTIME_DIRECTORY": "/nowhere"}
    said = Said(*run(cgroup, command, **own))
    # Nothing stays, not even for a moment.
    assert os.listdir(cgroup.path) == [name for name in os.listdir(cgroup.path) if "." in name]
    return said


def test_root(alone: TemporaryCgroup) -> None:
    """All that there is to see for root; what is tried was frozen and woken, and is gone."""
    said = examined(alone)
    assert said.wrong == []
    assert re.search(r"^Linux \d+\.\d+", said.says["kernel"])
    assert f"mounted at {unifiedMount()}" in said.says["cgroup v2"]
    assert said.kinds["pidfd_getfd"] == said.kinds["looking"] == "ok"
    assert "any user's processes" in said.says["looking"]
    assert "was frozen within" in said.says["freezing"]
    assert "woken by a connection to its socket" in said.says["waking"]
    assert said.says["cgroup"].startswith(f"one was made in {unifiedMount()}, and removed")
    assert said.kinds["marks"] == "ok"
    assert said.kinds["signals"] == ("warning" if untold() else "ok")
    assert (
        said.kinds["/proc"] == said.kinds["pid namespace"] == said.kinds["user namespace"] == "ok"
    )
    assert __version__ in said.says["python"]
    assert said.kinds["packages"] == "ok"
    assert "twisted" in said.says["packages"]
    extras = {f"chanproxy[{name}]" for name in ("http", "metrics", "perfetto", "tls")}
    assert {"engines", "SO_PEERPIDFD", *extras} <= set(said.kinds)
    assert {"open files", "epoll watches", "inotify instances", "processes"} <= set(said.kinds)


def test_text(alone: TemporaryCgroup) -> None:
    """For people: the same, a line each, and where to read on."""
    command = apart(DOCTOR, "--cgroup", before=ownCgroups())
    status, output = run(alone, command)
    *lines, last = output.splitlines()
    assert all(re.match(r"(ok|warning|problem): [^:]+: .", line) for line in lines)
    assert status == 0
    warnings = [line for line in lines if line.startswith("warning: ")]
    plural = "warning" if len(warnings) == 1 else "warnings"
    assert last.startswith(f"0 problems, {len(warnings)} {plural}; ")
    assert last.endswith("(man chanproxy)")
    # Who has installed it has no pages.
    assert "docs/" not in output
    assert all("; " in line for line in warnings)


def test_user(alone: TemporaryCgroup) -> None:
    """A user who has been given nothing, and what that one can do."""
    said = examined(alone, user=NOBODY)
    assert said.wrong == ["freezing"]
    assert f"user {NOBODY} may not make a cgroup in" in said.says["freezing"]
    assert "systemd-run --user --scope -p Delegate=yes" in said.says["freezing"]
    assert "waking" not in said.kinds
    assert said.kinds["rights"] == "warning"
    # Each right, once.
    assert sorted(re.findall(r"\bCAP_[A-Z_]+\b", said.says["rights"])) == sorted([*KEPT, *BEFORE])
    assert said.kinds["signals"] == "warning"


def test_delegated(alone: TemporaryCgroup) -> None:
    """A user to whom a cgroup was handed over has all that concerns its own processes."""
    given = f"chown -R {NOBODY} {shlex.quote(str(unifiedMount()))}"
    said = examined(alone, user=NOBODY, before=given)
    assert said.wrong == []
    assert said.kinds["freezing"] == "ok"
    looking = f"user {NOBODY}'s own processes" in said.says["looking"]
    assert looking == (said.kinds["looking"] == "ok") == ("waking" in said.kinds)
    assert said.kinds["rights"] == "warning"


def test_nothingMounted() -> None:
    """In a container of which nobody thought: no cgroups, processes of its own."""
    before = (
        "umount -l -R /sys/fs/cgroup || umount -l -R /sys\nmount -t proc -o hidepid=2 proc /proc"
    )
    command = apart([*DOCTOR, "--json"], "--pid", "--fork", before=before)
    said = Said(*run(None, command))
    assert said.wrong == ["cgroup v2"]
    assert "nothing can be frozen" in said.says["cgroup v2"]
    assert "mount -t cgroup2" in said.says["cgroup v2"]
    assert not {"freezing", "waking"} & set(said.kinds)
    assert said.kinds["pid namespace"] == "warning"
    assert "in one of its own" in said.says["pid namespace"]
    assert "pid namespace" in said.says["signals"]
    # Root sees them all the same.
    assert said.says["/proc"].startswith("processes can be seen (hidepid=")


def test_usersOfItsOwn() -> None:
    """Root of a user namespace is root there only."""
    command = apart([*DOCTOR, "--json"], "--user", "--map-root-user")
    said = Said(*run(None, command))
    assert said.kinds["user namespace"] == "warning"
    assert "worth nothing outside" in said.says["user namespace"]
    assert said.kinds["signals"] == "warning"


def test_readOnly(alone: TemporaryCgroup) -> None:
    """As most engines give it to a container: cgroups to look at."""
    mount = shlex.quote(str(unifiedMount()))
    said = examined(alone, before=f"mount -o remount,ro,bind {mount}")
    assert said.wrong == ["freezing"]
    assert "Read-only file system" in said.says["freezing"]
    assert "run outside of this container" in said.says["freezing"]


def test_hidden(alone: TemporaryCgroup) -> None:
    """A user from whom processes and the kernel's settings are hidden."""
    before = "mount -t proc -o hidepid=2,subset=pid proc /proc"
    said = examined(alone, user=NOBODY, before=before)
    proc = [each for each in said.findings if each["topic"] == "/proc"]
    assert [each["kind"] for each in proc] == ["warning", "warning"]
    assert "subset=pid" in proc[0]["says"]
    assert "hides other users' processes" in proc[1]["says"]
    assert said.kinds["epoll watches"] == "warning"
    assert "cannot be read" in said.says["epoll watches"]


def test_files(alone: TemporaryCgroup) -> None:
    """So few open files that there is next to nothing to share out."""
    command = ["prlimit", "--nofile=32", *DOCTOR, "--json"]
    said = Said(*run(alone, apart(command, "--cgroup", before=ownCgroups())))
    assert said.kinds["open files"] == "problem"
    assert "32 at most (ulimit -Hn)" in said.says["open files"]
    assert "LimitNOFILE=" in said.says["open files"]
    assert os.listdir(alone.path) == [name for name in os.listdir(alone.path) if "." in name]


def test_fewer(alone: TemporaryCgroup) -> None:
    """Fewer than the trial itself takes: it fails, says so, and leaves nothing."""
    command = ["prlimit", "--nofile=20", *DOCTOR, "--json"]
    said = Said(*run(alone, apart(command, "--cgroup", before=ownCgroups())))
    assert {"open files"} < set(said.wrong) <= {"open files", "freezing", "waking"}
    assert os.listdir(alone.path) == [name for name in os.listdir(alone.path) if "." in name]


def test_leftFrozen(alone: TemporaryCgroup, tmp_path: Path) -> None:
    """What a dead service left frozen: by its record, and by the mark of which no record tells."""
    recorded, lost = TemporaryCgroup(below=alone.path), TemporaryCgroup(below=alone.path)
    with recorded, lost:
        for cgroup in (recorded, lost):
            cgroup.spawn(["sleep", "1000"])
            cgroup.leaveFrozen()
        seen = [f"{unifiedMount()}/{os.path.basename(each.path)}" for each in (recorded, lost)]
        record = FrozenRecord(f"cgroup:{seen[0]}")
        record.write()
        runtime = tmp_path / "runtime"
        (runtime / "x.frozen").symlink_to("nowhere")
        try:
            living = look(alone)
        finally:
            # As a death does: unlocked, and not removed.
            os.close(record._fd)
        dead = look(alone)
        for cgroup in (recorded, lost):
            assert cgroup.frozen()
    # While its owner lives it is no business of ours; the mark says nothing of who that is.
    assert {each["topic"] for each in living.findings if each["kind"] == "problem"} == {
        "left frozen"
    }
    left = [each for each in dead.findings if each["topic"] == "left frozen"]
    assert left[0]["says"] == f"cgroup:{seen[0]} was frozen by a service that is gone"
    assert "'chanproxy thaw'" in left[0]["remedy"]
    assert left[1]["says"].startswith(f"{seen[1]} was frozen by a chanproxy of which nothing else")
    assert "chanproxy thaw --search" in left[1]["remedy"]
    assert len(left) == 2
    assert f"{runtime}/x.frozen: is no record: it is a symbolic link" in dead.says["records"]


def test_leftEmpty(alone: TemporaryCgroup) -> None:
    """What is left frozen with nobody in it harms nobody yet, and whoever asks goes on."""
    with TemporaryCgroup(below=alone.path) as left:
        left.leaveFrozen()
        dead = look(alone)
    (found,) = [each for each in dead.findings if each["topic"] == "left frozen"]
    assert found["kind"] == "warning"
    assert found["says"].endswith("; it is empty")
    assert not dead.wrong


def look(cgroup: TemporaryCgroup) -> Said:
    """What it says while others are below the cgroup."""
    command = apart([*DOCTOR, "--json"], "--cgroup", before=ownCgroups())
    return Said(*run(cgroup, command))


def test_runtimeDirectory(alone: TemporaryCgroup, tmp_path: Path) -> None:
    """A directory for records that others can write to: no service starts."""
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime").chmod(0o777)
    said = examined(alone)
    assert set(said.wrong) == {"records"}
    assert "chmod go-w" in said.says["records"]


class TestControl:
    """The control socket of a service, in each state."""

    def said(self, path: Path, user: int | None = None) -> dict[str, Any]:
        """What it says of it."""
        command = apart([*DOCTOR, "--json", "--socket", str(path)], user=user)
        (found,) = [
            each for each in Said(*run(None, command)).findings if each["topic"] == "control socket"
        ]
        return found

    def test_service(self, open_: Path) -> None:
        """A service that answers; one that is stopped, and so does not; what is left of it."""
        (open_ / "runtime").mkdir()
        with Live(open_) as live:
            live.accept()
            live.start()
            assert live.service is not None
            pid = live.service.pid
            found = self.said(live.control)
            assert found["kind"] == "ok"
            assert found["says"].endswith(f" (process {pid} of root, mode 600)")
            found = self.said(live.control, user=NOBODY)
            assert found["kind"] == "warning"
            assert f"user {NOBODY} may not connect" in found["says"]
            os.kill(pid, signal.SIGSTOP)
            try:
                found = self.said(live.control)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert found["kind"] == "problem"
            assert "does not answer within 2 s" in found["says"]
            live.end(signal.SIGKILL)
            found = self.said(live.control)
            assert found["kind"] == "warning"
            assert "was left by a service that is gone" in found["says"]

    def test_none(self, tmp_path: Path) -> None:
        """No socket; something else; a path too long; another program's, which says nonsense."""
        assert self.said(tmp_path / "none")["kind"] == "ok"
        (tmp_path / "file").touch()
        found = self.said(tmp_path / "file")
        assert (found["kind"], "is no socket" in found["says"]) == ("warning", True)
        found = self.said(Path("@" + "x" * 200))
        assert (found["kind"], "cannot be connected to" in found["says"]) == ("warning", True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.bind(str(tmp_path / "other"))
            other.listen()
            with other_(other, b'{"parameters": {"version": "9\\u001b.9"}}'):
                found = self.said(tmp_path / "other")
            assert found["kind"] == "warning"
            assert f"which is 9\\x1b.9; this command is {__version__}" in found["says"]
            with other_(other, b"nonsense"):
                found = self.said(tmp_path / "other")
            assert found["kind"] == "problem"
            assert "answers as no service of ours does" in found["says"]
            found = self.said(tmp_path / "other")
            assert (found["kind"], "does not answer" in found["says"]) == ("problem", True)


@contextlib.contextmanager
def other_(listening: socket.socket, answer: bytes) -> Iterator[None]:
    """Somebody who answers the next call so."""
    pid = os.fork()
    if not pid:
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.send(answer)
        connection.recv(1)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended(number: int, alone: TemporaryCgroup) -> None:
    """Whatever ends it in the middle of the trial: the cgroup goes, and what is in it."""
    process = alone.spawn([*DOCTOR, "--json"], stdout=subprocess.PIPE)

    def tries() -> str | None:
        for child in childrenOf(process.pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"chanproxy.commands.doctor.trying" in words:
                    return os.fsdecode(words[-2])
        assert process.poll() is None
        return None

    until("the trial", tries)
    directory = Path(str(tries()))
    # Also what has been started in it.
    until("its program", lambda: not directory.exists() or (directory / "cgroup.procs").read_text())
    process.send_signal(number)
    process.wait(PATIENCE)
    until("its end", lambda: not directory.exists())


REMOVE = (
    "import sys; from chanproxy.commands.removing import removeCgroup as r; print(r(sys.argv[1]))"
)


def test_withoutKill(alone: TemporaryCgroup) -> None:
    """Where a cgroup cannot be killed as a whole, as before Linux 5.14, what is in it is."""
    process = alone.spawn(["sleep", "1000"])
    alone.leaveFrozen()
    kill = shlex.quote(f"{alone.path}/cgroup.kill")
    before = f"mount --bind {kill} {kill}\nmount -o remount,ro,bind {kill}"
    command = apart([sys.executable, "-c", REMOVE, alone.path], before=before)
    assert run(None, command) == (0, "\n")
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not os.path.exists(alone.path)


@pytest.mark.parametrize(
    ("kinds", "line"),
    [
        ((), "0 problems, 0 warnings; "),
        (("problem", "warning"), "1 problem, 1 warning; "),
        (("problem", "warning", "problem", "warning"), "2 problems, 2 warnings; "),
    ],
)
def test_plural(kinds: Sequence[str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is one."""
    found = [Finding(kind, "topic", "is wrong", "mend it") for kind in kinds]
    monkeypatch.setattr(doctor, "examine", lambda socket: found)
    done = CliRunner().invoke(doctor.command, [])
    assert done.output.splitlines()[-1].startswith(line)
    assert done.exit_code == (1 if kinds else 0)


def test_rights() -> None:
    """What each right is for is said of all that a service uses."""
    assert set(machine.FOR) == {*KEPT, *BEFORE}
    page = (DOCS / "security.md").read_text()
    assert all(f"`{name}`" in page for name in machine.FOR)


def test_bounded() -> None:
    """It is over in a time that people wait for, however many others use the machine."""
    begin = time.monotonic()
    Said(*run(None, [*DOCTOR, "--json"]))
    assert time.monotonic() - begin < 120
