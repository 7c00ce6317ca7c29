"""
chanproxy watch with a program: what it starts is ended with it, and leaves nothing behind.

As a service of its own, and as a client of one that runs.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import guardiansOf, until
from support.ports import freePort
from support.processes import processState
from support.programs import find
from tests.shared.commands import CHANPROXY, Command, asUser, cannotBecomeUser, running
from tests.shared.shell import Shell

pytestmark = [
    pytest.mark.lasts(60),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

WATCH = [*CHANPROXY, "watch"]

TREE = ["sh", "-c", "sleep 1000 & sleep 1000"]
"""A shell that does not pass signals on, and two others."""

DEAF = ["sh", "-c", 'trap "" TERM; echo deaf; while :; do sleep 1000; done']


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One for all of them: each has its own name in it, and is gone when it has ended."""
    with Shell(tmp_path_factory.mktemp("service")) as service:
        service.start()
        yield service


@pytest.fixture(params=["alone", "joined"])
def way(
    service: Shell, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """How it is run; nothing of it is left in the service."""
    monkeypatch.delenv("CHANPROXY_CONTROL", raising=False)
    if request.param == "joined":
        monkeypatch.setenv("CHANPROXY_CONTROL", str(service.control))
    yield request.param
    until("forgotten", lambda: service.names() == ["still"])


both = pytest.mark.usefixtures("way")


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """Not made yet."""
    with TemporaryCgroup(create=False) as cgroup:
        yield cgroup


def watch(cgroup: TemporaryCgroup, *words: str) -> list[str]:
    return [*WATCH, cgroup.spec, "--name", "it", *words]


def inside(cgroup: TemporaryCgroup) -> list[int]:
    return list(map(int, cgroup.read("cgroup.procs").split()))


def names(cgroup: TemporaryCgroup) -> list[str]:
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in inside(cgroup)]


def killed(command: Command) -> None:
    """With what guards it, as by systemd or for want of memory; the program lives."""
    guardians = guardiansOf(command.pid)
    command.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, command.pid, os.WSTOPPED)
    for guardian in guardians:
        os.kill(guardian, signal.SIGKILL)
    command.signal(signal.SIGKILL)
    command.process.wait(20)


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_tree(cgroup: TemporaryCgroup, tmp_path: Path, number: int) -> None:
    """It and all that it has started ends, asleep or not; the same once more."""
    for asleep in (True, False):
        with running(watch(cgroup, "--linger", "0.05", "--", *TREE), tmp_path) as command:
            if asleep:
                command.says("it: asleep")
            # Between fork and exec, the shell's child loses SIGINT.
            until("both", lambda: names(cgroup).count("sleep") == 2)
            command.signal(number)
            # A shell's child in the background ignores SIGINT: it is told otherwise.
            assert command.ends() == 128 + number
            assert not os.path.exists(cgroup.path)
            assert "Traceback" not in command.text


@both
def test_npm(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """A runner with a shell with two programs, one of which serves."""
    if find("npm") is None or find("node") is None:
        pytest.skip("not installed: npm")
    port = freePort()
    (tmp_path / "package.json").write_text(
        '{"scripts": {"start": "node -e \\"setInterval(() => {}, 1e6)\\" & node s.js"}}'
    )
    (tmp_path / "s.js").write_text(
        f'require("http").createServer().listen({port}, "127.0.0.1", () => console.log("is up"))'
    )
    for _ in range(2):
        with running(watch(cgroup, "--", "npm", "start"), tmp_path, cwd=tmp_path) as command:
            command.says("is up")
            command.signal(signal.SIGTERM)
            command.ends()
            assert not os.path.exists(cgroup.path)
            assert "EADDRINUSE" not in command.text


@both
def test_leavesOthers(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """What a program leaves when it ends by itself, in a cgroup that it has made, too."""
    script = (
        f"mkdir -p {cgroup.path}/in/side; sleep 1000 & echo $! > {cgroup.path}/in/side/cgroup.procs"
    )
    with running(watch(cgroup, "--", "sh", "-c", f"{script}; exit 5"), tmp_path) as command:
        assert command.ends() == 5
        assert "the program has ended; what it has left is told to end, too: s" in command.text
        assert not os.path.exists(cgroup.path)


@both
def test_hasTime(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """A program that is told to end may take its time, and start others meanwhile."""
    script = 'trap "sleep 1.5 && echo clean; exit 3" TERM; echo up; while :; do sleep 0.05; done'
    with running(watch(cgroup, "--", "sh", "-c", script), tmp_path) as command:
        command.says("up")
        command.signal(signal.SIGTERM)
        assert command.ends() == 3
        assert "clean" in command.lines
        assert "chanproxy: waits" in command.text


@both
def test_grace(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """What does not end is killed when the time is over."""
    with running(watch(cgroup, "--grace", "0.3", "--", *DEAF), tmp_path) as command:
        command.says("deaf")
        command.signal(signal.SIGTERM)
        assert command.ends() == 128 + signal.SIGKILL
        assert not os.path.exists(cgroup.path)


@both
def test_secondSignal(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """At once, however long the time is; also where the program itself has ended."""
    with running(watch(cgroup, "--grace", "3600", "--", *DEAF), tmp_path) as command:
        command.says("deaf")
        command.signal(signal.SIGTERM)
        command.says("the signal once more kills at once")
        command.signal(signal.SIGINT)
        assert command.ends() == 128 + signal.SIGKILL
        assert not os.path.exists(cgroup.path)
    left = ["sh", "-c", f"({DEAF[2]}) & read x"]
    with running(
        watch(cgroup, "--grace", "never", "--", *left), tmp_path, stdin=subprocess.PIPE
    ) as command:
        command.says("deaf")
        assert command.process.stdin is not None
        command.process.stdin.close()
        command.says("chanproxy: waits for")
        command.signal(signal.SIGTERM)
        assert command.ends() == 1
        assert not os.path.exists(cgroup.path)


COUNTS = """
import signal, socket, time
told, (reads, writes) = [], socket.socketpair()
writes.setblocking(False)
signal.set_wakeup_fd(writes.fileno())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: told.append(number))
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
print("up", len(mask), flush=True)
while not {signal.SIGINT, signal.SIGTERM} & {*told}:
    reads.recv(1)
end = time.monotonic() + 0.3
while time.monotonic() < end:
    time.sleep(0.01)
print("told", *told, flush=True)
"""


@both
def test_stopped(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """One that is stopped, or ignores SIGINT, is told as well; where SIGTERM does, nobody waits."""
    script = 'trap "" INT; trap "echo told; exit 3" TERM; echo up; kill -STOP $$; sleep 1000'
    argv = watch(cgroup, "--grace", "never", "--linger", "60", "--", "sh", "-c", script)
    with running(argv, tmp_path) as command:
        command.says("up")
        until("stopped", lambda: processState(inside(cgroup)[0]) == "T")
        command.signal(signal.SIGINT)
        assert command.ends() == 3
        assert "told" in command.lines


IMPATIENT = """
import signal, socket
told, (reads, writes) = [], socket.socketpair()
writes.setblocking(False)
signal.set_wakeup_fd(writes.fileno())
signal.signal(signal.SIGINT, lambda number, frame: told.append(number))
print("up", flush=True)
reads.recv(1)
print("told once", flush=True)
reads.settimeout(3)
try:
    reads.recv(1)
except TimeoutError:
    print("not told again", flush=True)
"""


@both
def test_terminal(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """What the terminal has sent to all is not sent again: many take a second one for haste."""
    argv = watch(cgroup, "--linger", "60", "--", sys.executable, "-c", IMPATIENT)
    main, other = pty.openpty()
    try:

        def own() -> None:
            os.setsid()
            os.close(os.open(os.ttyname(other), os.O_RDWR))

        with running(argv, tmp_path, stdin=other, preexec_fn=own) as command:
            command.says("up")
            # Two at the same time would be one.
            command.signal(signal.SIGSTOP)
            os.write(main, b"\x03")
            command.says("told once")
            command.signal(signal.SIGCONT)
            command.says("not told again")
            assert command.ends() == 0
    finally:
        os.close(main)
        os.close(other)


@both
def test_otherSignals(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Those that do not stop it are the program's alone, and it is woken for them."""
    argv = watch(cgroup, "--linger", "0.05", "--", sys.executable, "-c", COUNTS)
    with running(argv, tmp_path) as command:
        command.says("up 0")
        for number in (signal.SIGHUP, signal.SIGUSR1):
            command.says("it: asleep")
            command.signal(number)
            command.says(f"it: awake, woken by {number.name}")
        command.signal(signal.SIGTERM)
        command.says(f"told {signal.SIGHUP:d} {signal.SIGUSR1:d} {signal.SIGTERM:d}")
        assert command.ends() == 0


@both
def test_nohup(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Without a program it outlives its terminal, when it is told to."""
    cgroup.create()
    cgroup.spawn(["sleep", "1000"])
    argv = ["nohup", *watch(cgroup, "--linger", "0.05")]
    with running(argv, tmp_path, stdin=subprocess.DEVNULL) as command:
        command.says("it: asleep")
        command.signal(signal.SIGHUP)
        cgroup.spawn(["sleep", "1000"])
        command.says("it: awake")
        command.signal(signal.SIGTERM)
        assert command.ends() == 0


@both
def test_nobodyReads(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Who has read what it prints is gone: the program goes on, without a word."""
    reads, writes = os.pipe()
    works = "timeout 4 sh -c 'while :; do :; done'; exit 4"
    with subprocess.Popen(
        watch(cgroup, "--linger", "0.05", "--", "sh", "-c", works),
        stdout=writes,
        stderr=subprocess.PIPE,
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(tmp_path / "runtime")),
    ) as process:
        os.close(writes)
        os.read(reads, 1)
        os.close(reads)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (4, b"")
    assert not os.path.exists(cgroup.path)


@both
def test_cannotStart(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """A program that is not there, or is none: a shell's status, and no cgroup."""
    for program, status in (("/no/such/program", 127), ("/etc/passwd", 126)):
        with running(watch(cgroup, "--", program), tmp_path) as command:
            assert command.ends() == status
            assert command.text.startswith(f"{program}: ")
            assert not os.path.exists(cgroup.path)


@both
def test_parents(tmp_path: Path) -> None:
    """Those above are made, and go with it, but not those that were there."""
    with TemporaryCgroup() as top:
        for kept in ("", "a"):
            if kept:
                os.mkdir(f"{top.path}/a")
            with running(
                [*WATCH, f"{top.spec}/a/b/c", "--", "sh", "-c", "exit 6"], tmp_path
            ) as command:
                assert command.ends() == 6
            assert [
                entry for entry in os.listdir(top.path) if os.path.isdir(f"{top.path}/{entry}")
            ] == ([kept] if kept else [])
            assert not os.path.exists(f"{top.path}/a/b")


@both
def test_parentsOfTwo(tmp_path: Path) -> None:
    """One above that two use goes with the last, whoever has made it."""
    with TemporaryCgroup() as top:
        one, two = ([*WATCH, f"{top.spec}/a/{name}", "--", "sleep", "1000"] for name in "bc")
        with running(one, tmp_path) as first, running(two, tmp_path) as second:
            for command in (first, second):
                command.says("awake")
            for command in (first, second):
                assert os.path.exists(f"{top.path}/a")
                command.signal(signal.SIGTERM)
                assert command.ends() == 128 + signal.SIGTERM
        assert not os.path.exists(f"{top.path}/a")


def test_killed(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """The next thaws what it has left, and says what that is; C{--replace} ends it."""
    argv = watch(cgroup, "--linger", "0.05")
    with running([*argv, "--", *TREE], tmp_path) as command:
        until("asleep", cgroup.frozen)
        left = inside(cgroup)
        killed(command)
        assert cgroup.frozen()
        with running([*argv, "--", "echo", "began"], tmp_path) as again:
            assert again.ends() == 1
            assert f"sleep[{left[-1]}]" in again.text
            assert f"left which was killed (process {command.pid})" in again.text
            assert "start anew with --replace" in again.text
        assert not cgroup.frozen()
        assert inside(cgroup) == left
        # What it says otherwise.
        with running(argv, tmp_path) as again:
            again.says("it: asleep")
            again.signal(signal.SIGTERM)
            assert again.ends() == 0
        assert inside(cgroup) == left
        with running(
            [*argv, "--replace", "--", "sh", "-c", "echo began; exit 3"], tmp_path
        ) as again:
            assert again.ends() == 3
            assert "began" in again.lines
        assert not os.path.exists(cgroup.path)


def test_killedAndEmpty(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """One with nothing in it any more, and frozen still, is taken as if it were new."""
    argv = watch(cgroup, "--linger", "0.05", "--")
    with running([*argv, *TREE], tmp_path) as command:
        until("asleep", cgroup.frozen)
        killed(command)
        cgroup.write("cgroup.kill", "1")
        until("empty", lambda: not inside(cgroup))
        os.mkdir(f"{cgroup.path}/inside")
        assert cgroup.read("cgroup.freeze") == "1\n"
        with running([*argv, "sh", "-c", "exit 3"], tmp_path) as again:
            assert again.ends() == 3
        assert not os.path.exists(cgroup.path)


@both
def test_killedAbove(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """So is one above it, which a killed one has made, and what is empty inside goes with it."""
    with running([*WATCH, f"{cgroup.spec}/in", "--", *TREE], tmp_path) as command:
        command.says("in: awake")
        killed(command)
        cgroup.write("cgroup.kill", "1")
        until("empty", lambda: "populated 0" in cgroup.read("cgroup.events"))
        with running(watch(cgroup, "--", "sh", "-c", "exit 3"), tmp_path) as again:
            assert again.ends() == 3
        assert not os.path.exists(cgroup.path)


@both
def test_notOurs(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """One that somebody else has made: used while it is empty, left as it was, never emptied."""
    cgroup.create()
    os.mkdir(f"{cgroup.path}/theirs")
    with running(
        watch(cgroup, "--", "sh", "-c", f"mkdir {cgroup.path}/ours; exit 3"), tmp_path
    ) as command:
        assert command.ends() == 3
    assert os.path.exists(f"{cgroup.path}/theirs")
    assert not os.path.exists(f"{cgroup.path}/ours")
    stranger = cgroup.spawn(["sleep", "1000"])
    for words in ((), ("--replace",)):
        with running(watch(cgroup, *words, "--", "echo", "began"), tmp_path) as command:
            assert command.ends() == 1
            assert f"processes are in it (sleep[{stranger.pid}]) that no command of" in command.text
            assert "began" not in command.lines
    assert stranger.poll() is None
    assert inside(cgroup) == [stranger.pid]
    cgroup.kill()
    cgroup.write("cgroup.freeze", "1")
    with running(watch(cgroup, "--", "echo", "began"), tmp_path) as command:
        assert command.ends() == 1
        assert f"somebody has frozen it; thaw it with 'echo 0 > {cgroup.path}" in command.text
    assert cgroup.read("cgroup.freeze") == "1\n"


@pytest.mark.parametrize("dry", [False, True])
def test_another(
    cgroup: TemporaryCgroup, tmp_path: Path, dry: bool, way: str, service: Shell
) -> None:
    """One that is running keeps its cgroup, whatever another one is told."""
    argv = watch(cgroup, "--linger", "0.05", *(["--dry-run"] * dry))
    with running([*argv, "--", "sleep", "1000"], tmp_path) as command:
        command.says("it: asleep")
        mine = inside(cgroup)
        with running([*argv, "--replace", "--", "echo", "began"], tmp_path) as other:
            assert other.ends() == 1
            # In a dry run nobody has it but the command.
            assert f"process {service.pid if way == 'joined' and not dry else command.pid}" in (
                other.text
            )
            assert "began" not in other.lines
        assert inside(cgroup) == mine
        command.signal(signal.SIGTERM)
        assert command.ends() == 128 + signal.SIGTERM
        assert not os.path.exists(cgroup.path)


def test_nested(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """Inside of what another one may freeze nothing begins, nor inside of what is frozen."""
    with running(watch(cgroup, "--linger", "0.05", "--", "sleep", "1000"), tmp_path) as command:
        command.says("it: asleep")
        for words in ((), ("--", "echo", "began")):
            with running([*WATCH, f"{cgroup.spec}/in", *words], tmp_path) as other:
                assert other.ends() == 1
                assert (
                    f"{cgroup.path}, which it is inside, is in the hands of another" in other.text
                )
                assert f"(process {command.pid})" in other.text
                assert "began" not in other.lines
            assert not os.path.exists(f"{cgroup.path}/in")
        assert cgroup.frozen()
        command.signal(signal.SIGTERM)
        command.ends()
    with TemporaryCgroup() as around:
        around.write("cgroup.freeze", "1")
        with running([*WATCH, f"{around.spec}/in", "--", "echo", "began"], tmp_path) as other:
            assert other.ends() == 1
            assert f"thaw that with 'echo 0 > {around.path}/cgroup.freeze'" in other.text


@pytest.mark.skipif(bool(cannotBecomeUser()), reason=cannotBecomeUser() or "can")
def test_noRights(cgroup: TemporaryCgroup, tmp_path: Path) -> None:
    """A user who may not is told what would do, as in the demo; where that is done, it works."""
    os.chmod(tmp_path, 0o777)
    cgroup.create()
    for name in ("", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(os.path.join(cgroup.path, name), 65534, 65534)
    below = "or below a delegated cgroup (systemd-run --user -p Delegate=yes"
    for place, cannot in ((f"{cgroup.path}-not", "have it"), (f"{cgroup.path}/in", "start a")):
        argv = [*WATCH, f"cgroup:{place}", "--", "echo", "began"]
        with running(asUser(argv), tmp_path) as command:
            assert command.ends() == 1
            assert f"cgroup:{place}: user 65534 cannot {cannot}" in command.text
            assert below in command.text
            assert "began" not in command.lines
        assert not os.path.exists(place)
    demo = [*CHANPROXY, "demo", "--cycles", "1"]
    with running(asUser(demo), tmp_path) as command:
        assert command.ends() == 0
        assert below in command.text
        assert "nothing is frozen" in command.text.lower()
    enter = ["sh", "-c", f'echo 0 > {cgroup.path}/cgroup.procs && exec "$@"', "sh"]
    with running([*enter, *asUser(demo)], tmp_path) as command:
        assert command.ends() == 0
        assert f"in {cgroup.path}/chanproxy-demo-" in command.text
    argv = [*WATCH, "cgroup:web", "--", "echo", "began"]
    with running([*enter, *asUser(argv)], tmp_path) as command:
        assert command.ends() == 1
        assert f"here inside {cgroup.path}" in command.text
    argv = [*WATCH, f"{cgroup.spec}/in", "--linger", "0.05", "--name", "it", "--", *TREE]
    with running([*enter, *asUser(argv)], tmp_path) as command:
        command.says("it: asleep")
        command.signal(signal.SIGTERM)
        assert command.ends() == 128 + signal.SIGTERM
    assert not any(entry.is_dir() for entry in os.scandir(cgroup.path))


@pytest.mark.parametrize("words", [["redis", "--", "true"], ["--", "python3", "-m", "x"]])
def test_noCgroup(words: list[str]) -> None:
    """The first word is to say which; what is to be written is said."""
    done = subprocess.run([*WATCH, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the first word says which cgroup, as in: chanproxy watch cgroup:" in done.stderr
