"""chanproxy run and chanproxy hold, while their service is stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.guest import CallRefused, Guest, GuestError, ServiceGone
from support.cgroups import unusable
from support.live import PATIENCE, until
from tests.shared.shell import Shell, cgroupsOf, removeCgroupsOf

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

JOB = f"job-{secrets.token_hex(6)}"

WORKS = """
import os, select, sys, time
# What it is given it gives back; nothing else wakes it.
print("up", os.getpid(), flush=True)
while True:
    data = os.read(0, 100)
    if not data or data == b"end\\n":
        sys.exit(7)
    os.write(1, data)
"""

RUN = ("run", "--linger", "0.05", "--timeouts", "ignore", "--max-asleep", "never", JOB)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Ended whatever happens."""
    try:
        with Shell(tmp_path) as shell:
            shell.start()
            yield shell
    finally:
        removeCgroupsOf(JOB)


def line(started: subprocess.Popen[bytes], stderr: bool = False) -> str:
    """The next one that a command writes, within a bound; not buffered, so that all waits."""
    pipe = started.stderr if stderr else started.stdout
    assert pipe is not None
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], PATIENCE)
        assert ready, f"nothing was said but {text!r}"
        piece = os.read(pipe.fileno(), 1)
        assert piece, f"it has ended: {text!r}"
        text += piece
    return text.decode()


def say(started: subprocess.Popen[bytes], text: bytes) -> None:
    """Write to a command."""
    assert started.stdin is not None
    started.stdin.write(text)
    started.stdin.flush()


def state(guest: Guest) -> str:
    """Of a container; empty, when there is none, or nobody who knows."""
    try:
        return str(guest.describe()["state"])
    except GuestError:
        return ""


class Job:
    """A command of C{chanproxy run} that is asleep."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.running = shell.command(*RUN, "--", sys.executable, "-c", WORKS)
        up, pid = line(self.running).split()
        assert up == "up"
        self.pid = int(pid)
        (self.directory,) = cgroupsOf(JOB)
        self.fallAsleep()

    def fallAsleep(self) -> None:
        """Until the kernel says so."""
        until("asleep", self.frozen)

    def frozen(self) -> bool:
        return "frozen 1" in (self.directory / "cgroup.events").read_text()

    def echoes(self) -> None:
        """It runs, and is the same."""
        say(self.running, b"hello\n")
        assert line(self.running) == "hello\n"
        os.kill(self.pid, 0)

    def ends(self) -> None:
        """As its command does, and nothing of it is left."""
        output, errors = self.running.communicate(b"end\n", PATIENCE)
        assert (output, errors, self.running.returncode) == (b"", b"", 7)
        assert not cgroupsOf(JOB)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run(shell: Shell, number: int) -> None:
    """It runs on, awake, while there is no service, and is a container of the next one."""
    job = Job(shell)
    for _ in range(2):
        # With SIGKILL, what guards it is killed, too: nobody else thaws it.
        shell.end(number)
        said = line(job.running, stderr=True)
        assert said == f"chanproxy: the service has gone: {JOB} runs on, awake, until it is back\n"
        until("thawed", lambda: not job.frozen())
        job.echoes()
        shell.start()
        said = line(job.running, stderr=True)
        assert said == f"chanproxy: the service is back, and has {JOB} again\n"
        job.fallAsleep()
        job.echoes()
        job.fallAsleep()
    job.ends()


def test_runEndsMeanwhile(shell: Shell) -> None:
    """Without a service it ends with the command's status, at once, and takes signals."""
    job = Job(shell)
    shell.end()
    line(job.running, stderr=True)
    job.ends()
    shell.start()
    job = Job(shell)
    shell.end(signal.SIGKILL)
    line(job.running, stderr=True)
    job.running.terminate()
    # Not by communicate: that closes its input, at whose end it ends by itself.
    assert job.running.wait(PATIENCE) == 128 + signal.SIGTERM
    job.running.communicate(timeout=PATIENCE)
    assert not cgroupsOf(JOB)


def used(pid: int) -> float:
    """Seconds of a processor that a process has used, proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_noBusyLoop(shell: Shell) -> None:
    """Waiting for a service costs next to nothing, and is told once."""
    job = Job(shell)
    shell.end()
    line(job.running, stderr=True)
    before = used(job.running.pid)
    time.sleep(3)
    assert used(job.running.pid) - before < 0.3
    assert job.running.stderr is not None
    assert not select.select([job.running.stderr], [], [], 0)[0]
    job.ends()


def test_runPausedByOthers(shell: Shell) -> None:
    """What somebody else has paused stays so when the service goes."""
    job = Job(shell)
    with shell.guest(JOB) as guest:
        guest.acquireWakeLock("awake")
        # Its mark is off by then, too.
        until("awake", lambda: guest.describe()["state"] == "awake")
        (job.directory / "cgroup.freeze").write_text("1")
        until("paused", job.frozen)
        shell.end(signal.SIGKILL)
    line(job.running, stderr=True)
    assert (job.directory / "cgroup.freeze").read_text() == "1\n"
    (job.directory / "cgroup.freeze").write_text("0")
    job.echoes()
    job.ends()


def test_runRefused(shell: Shell) -> None:
    """A service that is back and does not take it: the reason, once; until it does."""
    job = Job(shell)
    shell.end()
    line(job.running, stderr=True)
    text = shell.file.read_text()
    shell.file.write_text(f'{text}[containers.{JOB}]\nfreezer = "none"\n')
    shell.start()
    said = line(job.running, stderr=True)
    assert said.startswith(f"chanproxy: the service is back, but does not have {JOB}: there is a ")
    job.echoes()
    shell.file.write_text(text)
    assert shell.service is not None
    shell.service.send_signal(signal.SIGHUP)
    # Nothing was said in between.
    assert line(job.running, stderr=True).endswith(f"and has {JOB} again\n")
    job.fallAsleep()
    job.ends()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_hold(shell: Shell, number: int) -> None:
    """The next service holds the container as well; in between it is said that nobody does."""
    holding = shell.command("hold", "still", "--", "sh", "-c", "echo up; read x; exit 4")
    assert line(holding) == "up\n"
    shell.end(number)
    said = line(holding, stderr=True)
    assert said == "chanproxy: the service has gone: still is not held until it is back\n"
    shell.start()
    said = line(holding, stderr=True)
    assert said == "chanproxy: the service is back: still is held again\n"
    with shell.guest("still") as still:
        (lock,) = (each for each in still.describe()["sources"] if each["kind"] == "lock")
        assert (lock["name"], lock["active"]) == (f"hold/{holding.pid}", True)
        output, errors = holding.communicate(b"\n", PATIENCE)
        assert (output, errors, holding.returncode) == (b"", b"", 4)
        until("asleep", lambda: state(still) == "asleep")


def test_holdEndsMeanwhile(shell: Shell) -> None:
    """What nobody holds is not held to the end, which is said."""
    holding = shell.command("hold", "still", "--", "sh", "-c", "echo up; read x; exit 4")
    assert line(holding) == "up\n"
    shell.end()
    line(holding, stderr=True)
    errors = holding.communicate(b"\n", PATIENCE)[1]
    assert errors.startswith(b"chanproxy: still was not held to the end: ")
    assert holding.returncode == 4


def test_guest(shell: Shell) -> None:
    """A program sees which connection it has, and that its service has gone."""
    with shell.guest("still") as guest:
        assert (guest.connected, guest.fileno()) == (0, -1)
        guest.describe()
        assert (guest.connected, guest.fileno() >= 0) == (1, True)
        # What a service refuses costs no connection.
        with pytest.raises(CallRefused):
            guest.releaseWakeLock("none")
        assert guest.connected == 1
        shell.end()
        # The kernel tells.
        assert select.select([guest], [], [], PATIENCE)[0]
        assert guest.connected == 0
        with contextlib.suppress(ServiceGone):
            guest.describe()
        shell.start()
        guest.describe()
        assert guest.connected == 2
    assert (guest.connected, guest.fileno()) == (0, -1)
