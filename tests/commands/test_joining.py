"""chanproxy watch as a client of a service that runs: what differs from a service of its own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.commands.joining import names
from chanproxy.guest import GuestError
from support.cgroups import TemporaryCgroup, unusable
from support.live import guardiansOf, until
from tests.shared.commands import CHANPROXY, USER, Command, asUser, cannotBecomeUser, running
from tests.shared.shell import Shell

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

WATCH = [*CHANPROXY, "watch"]

LIGHT = 18_000
"""Kilobytes; a service of its own has 40 000 and more."""

QUICKLY = ("--linger", "0.05", "--timeouts", "ignore", "--max-asleep", "never")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A service, which commands find."""
    with Shell(tmp_path) as shell:
        shell.start()
        monkeypatch.setenv("CHANPROXY_CONTROL", str(shell.control))
        yield shell


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """Not made yet."""
    with TemporaryCgroup(create=False) as cgroup:
        yield cgroup


def watch(cgroup: TemporaryCgroup, *words: str) -> list[str]:
    """Sleeping when it can, and as long as it can."""
    return [*WATCH, cgroup.spec, "--name", "it", *QUICKLY, *words]


def state(shell: Shell, name: str = "it") -> str:
    """Of a container; empty, when there is none, or nobody who knows."""
    try:
        with shell.guest(name) as guest:
            return str(guest.describe()["state"])
    except GuestError:
        return ""


def ends(command: Command) -> None:
    """As it is told to."""
    command.signal(signal.SIGTERM)
    assert command.ends() == 128 + signal.SIGTERM
    assert "Traceback" not in command.text


def test_names() -> None:
    """The shortest comes first; the last is nobody else's; one that was said is the only one."""
    own = f"-{os.getpid()}"
    assert [*names("cgroup:a")] == ["a", f"a{own}"]
    assert [*names("cgroup:b/a")] == ["a", "b-a", f"a{own}"]
    assert [*names("cgroup:b//a/")] == ["a", "b-a", f"a{own}"]
    assert [*names("cgroup:e/d/c/b/a")] == ["a", "b-a", "c-b-a", "d-c-b-a", f"a{own}"]
    assert [*names("cgroup:ä/!")] == ["container", f"container{own}"]
    assert [*names("cgroup:b/a", "web")] == ["web"]


def test_light(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """The service has it, like any other; its own process is small, and nothing freezes there."""
    with running(watch(cgroup, "--", "sleep", "1000"), tmp_path) as command:
        command.says("it: awake")
        command.says("it: asleep")
        assert state(shell) == "asleep"
        with running([*CHANPROXY, "ps", "--socket", str(shell.control)], tmp_path) as ps:
            assert ps.ends() == 0
            assert "it asleep" in ps.text
        status = Path(f"/proc/{command.pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) < LIGHT
        assert status.startswith("Name:\tchanproxy\n")
        assert guardiansOf(command.pid) == []
        ends(command)
    assert state(shell) == ""
    assert "chanproxy: " not in command.text
    assert not os.path.exists(cgroup.path)


def test_why(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """What keeps it awake is told, and what has woken it."""
    with running(watch(cgroup, "--", "sleep", "1000"), tmp_path) as command:
        command.says("it: asleep")
        with shell.guest("it") as guest, guest.wakeLock("job"):
            command.says("it: awake, woken by job")
            command.says("it: awake: ")
        command.says("it: asleep")
        ends(command)


def test_two(shell: Shell, tmp_path: Path) -> None:
    """Cgroups whose last part is the same have different names; one cgroup is watched once."""
    with TemporaryCgroup() as top:
        path = f"{os.path.basename(top.path)}-b-a"
        sleeps = ["--", "sleep", "1000"]
        first = [*WATCH, f"{top.spec}/a", *QUICKLY]
        with running([*first, *sleeps], tmp_path) as one:
            one.says("a: asleep")
            with running([*WATCH, f"{top.spec}/b/a", *QUICKLY, *sleeps], tmp_path) as two:
                two.says("b-a: asleep")
                assert sorted(shell.names()) == ["a", "b-a", "still"]
                with running(first, tmp_path) as again:
                    assert again.ends() == 1
                    assert f"{top.spec}/a: the service at {shell.control} has it" in again.text
                    assert "containers.a.freezer" in again.text
                with running([*first, *sleeps], tmp_path) as again:
                    assert again.ends() == 1
                    assert f"{top.spec}/a: it is in the hands of another" in again.text
                named = [*WATCH, f"{top.spec}/c", "--name", "a"]
                with running([*named, *sleeps], tmp_path) as again:
                    assert again.ends() == 1
                    assert "has a container a already; choose another --name" in again.text
                assert not os.path.exists(f"{top.path}/c")
                assert path not in shell.names()
                ends(two)
            ends(one)
        assert not os.path.exists(f"{top.path}/a")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restarted(
    shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path, number: signal.Signals
) -> None:
    """The program is awake while there is no service; the next one has it again."""
    with running(watch(cgroup, "--", "sleep", "1000"), tmp_path) as command:
        command.says("it: asleep")
        for _ in range(2):
            # With SIGKILL, what guards it is killed, too: nobody else thaws it.
            shell.end(number)
            command.says("chanproxy: the service has gone: it is awake until it is back")
            until("thawed", lambda: not cgroup.frozen())
            shell.start()
            command.says("chanproxy: the service is back, and has it again")
            command.says("it: awake")
            command.says("it: asleep")
            assert cgroup.frozen()
        ends(command)
    assert state(shell) == ""
    assert not os.path.exists(cgroup.path)


def test_endsMeanwhile(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Without a service it passes signals on, and ends with the program's status."""
    script = 'trap "exit 3" USR1; echo up; while :; do sleep 0.05; done'
    for number, status in ((signal.SIGUSR1, 3), (signal.SIGTERM, 128 + signal.SIGTERM)):
        with running(watch(cgroup, "--", "sh", "-c", script), tmp_path) as command:
            command.says("up")
            shell.end()
            command.says("the service has gone")
            command.signal(number)
            assert command.ends() == status
            assert not os.path.exists(cgroup.path)
        shell.start()


def test_killed(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """The service thaws and forgets what a killed one had; the next one has it again."""
    with running(watch(cgroup, "--", "sleep", "1000"), tmp_path) as command:
        command.says("it: asleep")
        (left,) = cgroup.read("cgroup.procs").split()
        command.signal(signal.SIGKILL)
        assert command.ends() == -signal.SIGKILL
        until("forgotten", lambda: shell.names() == ["still"])
        until("thawed", lambda: not cgroup.frozen())
        os.kill(int(left), 0)
    with running(watch(cgroup), tmp_path) as command:
        command.says("it: asleep")
        command.signal(signal.SIGTERM)
        assert command.ends() == 0
        assert not cgroup.frozen()
    with running(watch(cgroup, "--", "echo", "began"), tmp_path) as command:
        assert command.ends() == 1
        assert "start anew with --replace" in command.text
    with running(watch(cgroup, "--replace", "--", "sh", "-c", "exit 3"), tmp_path) as command:
        assert command.ends() == 3
    assert not os.path.exists(cgroup.path)


def test_removed(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Who removes it from the service has it run, and the program goes on."""
    with running(watch(cgroup, "--", "sleep", "1000"), tmp_path) as command:
        command.says("it: asleep")
        with shell.guest("it") as guest:
            guest.call("RemoveContainer", {"container": None, "name": "it"})
        command.says("chanproxy: it is awake, and stays so: there is no container 'it'")
        assert not cgroup.frozen()
        ends(command)


def alone(command: Command, why: str) -> None:
    """It says why, in one line, and does it by itself."""
    command.says("and this is a service of its own now: ")
    assert why in command.text
    command.says("it: asleep")
    assert len([line for line in command.lines if line.startswith("chanproxy: ")]) == 1
    assert guardiansOf(command.pid) != []
    ends(command)


def test_refused(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """A service that has no room for it: it is one of its own."""
    text = shell.file.read_text()
    shell.end()
    shell.file.write_text(f"{text}[limits]\ncontainers = 1\n")
    shell.start()
    with running(watch(cgroup, "--", "sleep", "1000"), tmp_path) as command:
        alone(command, "limits.containers")
    assert not os.path.exists(cgroup.path)


@pytest.mark.skipif(bool(cannotBecomeUser()), reason=cannotBecomeUser() or "can")
def test_otherUser(
    shell: Shell, cgroup: TemporaryCgroup, open_: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is for a user who may add none, and where the service has no right to the cgroup."""
    open_.chmod(0o777)
    cgroup.create()
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.freeze", "cgroup.kill"):
        os.chown(os.path.join(cgroup.path, name), USER, USER)
    enter = ["sh", "-c", f'echo 0 > {cgroup.path}/cgroup.procs && exec "$@"', "sh"]
    inner = [*WATCH, f"{cgroup.spec}/in", "--name", "it", *QUICKLY, "--", "sleep", "1000"]
    with running([*enter, *asUser(inner)], open_) as command:
        command.says("control.sock: Permission denied")
        command.says("it: asleep")
        ends(command)
    shell.control.chmod(0o666)
    with running([*enter, *asUser(inner)], open_) as command:
        alone(command, f"of user {USER} has no access")
    with Shell(open_) as theirs:
        theirs.within = asUser([])
        theirs.start()
        monkeypatch.setenv("CHANPROXY_CONTROL", str(theirs.control))
        with TemporaryCgroup(create=False) as ours:
            with running(watch(ours, "--", "sleep", "1000"), shell.directory) as command:
                alone(command, f"user {USER} may not write")
            assert not os.path.exists(ours.path)


def test_alone(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Where that is said; and where no service is, which is said if there was to be one."""
    for words in (["--alone"], ["--control", str(tmp_path / "own.sock")]):
        with running(watch(cgroup, *words, "--", "sleep", "1000"), tmp_path) as command:
            command.says("it: asleep")
            assert shell.names() == ["still"]
            assert "chanproxy: " not in command.text
            ends(command)
        with running(watch(cgroup, *words, "--socket", "/x"), tmp_path) as command:
            assert command.ends() == 2
            assert f"--socket is for a service that runs, and {words[0]} for none" in command.text
    missing = ["--socket", str(tmp_path / "missing.sock")]
    with running(watch(cgroup, *missing, "--", "sh", "-c", "exit 3"), tmp_path) as command:
        assert command.ends() == 3
        assert "missing.sock: No such file or directory" in command.text


def test_foreignDirectory(shell: Shell, cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Nothing is loaded from the directory in which it is started."""
    for name in ("json", "chanproxy"):
        (tmp_path / f"{name}.py").write_text('raise SystemExit("loaded")')
    argv = [sys.executable, "-P", *watch(cgroup, "--", "sh", "-c", "exit 3")[1:]]
    with running(argv, tmp_path, cwd=tmp_path) as command:
        assert command.ends() == 3
        assert "it: awake" in command.lines
