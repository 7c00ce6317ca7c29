"""
The operator's commands as programs, in front of the real service and real containers, in real
terminals.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chanproxy.commands.reasons import Reasons
from support.cgroups import unusable
from support.live import PATIENCE, until
from support.processes import processState
from tests.shared.screen import Screen
from tests.shared.stage import Stage

pytestmark = [
    pytest.mark.lasts(40),
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


@pytest.fixture(params=["control", "http"])
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Asked in both ways; ended whatever happens."""
    with Stage(tmp_path, remote=request.param == "http") as stage:
        yield stage


def test_asleep(stage: Stage) -> None:
    """It is said what will wake it: sockets by their addresses, its next breath; and what did."""
    until("asleep", lambda: stage.isAsleep("web"))
    said = stage.ask("why", "web")
    while "It breathes: " in said:
        # It does that first after a second.
        said = stage.ask("why", "web")
    assert "web has been asleep for " in said
    address = f"tcp 127.0.0.1:{stage.port} listening"
    assert re.search(rf"(?m)^  python\S*\[\d+\] epoll: {address}$", said), said
    assert "It breathes next in " in said
    assert "A signal for one of its processes wakes it" in said
    (found,) = stage.fields("why", "web")
    wakers = {name for each in found["wakes_by"] for name in each.get("inside", ())}
    assert address in wakers
    (breath,) = found["times"]
    assert (breath["reason"], breath["wakes"]) == ("breath", False)

    def told() -> bool:
        # A breath may have woken it first.
        until("asleep", lambda: stage.isAsleep("web"))
        stage.talk()
        return "tcp 127.0.0.1" in stage.fields("ps", "web")[0]["last_wake_reason"]

    until("told", told)
    assert re.search(r"(?m)^It was woken last .* by web/.*tcp 127.0.0.1", stage.ask("why", "web"))
    said = stage.ask("events", "web")
    assert re.search(r"(?m)  web  goes to sleep$", said), said
    assert re.search(r"(?m)  web  wakes after .*: web/.*tcp 127.0.0.1", said), said


def test_awake(stage: Stage) -> None:
    """It is said which thread runs, and who holds what: the process that does, by its name."""
    until("told", lambda: re.search(r"stays awake: .*\[\d+\]", stage.ask("why", "indexer")))
    refused = stage.ask("suspend", "indexer", status=1)
    assert re.search(r"^chanproxy: indexer is not suspended: .*\[\d+\]", refused)
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
    assert stage.ask("suspend", "editor") == "editor is asleep\n"
    assert stage.editor.frozen()
    assert stage.ask("resume", "editor", "--reason", "lunch") == "editor is awake\n"
    assert not stage.editor.frozen()
    assert stage.fields("ps", "editor")[0]["last_wake_reason"] == "lunch"
    with stage.command("suspend", "editor", "--wait", "--json") as waiting:
        until("frozen", stage.editor.frozen)
        stage.ask("resume", "editor")
        output, errors = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, errors) == (0, "")
    assert json.loads(output)["reasons"][0].startswith("chanproxy resume (")
    # Whoever waits in vain is told that nobody will answer, and what was frozen runs.
    with stage.command("suspend", "editor", "--wait") as waiting:
        until("frozen", stage.editor.frozen)
        stage.end()
        output, errors = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode in (0, 3)
    assert "the service stopped" in output or "the service has gone" in errors
    assert not stage.editor.frozen()
    assert "is the service running" in stage.ask("ps", status=3)


def lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    """The next ones that are about C{editor}."""
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, process.wait(PATIENCE)
        event = json.loads(line)
        found += [event] if event["name"] == "editor" else []
    return found


def test_follow(stage: Stage) -> None:
    """Events as they come; the end of the service is said, and the next one is followed."""
    for names in (("editor",), ()):
        stage.ask("suspend", "editor")
        stage.ask("resume", "editor", "--reason", "before")
        with stage.command("events", "--follow", "--json", "-n", "100", *names) as following:
            try:
                # What was is told first, and from then on nothing is missed.
                while lines(following, 1)[0]["reason"] != "before":
                    pass
                stage.ask("suspend", "editor")
                assert lines(following, 1)[0]["kind"] == "attempt"
                stage.ask("resume", "editor", "--reason", "first")
                assert lines(following, 1)[0]["reason"] == "first"
                stage.ask("call", "AcquireWakeLock", "container=editor", "name=lock")
                stage.ask("suspend", "editor", status=1)
                tried, failed = lines(following, 2)
                assert (tried["kind"], failed["kind"], failed["reason"]) == (
                    *("attempt", "fail", "lock"),
                )
                stage.end()
                stage.start()
                stage.ask("suspend", "editor")
                stage.ask("resume", "editor", "--reason", "second")
                (attempt, resume) = lines(following, 2)
                assert (attempt["kind"], resume["reason"]) == ("attempt", "second")
                assert attempt["at"] <= resume["at"]
            finally:
                following.send_signal(signal.SIGINT)
                _, errors = following.communicate(timeout=PATIENCE)
        assert following.returncode == 130
        assert "Traceback" not in errors
        gone, there = errors.splitlines()
        assert gone.startswith(f"chanproxy: {stage.place}: ")
        assert gone.endswith("; waiting for the next one")
        assert there == "chanproxy: the service is there again"


def rows(frame: Sequence[str]) -> list[str]:
    """The names of the containers on the screen, in their order."""
    return [line.split()[0] for line in frame[2:5] if line.strip()]


def fits(frame: Sequence[str], columns: int, count: int) -> bool:
    """Whether it is as large as the screen, and no line is cut by the terminal."""
    return len(frame) == count and all(len(line) <= columns for line in frame)


def test_top(stage: Stage) -> None:
    """
    All containers on a screen; keys sort, choose, suspend, wake and explain; q quits.

    It is as large as the terminal is now, whatever the shell has said of it.
    """
    said = {"COLUMNS": "80", "LINES": "24"}
    with stage.screen("top", "--interval", "0.2", **said) as screen:
        frame = screen.shows("3 containers, ")
        assert re.search(rb"\x1b\[[\d;]*3[0-7]m", screen.output)
        assert fits(frame, 80, 24)
        assert rows(frame) == ["editor", "indexer", "web"]
        screen.press("i")
        screen.until("inverted", lambda frame: rows(frame) == ["web", "indexer", "editor"])
        screen.press("n")
        screen.until("in order", lambda frame: rows(frame) == ["editor", "indexer", "web"])
        screen.press("\x1b[Bs")
        screen.shows("indexer is not suspended: ")
        screen.press("ks")
        screen.until("asleep", lambda frame: re.match(r"editor +asleep", frame[2]))
        assert stage.editor.frozen()
        screen.press("\r")
        frame = screen.shows("editor has been asleep for ")
        assert fits(frame, 80, 24)
        screen.press("r")
        screen.shows("editor has been awake for ")
        assert not stage.editor.frozen()
        screen.shows("editor slept for ")
        screen.press("\x1b")
        screen.until("all", lambda frame: rows(frame) == ["editor", "indexer", "web"])
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
    with stage.screen("top", "--interval", "0.2", NO_COLOR="1") as screen:
        screen.shows("3 containers, ")
        assert not re.search(rb"\x1b\[[\d;]*3[0-7]m", screen.output)
        stage.end()
        frame = screen.shows("no service, trying again; 3 containers before")
        assert rows(frame) == ["editor", "indexer", "web"]
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
    stage.ask("call", "AcquireWakeLock", "container=editor", f"name={long}", "timeout=1000")
    assert long in stage.ask("ps")
    with stage.screen("ps") as screen:
        assert screen.ended() == 0
        shown = screen.frame()
        assert "lock-lock-" in "".join(shown)
        assert max(map(len, shown)) == 80
    with stage.screen("why", "editor") as screen:
        assert screen.ended() == 0
        assert all(len(line) <= 80 for line in screen.frame())
    assert "\x1b" not in stage.ask("ps") + stage.ask("why", "editor") + stage.ask("events")


def test_breathing(stage: Stage) -> None:
    """While it breathes, nothing is said of what wakes it, which is not known then."""
    until("asleep", lambda: stage.isAsleep("web"))
    its = json.loads(stage.ask("call", "Describe", "container=web"))["description"]
    # As it is in those moments.
    why = Reasons({**its, "state": "asleep", "breathing": True, "sources": [], "times": []})
    said = "\n".join(why.sentences())
    assert "\nIt breathes: it runs for a moment, and " in said
    assert "waits for no socket" not in said
    assert "No time wakes it" not in said
    assert why.fields()["breathing"]
    assert not Reasons({**its, "breathing": False}).fields()["breathing"]
