"""chanproxy hold and chanproxy run, against a real service and real cgroups; the calls behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chanproxy.commands.children import CannotRun, runChild, startChild
from chanproxy.commands.run import ownCgroup
from chanproxy.guest import CallRefused, Guest
from support.cgroups import TemporaryCgroup, unusable
from support.live import until
from tests.shared.commands import CHANPROXY, USER, asUser, cannotBecomeUser
from tests.shared.shell import Shell, cgroupsOf, removeCgroupsOf

pytestmark = [
    pytest.mark.lasts(30),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

JOB = f"job-{secrets.token_hex(6)}"
"""A container's name that nobody else has: all who run commands make their cgroups side by side."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Shell]:
    """Ended whatever happens."""
    try:
        with Shell(tmp_path) as service:
            service.start()
            yield service
    finally:
        removeCgroupsOf(JOB)


def test_hold(service: Shell) -> None:
    """Awake while the command runs; its output, its input and its status are its own."""
    with service.guest("still") as still:
        until("asleep", lambda: still.describe()["state"] == "asleep")
        holding = service.command("hold", "still", "--", "sh", "-c", "read x; echo $x; exit 7")
        until("awake", lambda: still.describe()["state"] == "awake")
        (lock,) = (s for s in still.describe()["sources"] if s["kind"] == "lock")
        assert (lock["name"], lock["active"]) == (f"hold/{holding.pid}", True)
        output, errors = holding.communicate(b"done\n", 20)
        assert (output, errors, holding.returncode) == (b"done\n", b"", 7)
        until("asleep", lambda: still.describe()["state"] == "asleep")


def test_holdSignals(service: Shell) -> None:
    """Signals go to the command; what it dies of shows in the status; nothing is left held."""
    with service.guest("still") as still:
        for script, sent, status in (
            ("trap 'exit 3' USR1; echo up; while :; do sleep 0.01; done", signal.SIGUSR1, 3),
            ("echo up; exec sleep 60", signal.SIGTERM, 128 + signal.SIGTERM),
        ):
            holding = service.command("hold", "--name", "job", "still", "--", "sh", "-c", script)
            assert holding.stdout is not None
            assert holding.stdout.readline() == b"up\n"
            holding.send_signal(sent)
            holding.communicate(timeout=20)
            assert holding.returncode == status
            until("released", lambda: still.describe()["state"] == "asleep")


def test_holdWithoutService(service: Shell) -> None:
    """Who cannot hold runs nothing; a service that goes does not end the command."""
    refused = service.command("hold", "nobody", "--", "echo", "ran")
    output, errors = refused.communicate(timeout=20)
    assert (output, refused.returncode) == (b"", 125)
    assert b"there is no container 'nobody'" in errors
    missing = service.command("hold", "still", "--", "/no/such/command")
    assert b"/no/such/command: No such file" in missing.communicate(timeout=20)[1]
    assert missing.returncode == 127
    holding = service.command("hold", "still", "--", "sh", "-c", "echo up; read x; exit 4")
    assert holding.stdout is not None
    assert holding.stdout.readline() == b"up\n"
    service.end()
    errors = holding.communicate(b"\n", 20)[1]
    assert holding.returncode == 4
    assert b"was not held to the end" in errors


def test_run(service: Shell, tmp_path: Path) -> None:
    """Asleep when idle, woken by a message, gone when it ends, with what it has left running."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    script = f"""
import os, socket, subprocess, sys
from chanproxy.guest import Guest
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind({str(inner)!r})
listening.listen()
subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(os.getpid(), Guest().describe()["name"], flush=True)
connection, _ = listening.accept()
connection.send(connection.recv(100))
sys.exit(connection.recv(100)[0])
"""
    channel = f"rpc,seqpacket:{outer},seqpacket:{inner},answered"
    running = service.command(
        *("run", "--linger", "0.02", "--starting", "0", "--channel", channel, JOB),
        *("--", sys.executable, "-c", script),
    )
    assert running.stdout is not None
    pid, name = running.stdout.readline().split()
    assert name.decode() == JOB
    with service.guest(JOB) as job:
        (directory,) = cgroupsOf(JOB)
        assert pid.decode() in (directory / "cgroup.procs").read_text().split()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(20)
            peer.connect(str(outer))
            peer.send(b"hello")
            assert peer.recv(100) == b"hello"
            until("asleep", lambda: job.describe()["state"] == "asleep")
            assert "frozen 1" in (directory / "cgroup.events").read_text()
            peer.send(b"\x09")
            output, errors = running.communicate(timeout=20)
        assert (output, errors, running.returncode) == (b"", b"", 9)
        with pytest.raises(CallRefused, match=f"there is no container '{JOB}'"):
            job.describe()
    assert not cgroupsOf(JOB)
    assert not outer.exists()


def test_runByItsOwnSockets(service: Shell) -> None:
    """With nothing said, it sleeps when its threads wait, and a connection wakes it."""
    script = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    with listening.accept()[0] as connection:
        connection.sendall(connection.recv(100))
"""
    running = service.command(
        *("run", "--linger", "0.05", "--timeouts", "all", "--max-asleep", "3600", JOB),
        *("--", sys.executable, "-c", script),
    )
    assert running.stdout is not None
    port = int(running.stdout.readline())
    with service.guest(JOB) as job:
        (directory,) = cgroupsOf(JOB)
        for _ in range(3):
            until("asleep", lambda: job.describe()["state"] == "asleep")
            assert "frozen 1" in (directory / "cgroup.events").read_text()
            with socket.create_connection(("127.0.0.1", port), 20) as peer:
                peer.sendall(b"hello")
                assert peer.recv(100) == b"hello"
        until("asleep", lambda: job.describe()["state"] == "asleep")
    running.terminate()
    running.communicate(timeout=20)
    assert running.returncode == 128 + signal.SIGTERM
    assert not cgroupsOf(JOB)


def test_runSignals(service: Shell) -> None:
    """A signal reaches a command that is asleep; one that was killed leaves nothing frozen."""
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    running = service.command(
        *("run", "--wake-on", "channels", "--starting", "1", "--linger", "0.02"),
        *(JOB, "--", "sh", "-c", script),
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    with service.guest(JOB) as job:
        until("asleep", lambda: job.describe()["state"] == "asleep")
        running.terminate()
        running.communicate(timeout=20)
        assert running.returncode == 3
        assert not cgroupsOf(JOB)
    killed = service.command(
        *("run", "--wake-on", "channels", "--starting", "1", "--linger", "0.02"),
        *(JOB, "--", "sh", "-c", script),
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"up\n"
    with service.guest(JOB) as job:
        until("asleep", lambda: job.describe()["state"] == "asleep")
        (directory,) = cgroupsOf(JOB)
        killed.kill()
        killed.wait(20)
        # Its connection is gone, and so is the container: thawed.
        until("thawed", lambda: "frozen 0" in (directory / "cgroup.events").read_text())
        with pytest.raises(CallRefused, match="there is no container"):
            job.describe()


def test_runRefused(service: Shell, tmp_path: Path) -> None:
    """A name that is taken, a place that is no cgroup, a channel that is none: a sentence."""
    for words, says in (
        (("still", "--", "true"), b"there is a container 'still' already"),
        (("--below", str(tmp_path), JOB, "--", "true"), b"is in no cgroup v2"),
        (("--channel", "a,b", JOB, "--", "true"), b"is not NAME,LISTEN,CONNECT"),
        (("--channel", "a,b,c", JOB, "--", "true"), f"{JOB}.channels.a.listen".encode()),
        ((JOB, "--", "/no/such/command"), b"No such file"),
    ):
        refused = service.command("run", *words)
        output, errors = refused.communicate(timeout=20)
        assert says in errors
        assert (output, refused.returncode in (2, 125, 127)) == (b"", True)
    assert not cgroupsOf(JOB)
    assert not cgroupsOf("still")


DEAF = 'trap "" TERM; echo deaf; while :; do sleep 1000; done'


def line(command: subprocess.Popen[bytes]) -> bytes:
    assert command.stdout is not None
    return command.stdout.readline()


def test_runOptions(service: Shell) -> None:
    """Options stand before the name or behind it; the command's own behind C{--}."""
    for words in (("--suspend", "off", JOB), (JOB, "--suspend", "off")):
        script = "echo up $0; read x"
        running = service.command("run", *words, "--", "sh", "-c", script, "--suspend")
        assert line(running) == b"up --suspend\n"
        with service.guest(JOB) as job:
            assert "suspend = off" in job.describe()["why_awake"]
        output, errors = running.communicate(b"\n", 20)
        assert (output, errors, running.returncode) == (b"", b"", 0)


def test_runEndsAll(service: Shell) -> None:
    """SIGTERM is for all that it has started; what it leaves may clean up, and is killed then."""
    tidy = (
        """sh -c 'trap "sleep 0.5; echo clean; exit" TERM; echo up; while :; do sleep 0.05; done'"""
    )
    # A shell that waits for a program does not see a signal before that has ended.
    running = service.command("run", JOB, "--", "sh", "-c", f"trap 'exit 6' TERM; {tidy}; true")
    assert line(running) == b"up\n"
    running.terminate()
    output, _ = running.communicate(timeout=60)
    assert (output, running.returncode) == (b"clean\n", 6)
    left = service.command("run", JOB, "--", "sh", "-c", f"({tidy}) & read x; exit 7")
    assert line(left) == b"up\n"
    output, _ = left.communicate(b"\n", 60)
    assert (output, left.returncode) == (b"clean\n", 7)
    deaf = service.command("run", JOB, "--grace", "0.3s", "--", "sh", "-c", f"({DEAF}) & read x")
    assert line(deaf) == b"deaf\n"
    assert deaf.communicate(b"\n", 60)[0] == b""
    assert deaf.returncode == 0
    assert not cgroupsOf(JOB)


def test_runTwice(service: Shell) -> None:
    """A second SIGTERM kills; the container is awake till then, and gone afterwards."""
    running = service.command(
        *("run", JOB, "--linger", "0.05", "--grace", "never", "--", "sh", "-c", DEAF)
    )
    assert line(running) == b"deaf\n"
    with service.guest(JOB) as job:
        until("asleep", lambda: job.describe()["state"] == "asleep")
        running.terminate()
        assert running.stderr is not None
        assert b"the signal once more kills at once" in running.stderr.readline()
        assert job.describe()["why_awake"] == "SIGTERM"
        running.terminate()
        running.communicate(timeout=60)
        assert running.returncode == 128 + signal.SIGKILL
        with pytest.raises(CallRefused, match="there is no container"):
            job.describe()
    assert not cgroupsOf(JOB)


def test_runKilled(service: Shell) -> None:
    """What a killed one has left is named by the next of that name, and ended when it is to be."""
    killed = service.command("run", JOB, "--", "sh", "-c", "echo up; exec sleep 1000")
    assert line(killed) == b"up\n"
    (directory,) = cgroupsOf(JOB)
    killed.kill()
    killed.wait(20)
    with service.guest(JOB) as job:
        until("forgotten", lambda: JOB not in names(job))
    again = service.command("run", JOB, "--", "true")
    errors = again.communicate(timeout=60)[1]
    assert again.returncode == 0
    assert f"that was killed has left processes in {directory}; end them with".encode() in errors
    assert (directory / "cgroup.procs").read_text()
    replacing = service.command("run", JOB, "--replace", "--", "true")
    errors = replacing.communicate(timeout=60)[1]
    assert (errors, replacing.returncode) == (b"", 0)
    assert not cgroupsOf(JOB)
    empty = service.command("run", JOB, "--", "sh", "-c", "echo up; exec sleep 1000")
    assert line(empty) == b"up\n"
    (directory,) = cgroupsOf(JOB)
    empty.kill()
    empty.wait(20)
    (directory / "cgroup.kill").write_text("1")
    with service.guest(JOB) as job:
        until("forgotten", lambda: JOB not in names(job))
    until("empty", lambda: "populated 0" in (directory / "cgroup.events").read_text())
    again = service.command("run", JOB, "--", "true")
    assert again.communicate(timeout=60)[1] == b""
    assert not cgroupsOf(JOB)


def names(guest: Guest) -> list[str]:
    listed = guest.call("ListContainers", {"container": None})["containers"]
    return [container["name"] for container in listed]


def test_runEarly(service: Shell, tmp_path: Path) -> None:
    """Ended while it waits for the service: the cgroup is gone, too."""
    assert service.service is not None
    service.service.send_signal(signal.SIGSTOP)
    try:
        # Again and again, for it may come in the very moment when that is made.
        for _ in range(5):
            early = service.command("run", JOB, "--", "true")
            until("made", lambda: cgroupsOf(JOB))
            early.terminate()
            early.communicate(timeout=60)
            assert early.returncode == 128 + signal.SIGTERM
            assert not cgroupsOf(JOB)
    finally:
        service.service.send_signal(signal.SIGCONT)


def test_runNames(service: Shell) -> None:
    """A name that can be none makes no cgroup anywhere."""
    for name in ("../out", "a/b", "/tmp/x"):
        refused = service.command("run", name, "--", "true")
        errors = refused.communicate(timeout=60)[1]
        assert refused.returncode == 125
        assert b"is no usable name" in errors


@pytest.mark.skipif(bool(cannotBecomeUser()), reason=cannotBecomeUser() or "can")
def test_runRights() -> None:
    """A user who may not is told what would do; in a cgroup that was delegated, it works."""
    ways = "run as root, or below a delegated cgroup (systemd-run --user -p Delegate=yes"
    with contextlib.ExitStack() as stack:
        cgroup = stack.enter_context(TemporaryCgroup())
        # Not below one that is root's.
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        os.chown(directory, USER, USER)
        service = stack.enter_context(Shell(Path(directory)))
        service.within = asUser([])
        service.start()

        def start(*words: str, enter: Sequence[str] = ()) -> tuple[str, str, int]:
            done = subprocess.run(
                [*enter, *asUser([*CHANPROXY, "run", *words])],
                env=service.environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            return done.stdout, done.stderr, done.returncode

        def refused(what: str) -> None:
            output, errors, status = start("--below", cgroup.path, JOB, "--", "echo", "began")
            assert f"user {USER} cannot {what}: Permission denied; {ways}" in errors
            assert (output, status) == ("", 125)

        refused("have it")
        for name in ("", "cgroup.procs", "cgroup.subtree_control"):
            os.chown(os.path.join(cgroup.path, name), USER, USER)
        # Who is outside may make one there, and not move into it.
        refused("start a program in it")
        enter = ["sh", "-c", f'echo 0 > {cgroup.path}/cgroup.procs && exec "$@"', "sh"]
        output, errors, status = start(JOB, "--", "cat", "/proc/self/cgroup", enter=enter)
        assert (errors, status) == ("", 0)
        assert f"{os.path.basename(cgroup.path)}/chanproxy/{JOB}-" in output
        assert not any(entry.is_dir() for entry in os.scandir(cgroup.path))


def test_calls(service: Shell, tmp_path: Path) -> None:
    """AddContainer and RemoveContainer: their errors, and the two lifetimes."""
    with service.guest("x") as guest, service.guest("x") as other:

        def add(**more: object) -> None:
            guest.call("AddContainer", {"container": None, "name": "a", "freezer": "none", **more})

        def remove(name: str) -> None:
            guest.call("RemoveContainer", {"container": None, "name": name})

        def names() -> list[str]:
            listed = other.call("ListContainers", {"container": None})["containers"]
            return [container["name"] for container in listed]

        for more, error, says in (
            ({"freezer": "vm:a"}, "InvalidParameter", "is no freezer"),
            ({"name": "still"}, "ContainerExists", "take another name"),
            ({"name": "a b"}, "InvalidParameter", "no usable name"),
            ({"linger": -1}, "InvalidParameter", "out of range"),
            ({"channels": {"c": 5}}, "InvalidParameter", "channels.c"),
            ({"freezer": "cgroup:/"}, "InvalidParameter", "cgroup:/"),
        ):
            with pytest.raises(CallRefused, match=says) as refused:
                add(**more)
            assert refused.value.error == error
        assert names() == ["still"]
        add()
        with pytest.raises(CallRefused, match="already"):
            add()
        with TemporaryCgroup() as cgroup:
            add(name="b", freezer=cgroup.spec, lifetime="connection", suspend="manual")
            with pytest.raises(CallRefused, match=r"is that of containers\.b\.freezer"):
                add(name="c", freezer=cgroup.spec, suspend="dry_run")
            assert names() == ["still", "a", "b"]
            guest.close()
            until("gone", lambda: names() == ["still", "a"])
        remove("a")
        for name, error in (("a", "ContainerNotFound"), ("still", "ContainerConfigured")):
            with pytest.raises(CallRefused) as refused:
                remove(name)
            assert refused.value.error == error
        assert names() == ["still"]


def test_sideBySide() -> None:
    """One that makes its cgroup while another removes the one above, as the last that is there."""

    def again(name: str) -> None:
        for _ in range(50):
            with ownCgroup(None, name) as own:
                assert os.path.exists(os.path.join(own.cgroup, "cgroup.procs"))

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(again, f"{JOB}-{number}") for number in range(4)]:
            future.result()


def test_children() -> None:
    """What cannot run says so, with a shell's status; the signal mask is as it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(CannotRun, match="No such file") as missing:
        runChild(["/no/such/command"])
    with pytest.raises(CannotRun, match="Permission denied") as forbidden:
        runChild(["/"])
    assert (missing.value.status, forbidden.value.status) == (127, 126)
    with startChild(["sh", "-c", 'exit "$STATUS"'], before, environment={"STATUS": "5"}) as child:
        assert child.wait(20) == 5
    assert runChild(["sh", "-c", "kill -9 $$"]) == 128 + signal.SIGKILL
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
