"""
The operator's commands as programs, in front of the real service and real containers, in real
terminals.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from support.cgroups import TemporaryCgroup, unusable
from support.live import PATIENCE, LiveService, listens, until
from support.ports import freePort
from support.processes import processState
from tests.shared.screen import Screen

pytestmark = [
    pytest.mark.lasts(40),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

PROGRAM = [sys.executable, "-m", "chanproxy"]

SERVER = """
import selectors, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
selector = selectors.EpollSelector()
selector.register(listening, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj is listening:
            selector.register(listening.accept()[0], selectors.EVENT_READ)
        elif data := key.fileobj.recv(1000):
            key.fileobj.send(data)
        else:
            selector.unregister(key.fileobj)
            key.fileobj.close()
"""

BUSY = "import time\nwhile True: time.sleep(0.005)"


class Stage(LiveService):
    """
    Three containers: C{web} wakes by its own socket, C{busy} does not sleep, C{still} sleeps only
    when asked.

    @ivar port: of the server in C{web}.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = freePort()
        self.web, self.busy, self.still = (TemporaryCgroup() for _ in range(3))
        server = self.web.spawn(
            [sys.executable, "-c", SERVER, str(self.port)], stdout=subprocess.PIPE
        )
        self.busy.spawn([sys.executable, "-c", BUSY])
        self.still.spawn(["sleep", "1000"])
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"

    def start(self) -> None:
        """Run the service, until it listens."""
        file = self.directory / "chanproxy.toml"
        lines = [f'control = "seqpacket:{self.control}"']
        for name, more in (
            *(("web", 'wake-on = "sockets"'), ("busy", 'wake-on = "sockets"')),
            ("still", 'suspend = "manual"'),
        ):
            spec = getattr(self, name).spec
            lines += [f"[containers.{name}]", f'freezer = "{spec}"', more]
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        self.waitFor("listening", lambda: listens(self.control))

    @property
    def environment(self) -> dict[str, str]:
        """Of a user of this service."""
        return {**os.environ, "CHANPROXY_CONTROL": str(self.control)}

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Begin one."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str, status: int = 0) -> str:
        """What a command says, and what it complains of; it has to end so."""
        with self.command(*words) as process:
            output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, output + errors
        return output + errors

    def fields(self, *words: str) -> list[dict[str, Any]]:
        """What it says to programs."""
        return [json.loads(line) for line in self.ask(*words, "--json").splitlines()]

    def screen(self, *words: str) -> Screen:
        """A command in a terminal of its own."""
        return Screen([*PROGRAM, *words], environment=self.environment)

    def watchers(self, name: str) -> int:
        """How many are told of a container."""
        answer = json.loads(self.ask("call", "Describe", f"container={name}"))
        return int(answer["description"]["watcher_count"])

    def isAsleep(self, name: str) -> bool:
        return bool(self.fields("ps", name)[0]["state"] == "asleep")

    def talk(self) -> None:
        """As a client of C{web}."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.send(b"hello")
            assert client.recv(1000) == b"hello"

    def close(self) -> None:
        """End all of it."""
        try:
            super().close()
        finally:
            for cgroup in (self.web, self.busy, self.still):
                cgroup.close()

    def __enter__(self) -> Self:
        self.start()
        return self


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Ended whatever happens."""
    with Stage(tmp_path) as stage:
        yield stage


def test_asleep(stage: Stage) -> None:
    """It is said what will wake it: sockets by their addresses, its next breath; and what did."""
    until("asleep", lambda: stage.isAsleep("web"))
    said = stage.ask("why", "web")
    assert "web is asleep: for " in said
    address = f"tcp 127.0.0.1:{stage.port} listening"
    assert re.search(rf"(?m)^  python\S*\[\d+\] epoll: {address}$", said), said
    assert "It breathes next in " in said
    assert "A signal for one of its processes wakes it" in said
    (found,) = stage.fields("why", "web")
    wakers = {name for each in found["wakes_by"] for name in each.get("inside", ())}
    assert address in wakers
    (breath,) = found["times"]
    assert (breath["reason"], breath["wakes"]) == ("breath", False)
    stage.talk()
    until("told", lambda: "tcp 127.0.0.1" in stage.fields("ps", "web")[0]["last_wake_reason"])
    assert re.search(r"(?m)^It was woken last .* by web/.*tcp 127.0.0.1", stage.ask("why", "web"))
    said = stage.ask("events", "web")
    assert re.search(r"(?m)  web  goes to sleep$", said), said
    assert re.search(r"(?m)  web  wakes after .*: web/.*tcp 127.0.0.1", said), said


def test_awake(stage: Stage) -> None:
    """It is said which thread runs, and who holds what: the process that does, by its name."""
    until("told", lambda: re.search(r"stays awake: .*\[\d+\]", stage.ask("why", "busy")))
    assert re.search(
        r"^chanproxy: busy is not suspended: .*\[\d+\]", stage.ask("suspend", "busy", status=1)
    )
    with stage.command("hold", "web", "--", "sleep", "1000") as holding:
        try:
            until("held", lambda: f"hold/{holding.pid}" in stage.ask("locks"))
            (lock,) = stage.fields("locks", "web")
            name = Path(f"/proc/{holding.pid}/comm").read_text().strip()
            who = {"pid": holding.pid, "uid": os.geteuid(), "command": name}
            assert {key: lock[key] for key in who} == who
            said = stage.ask("why", "web")
            assert f'The wake lock "hold/{holding.pid}" keeps it awake' in said
            assert f"It is held by {name} (process {holding.pid}, user " in said
            assert f"hold/{holding.pid}" in stage.ask("suspend", "web", status=1)
        finally:
            holding.terminate()
            holding.communicate(timeout=PATIENCE)
    until("released", lambda: stage.ask("locks") == "no wake lock is held\n")


def test_suspendAndResume(stage: Stage) -> None:
    """What is suspended is frozen, by the kernel's word, and runs when it is resumed."""
    assert stage.ask("suspend", "still") == "still is asleep\n"
    assert stage.still.frozen()
    assert stage.ask("resume", "still", "--reason", "lunch") == "still is awake\n"
    assert not stage.still.frozen()
    assert stage.fields("ps", "still")[0]["last_wake_reason"] == "lunch"
    with stage.command("suspend", "still", "--wait", "--json") as waiting:
        until("frozen", stage.still.frozen)
        stage.ask("resume", "still")
        output, errors = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, errors) == (0, "")
    assert json.loads(output)["reasons"][0].startswith("chanproxy resume (")
    # Whoever waits in vain is told that nobody will answer, and what was frozen runs.
    with stage.command("suspend", "still", "--wait") as waiting:
        until("frozen", stage.still.frozen)
        stage.end()
        output, errors = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode in (0, 3)
    assert "the service stopped" in output or "the service has gone" in errors
    assert not stage.still.frozen()
    assert "is the service running" in stage.ask("ps", status=3)


def lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    """The next ones that are about C{still}."""
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, process.wait(PATIENCE)
        event = json.loads(line)
        found += [event] if event["name"] == "still" else []
    return found


def test_follow(stage: Stage) -> None:
    """Events as they come; the end of the service is said, and the next one is followed."""
    for names in (("still",), ()):
        with stage.command("events", "--follow", "--json", "-n", "0", *names) as following:
            try:
                until("followed", lambda: stage.watchers("still"))
                stage.ask("suspend", "still")
                assert lines(following, 1)[0]["kind"] == "attempt"
                stage.ask("resume", "still", "--reason", "first")
                assert lines(following, 1)[0]["reason"] == "first"
                stage.end()
                stage.start()
                stage.ask("suspend", "still")
                stage.ask("resume", "still", "--reason", "second")
                (attempt, resume) = lines(following, 2)
                assert (attempt["kind"], resume["reason"]) == ("attempt", "second")
                assert attempt["at"] <= resume["at"]
            finally:
                following.send_signal(signal.SIGINT)
                _, errors = following.communicate(timeout=PATIENCE)
        assert following.returncode == 130
        assert "Traceback" not in errors
        gone, there = errors.splitlines()
        assert gone.startswith(f"chanproxy: {stage.control}: ")
        assert gone.endswith("; waiting for the next one")
        assert there == "chanproxy: the service is there again"


def rows(frame: Sequence[str]) -> list[str]:
    """The names of the containers on the screen, in their order."""
    return [line.split()[0] for line in frame[2:5] if line.strip()]


def fits(frame: Sequence[str], columns: int, count: int) -> bool:
    """Whether it is as large as the screen, and no line is cut by the terminal."""
    return len(frame) == count and all(len(line) <= columns for line in frame)


def test_top(stage: Stage) -> None:
    """All containers on a screen; keys sort, choose, suspend, wake and explain; q quits."""
    with stage.screen("top", "--interval", "0.2") as screen:
        frame = screen.shows("3 containers, ")
        assert fits(frame, 80, 24)
        assert rows(frame) == ["busy", "still", "web"]
        screen.press("i")
        screen.until("inverted", lambda frame: rows(frame) == ["web", "still", "busy"])
        screen.press("n")
        screen.until("in order", lambda frame: rows(frame) == ["busy", "still", "web"])
        # The first one is chosen, and works.
        screen.press("s")
        screen.shows("busy is not suspended: ")
        screen.press("\x1b[B")
        screen.press("s")
        screen.until("asleep", lambda frame: re.match(r"still +asleep", frame[3]))
        assert stage.still.frozen()
        screen.press("\r")
        frame = screen.shows("still is asleep: for ")
        assert fits(frame, 80, 24)
        screen.press("r")
        screen.shows("still is awake: for ")
        assert not stage.still.frozen()
        screen.shows("still slept for ")
        screen.press("\x1b")
        screen.until("all", lambda frame: rows(frame) == ["busy", "still", "web"])
        screen.until("web asleep", lambda frame: re.match(r"web +asleep", frame[4]))
        screen.press("a")
        screen.until("by their share", lambda frame: rows(frame)[0] == "web")
        screen.resize(40, 10)
        screen.until("smaller", lambda frame: fits(frame, 40, 10) and "containers" in frame[0])
        screen.press("q")
        assert screen.ended() == 0
        given(screen)


def given(screen: Screen) -> None:
    """Whether the terminal is as it was."""
    assert screen.mode == screen.before
    # Its own screen, and its cursor.
    assert screen.output.rindex(b"\x1b[?1049l") > screen.output.rindex(b"\x1b[?1049h")
    assert screen.output.rindex(b"\x1b[?25h") > screen.output.rindex(b"\x1b[?25l")


def test_topRestart(stage: Stage) -> None:
    """It says when the service is gone, keeps what it knew, and goes on with the next one."""
    with stage.screen("top", "--interval", "0.2") as screen:
        screen.shows("3 containers, ")
        stage.end()
        frame = screen.shows("no service, trying again; 3 containers before")
        assert rows(frame) == ["busy", "still", "web"]
        # Nobody to suspend anything; it says so, and goes on.
        screen.press("s")
        stage.start()
        screen.until("again", lambda frame: re.search(r": 3 containers, \d asleep", frame[0]))
        screen.process.send_signal(signal.SIGTERM)
        assert screen.ended() == 0
        given(screen)


def test_topStopped(stage: Stage) -> None:
    """While it is stopped, the terminal is the shell's; it goes on where it was."""
    with stage.screen("top", "--interval", "0.2") as screen:
        screen.shows("3 containers, ")
        screen.press("\x1a")
        until("stopped", lambda: processState(screen.process.pid) == "T")
        while screen.read(0):
            pass
        given(screen)
        before = len(screen.output)
        screen.process.send_signal(signal.SIGCONT)
        screen.until("drawn", lambda _: b"containers, " in screen.output[before:])
        screen.press("\x03")
        assert screen.ended() == 0
        given(screen)


def test_terminal(stage: Stage) -> None:
    """In a terminal rows end with its last column; in a pipe they are whole, and plain."""
    long = "lock-" * 30
    stage.ask("call", "AcquireWakeLock", "container=still", f"name={long}", "timeout=1000")
    assert long in stage.ask("ps")
    with stage.screen("ps") as screen:
        assert screen.ended() == 0
        shown = screen.frame()
        assert "lock-lock-" in "".join(shown)
        assert max(map(len, shown)) == 80
    with stage.screen("why", "still") as screen:
        assert screen.ended() == 0
        assert all(len(line) <= 80 for line in screen.frame())
    assert "\x1b" not in stage.ask("ps") + stage.ask("why", "still") + stage.ask("events")
