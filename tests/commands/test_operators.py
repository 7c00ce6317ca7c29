"""The operator's commands in front of a manager in this process: what is said, and the status."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from chanproxy.commands.main import main
from chanproxy.config import AccessEntry
from chanproxy.container import Bounds
from chanproxy.interfaces import ChanproxyReactor
from tests.commands.test_call import failed, printed
from tests.shared.managing import Channel, accepted, connectedAs, cycle, stationed
from tests.shared.sides import asynchronous, until
from tests.shared.station import Station

USER = 61001


def ask(station: Station, *arguments: str) -> Deferred[Result]:
    """Run a command, one at a time; it blocks, and the service is in this thread."""
    words = [arguments[0], "--socket", station.path, *arguments[1:]]
    return deferToThread(CliRunner().invoke, main, words)


async def lines(station: Station, *arguments: str) -> list[str]:
    """What it says, when all went well."""
    result = await ask(station, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


async def fields(station: Station, *arguments: str) -> list[dict[str, Any]]:
    """What it says to programs."""
    found = printed(await ask(station, arguments[0], "--json", *arguments[1:]))
    assert all(isinstance(each, dict) for each in found)
    return found  # type: ignore[return-value]  # as it was just seen


@asynchronous
async def test_ps(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A row for each: state, how long, share asleep, and why; the same for programs."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        cycle(station, "dawn")
        lock = {"container": "shop", "name": "back up", "timeout": 1000}
        accepted(await client.call("AcquireWakeLock", lock))
        station.editor.suspend().addErrback(lambda _: None)
        head, editor, shop = await lines(station, "ps")
        assert head.split() == ["NAME", "STATE", "FOR", "ASLEEP", "SPARED", "WHY"]
        assert editor.split()[:2] == ["editor", "asleep"]
        assert "woken last by dawn, " in editor
        assert shop.split()[:2] == ["shop", "awake"]
        assert re.search(r" 0 %  +(0 ms)?  back up$", shop)
        found = await fields(station, "ps")
        assert [each["name"] for each in found] == ["editor", "shop"]
        assert set(found[0]) == {
            *("name", "state", "mode", "since", "seconds", "why_awake", "last_wake"),
            *("last_wake_reason", "asleep_share", "counted_since"),
            *("asleep_share_today", "spared_cpu_today", "paused_by"),
        }
        assert 0 < found[0]["asleep_share"] < 1
        assert 0 < found[0]["asleep_share_today"] < 1
        assert found[1]["asleep_share_today"] == 0
        assert found[0]["counted_since"] < found[0]["last_wake"] < found[0]["since"] < time.time()
        assert found[1]["last_wake"] is None
        assert found[1]["why_awake"] == "back up"
        # Only those that are named.
        (row,) = await fields(station, "ps", "shop")
        assert row["name"] == "shop"
        station.editor.suspension.resume("end")


@asynchronous
async def test_whyAwake(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What keeps it awake, and who holds it; in sentences, and in fields."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        said = "\n".join(await lines(station, "why", "editor"))
        assert "editor has been awake for " in said
        assert "It stays awake: it is suspended only when asked (suspend = manual)." in said
        assert "It has not been woken so far." in said
        for lifetime in ("connection", "service"):
            lock = {"container": "editor", "name": lifetime, "lifetime": lifetime, "timeout": 1000}
            accepted(await client.call("AcquireWakeLock", lock))
        channel = Channel(box, "rpc")
        accepted(await channel.start(client))
        os.eventfd_write(channel.counter, 3)
        given, kept = box.pair()
        bell = {"container": "editor", "name": "bell", "events": ["in"]}
        accepted(await box.call(client, "AddWakeSource", bell, given))
        kept.send(b"ding")
        said = "\n".join(await lines(station, "why", "editor"))
        process = f"{Path('/proc/self/comm').read_text().strip()} (process {os.getpid()}, user "
        assert 'The wake lock "connection" keeps it awake, for ' in said
        assert f"It is held by {process}" in said
        assert f"It was acquired by {process}" in said
        assert "and is held until somebody releases it; it ends by itself in 16 min " in said
        assert "3 messages are not handled on rpc: that keeps it awake, for " in said
        assert 'The wake source "bell" is signalled, for ' in said
        assert "It is suspended only when somebody asks for it (suspend = manual)." in said
        (found,) = await fields(station, "why", "editor")
        keeps = {each["name"]: each for each in found["keeps_awake"]}
        assert set(keeps) == {"connection", "service", "rpc", "bell"}
        assert keeps["rpc"]["unhandled"] == 3
        (holder,) = keeps["connection"]["holders"]
        assert (holder["pid"], holder["uid"]) == (os.getpid(), os.geteuid())
        assert holder["since"] < time.time() < holder["until"] < time.time() + 1000
        assert found["wakes_by"] == found["times"] == []
        assert "editor has been awake for " in found["sentences"][0]


@asynchronous
async def test_whyConnections(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A connection that has just come or ended is no message, and is not called one."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        noticed = station.editor.channels.notices("editor/web")
        for words in ("1 connection has just come or ended on editor/web: ", "2 connections have "):
            noticed.hold()
            assert words in "\n".join(await lines(station, "why", "editor"))
        (found,) = await fields(station, "why", "editor")
        (source,) = found["keeps_awake"]
        assert (source["name"], source["unhandled"]) == ("editor/web", 2)


@asynchronous
async def test_sentence(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A reason that is a sentence is one, with its commas."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        cycle(station, "rain, as it seems")
        station.editor.suspend().addErrback(lambda _: None)
        assert "woken last by rain, as it seems, " in "\n".join(await lines(station, "ps"))
        assert ", by rain, as it seems." in "\n".join(await lines(station, "why", "editor"))
        assert ": rain, as it seems" in "\n".join(await lines(station, "events"))
        # For programs it is one name still.
        (found, _) = await fields(station, "ps")
        assert found["last_wake_reason"] == "rain\\x2c as it seems"


@asynchronous
async def test_whyAsleep(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What will wake it and when, and what did last time."""
    bounds = Bounds(maxAsleep=7200)
    async with stationed(reactor, tmp_path, bounds=bounds) as (station, client, box):
        cycle(station, "dawn")
        accepted(await Channel(box, "rpc").start(client))
        given, _ = box.pair()
        bell = {"container": "editor", "name": "bell", "events": ["in"]}
        accepted(await box.call(client, "AddWakeSource", bell, given))
        alarm = {"container": "editor", "name": "tea", "at": time.time() + 90}
        accepted(await client.call("WakeAt", alarm))
        station.editor.suspend().addErrback(lambda _: None)
        said = "\n".join(await lines(station, "why", "editor"))
        assert "editor has been asleep for " in said
        for waker in ("rpc (messages)", "bell (a descriptor)"):
            assert f"\n  {waker}\n" in said
        assert "It is woken in 1 h 59 min, at " in said
        assert ", by a time: max-asleep." in said
        assert 'The alarm "tea" wakes it in 1 min ' in said
        assert "A signal for one of its processes wakes it, within a quarter of a second" in said
        assert " ago, at " in said
        assert ", by dawn." in said
        (found,) = await fields(station, "why", "editor")
        assert {each["name"]: each["kind"] for each in found["wakes_by"]} == {
            "bell": "descriptor",
            "rpc": "counter",
        }
        (limit,) = found["times"]
        assert (limit["reason"], limit["wakes"]) == ("max-asleep", True)
        assert time.time() + 7100 < limit["at"] < time.time() + 7200
        assert found["keeps_awake"] == []
        assert found["last_wake_reason"] == "dawn"
        station.editor.suspension.resume("end")


@asynchronous
async def test_dryRun(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Nothing is stopped in a dry run, and nobody is told that something is."""
    async with stationed(reactor, tmp_path, mode="dry-run") as (station, _, _):
        station.editor.suspend().addErrback(lambda _: None)
        said = await lines(station, "why", "editor")
        assert said[1] == "That is a dry run (suspend = dry-run): nothing is stopped."
        (_, row, _) = await lines(station, "ps")
        assert row.startswith("editor  asleep, dry  ")
        station.editor.suspension.resume("end")


@asynchronous
async def test_letters(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What others have named in letters that an output has not is shown all the same."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        accepted(await client.call("AcquireWakeLock", {"container": "editor", "name": "Tür 5 €"}))
        argv = [sys.executable, "-m", "chanproxy", "ps", "--socket", station.path]
        environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
        done = await deferToThread(
            lambda: subprocess.run(argv, env=environment, capture_output=True, timeout=60)
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert "Tür 5 ?" in done.stdout.decode("latin-1")


@asynchronous
async def test_whyFailed(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The last try to suspend it, if that failed, is said with its reason."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        station.freezers["editor"].ready = False
        failed(await ask(station, "suspend", "editor"), 1, "editor: no process is in it")
        said = "\n".join(await lines(station, "why", "editor"))
        assert "The last try to suspend it, " in said
        assert " ago, failed: editor: no process is in it." in said


@asynchronous
async def test_suspend(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Returns when it is asleep, and it sleeps on; asleep already is asleep."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        assert await lines(station, "suspend", "editor") == ["editor is asleep"]
        assert station.editor.suspension.state == "asleep"
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        assert await fields(station, "suspend", "editor") == [{"name": "editor", "state": "asleep"}]
        result = await ask(station, "suspend", "--timeout", "1", "editor")
        failed(result, 1, "editor sleeps already, without that time limit; wake it first")
        assert station.editor.suspension.statistics.attempts == 1
        assert await lines(station, "resume", "editor") == ["editor is awake"]
        assert station.editor.suspension.state == "awake"
        assert station.editor.suspension.statistics.wokenBy.startswith("chanproxy resume (")
        assert await fields(station, "resume", "editor") == [{"name": "editor", "state": "awake"}]


@asynchronous
async def test_suspendWait(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """With --wait until it is awake again, whoever has it suspended; what woke it is said."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        (line,) = await lines(station, "suspend", "--wait", "--timeout", "0.01", "editor")
        assert line.startswith("editor is awake; it slept for ")
        assert line.endswith(", and was woken by timeout")
        for already in (False, True):
            if already:
                station.editor.suspend().addErrback(lambda _: None)
            # The one before has gone.
            await until(reactor, lambda: len(station.editor.watchers) == 0)
            waiting = ask(station, "suspend", "--wait", "--json", "editor")
            # Who is told of it hears of the end as well.
            await until(reactor, lambda: len(station.editor.watchers) == 1)
            await until(reactor, lambda: station.editor.suspension.state == "asleep")
            ended: list[Result] = []
            waiting.addCallback(ended.append)
            while not ended:
                # Woken before it has asked, it is suspended by it.
                await station.editor.resume("night, day")
                await deferLater(reactor, 0.05)
            (found,) = printed(ended[0])
            assert isinstance(found, dict)
            assert (found["name"], found["state"]) == ("editor", "awake")
            assert found["reasons"] == ["night, day"]
            assert 0 <= found["asleep_seconds"] < 60


@asynchronous
async def test_suspendRefused(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Why it is not suspended is said, and the exit status is 1."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        accepted(await client.call("AcquireWakeLock", {"container": "editor", "name": "back up"}))
        result = await ask(station, "suspend", "editor")
        failed(result, 1, "chanproxy: editor is not suspended: held wake locks keep", "'back up'")


@asynchronous
async def test_events(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The latest of all containers, in their order; an attempt that failed is one line."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        cycle(station, "dawn")
        accepted(await client.call("AcquireWakeLock", {"container": "shop", "name": "lock"}))
        (await ask(station, "suspend", "shop"))
        cycle(station, "noon")
        station.editor.suspend().addErrback(lambda _: None)
        said = await lines(station, "events")
        assert [re.sub(r"after \d+ ms", "after N ms", line[25:]) for line in said] == [
            *("editor  goes to sleep", "editor  wakes after N ms: dawn"),
            "shop    stays awake: lock",
            *("editor  goes to sleep", "editor  wakes after N ms: noon"),
            "editor  goes to sleep",
        ]
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  ", line) for line in said)
        assert len(await lines(station, "events", "-n", "2")) == 2
        assert await lines(station, "events", "-n", "0") == []
        only = await lines(station, "events", "shop")
        assert [line[25:] for line in only] == ["shop  stays awake: lock"]
        found = await fields(station, "events", "shop")
        assert [(each["kind"], each["reason"]) for each in found] == [
            ("attempt", ""),
            ("fail", "lock"),
        ]
        assert set(found[0]) == {"name", "at", "kind", "reason"}
        assert time.time() - 60 < found[0]["at"] <= found[1]["at"] < time.time()
        station.editor.suspension.resume("end")


@asynchronous
async def test_followAdded(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Containers that come are followed as well, and those that go end nothing."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        argv = [sys.executable, "-m", "chanproxy", "events", "-f", "--json", "-n", "0"]
        with subprocess.Popen(
            [*argv, "--socket", station.path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as following:
            assert following.stdout is not None
            # It hears of one after the other.
            await until(reactor, lambda: len(station.containers["shop"].watchers) == 1)
            added = {"name": "build", "freezer": "none", "suspend": "manual"}
            for _ in range(2):
                accepted(await client.call("AddContainer", added))
                build = station.containers["build"]
                build.suspend().addErrback(lambda _: None)
                await build.resume("dawn")
                for kind in ("attempt", "resume"):
                    event = json.loads(await deferToThread(following.stdout.readline))
                    assert (event["name"], event["kind"]) == ("build", kind)
                await until(reactor, partial(len, build.watchers))
                accepted(await client.call("RemoveContainer", {"name": "build"}))
            cycle(station, "noon")
            event = json.loads(await deferToThread(following.stdout.readline))
            assert (event["name"], event["kind"]) == ("editor", "attempt")
            following.terminate()
            _, errors = await deferToThread(following.communicate, timeout=60)
        assert errors == ""


@asynchronous
async def test_locks(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Those that are held, by whom, and until when."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        assert await lines(station, "locks") == ["no wake lock is held"]
        assert await fields(station, "locks") == []
        mine = {"container": "editor", "name": "mine", "lifetime": "connection"}
        accepted(await client.call("AcquireWakeLock", mine))
        for name in ("editor", "shop"):
            job = {"container": name, "name": "job", "timeout": 1000}
            accepted(await client.call("AcquireWakeLock", job))
        accepted(await client.call("AcquireWakeLock", {**mine, "container": "shop", "name": "x"}))
        accepted(await client.call("ReleaseWakeLock", {**mine, "container": "shop", "name": "x"}))
        head, *rows = await lines(station, "locks")
        assert head.split() == ["CONTAINER", "LOCK", "FOR", "UNTIL", "HELD", "BY"]
        assert [row.split()[:2] for row in rows] == [
            ["editor", "mine"],
            ["editor", "job"],
            ["shop", "job"],
        ]
        assert f"no limit  {Path('/proc/self/comm').read_text().strip()} (process " in rows[0]
        assert "nobody any more; acquired by " in rows[1]
        for number in range(20):
            station.editor.sources.locks.acquire("crowd", None, number)
        rows = [row for row in await lines(station, "locks") if " crowd " in row]
        assert len(rows) == 17
        assert rows[-1].endswith("  4 others")
        assert len(await fields(station, "locks", "editor")) == 2 + 16
        for number in range(20):
            station.editor.sources.locks.release("crowd", number)
        (shop,) = await fields(station, "locks", "shop")
        assert (shop["name"], shop["lock"], shop["lifetime"]) == ("shop", "job", "service")
        assert shop["until"] - shop["since"] == pytest.approx(1000, abs=0.001)


@pytest.mark.parametrize(
    "words",
    [
        *(("ps", "edtor"), ("why", "edtor"), ("suspend", "edtor"), ("resume", "edtor")),
        *(("events", "edtor"), ("events", "-f", "edtor"), ("locks", "edtor")),
    ],
)
@asynchronous
async def test_unknown(reactor: ChanproxyReactor, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The nearest name is proposed, and the exit status is 1."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        result = await ask(station, *words)
        failed(result, 1, "chanproxy: there is no container 'edtor'; did you mean editor?")
        result = await ask(station, *words[:-1], "\x1b[2J")
        failed(result, 1, "there is no container '\\x1b[2J'; known are editor, shop")


@asynchronous
async def test_none(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A service without containers."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        for name in ("editor", "shop"):
            station.containers.pop(name).stop()
        assert len(await lines(station, "ps")) == 1
        assert await fields(station, "ps") == []
        assert await lines(station, "events") == []
        failed(await ask(station, "why", "x"), 1, "'x'; the service has none at all")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@asynchronous
async def test_noAccess(reactor: ChanproxyReactor, open_: Path) -> None:
    """Who has access to one container is not told which others there are, only that one."""
    entry = AccessEntry("user", users=(USER,), containers=("editor",))
    async with stationed(reactor, open_, access=[entry]) as (station, _, _):
        connectedAs(station.path, USER)[0].close()
        # What is loaded may be where that user may not go: it is loaded before.
        code = """
import contextlib, io, os, sys
from chanproxy.commands import main, ps, why
with contextlib.redirect_stdout(io.StringIO()):
    main.main(["why", "--help"], standalone_mode=False)
    main.main(["ps", *sys.argv[2:4]], standalone_mode=False)
os.setgroups([])
os.setgid(61001)
os.setuid(61001)
main.main(sys.argv[1:])
"""

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-c", code, words[0], "--socket", station.path, *words[1:]]
            return subprocess.run(argv, capture_output=True, text=True, timeout=60)

        mine = await deferToThread(run, "ps")
        assert (mine.returncode, len(mine.stdout.splitlines())) == (0, 2), mine.stderr
        other = await deferToThread(run, "why", "shop")
        assert (other.returncode, other.stdout) == (1, "")
        assert "there is no container 'shop'; known are editor" in other.stderr


@pytest.mark.parametrize(
    "words",
    [
        *(("ps",), ("why", "x"), ("suspend", "x"), ("resume", "x"), ("events",), ("locks",)),
        *(("events", "--follow"), ("top", "--json")),
    ],
)
def test_noService(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Where nobody answers: which path it was, what to look for, and exit status 3."""
    path = str(tmp_path / "nothing.sock")
    result = CliRunner().invoke(main, [words[0], "--socket", path, *words[1:]])
    failed(result, 3, f"chanproxy: {path}: No such file or directory; is the service running")


def test_notOurs(tmp_path: Path) -> None:
    """What answers there is no chanproxy: that is none, too."""
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(path)
        other.listen()
        asking = subprocess.Popen(
            [sys.executable, "-m", "chanproxy", "ps", "--socket", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with asking, other.accept()[0] as connection:
            connection.recv(65536)
            connection.send(b"220 mail")
            output, errors = asking.communicate(timeout=60)
    assert (asking.returncode, output) == (3, "")
    assert "what answers there is no chanproxy" in errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("why",), "Missing argument 'NAME'"),
        (("why", "a", "b"), "unexpected extra argument"),
        (("suspend", "--timeout", "-1", "a"), "-1.0 is not in the range"),
        (("events", "-n", "-1"), "-1 is not in the range"),
        (("top", "--interval", "0", "--json"), "0.0 is not in the range"),
        (("ps", "--nothing"), "No such option"),
        (("--nothing", "ps"), "--nothing"),
        (("--socket", "/a", "why", "a"), "stands behind the command: main why --socket PATH"),
        (("--socket=/a",), "stands behind the command: main ps --socket PATH"),
        (("--json", "report"), "stands behind the command: main report --json\n"),
        (("--url", "unix:/a", "hold", "a", "true"), ": No such option"),
        (("pss",), "No such command 'pss'; did you mean ps?"),
        (("status",), "No such command 'status'; main --help lists them"),
    ],
)
def test_usage(words: tuple[str, ...], says: str) -> None:
    """What is wrong with a command is said before anybody is asked; exit status 2."""
    failed(CliRunner().invoke(main, [*words]), 2, says)


@asynchronous
async def test_topLines(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A line of JSON for each look; without, where there is no terminal, a sentence."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        words = ("top", "--count", "2", "--interval", "0.1")
        first, second = await fields(station, *words)
        assert [each["name"] for each in first["containers"]] == ["editor", "shop"]
        assert first["error"] is None
        assert first["at"] + 0.1 <= second["at"]
        (row,) = await fields(station, "ps", "editor")
        assert set(first["containers"][0]) == set(row)
        failed(await ask(station, "top"), 2, "is no terminal; use --json, or chanproxy ps")


SHELL = """
eval "$(_CHANPROXY_COMPLETE=bash_source chanproxy)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_chanproxy_completion chanproxy
echo "${COMPREPLY[@]}"
"""


@asynchronous
async def test_completion(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A shell completes verbs, options, and names of containers that the service has."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"

        def completed(*words: str, control: str = station.path) -> list[str]:
            done = subprocess.run(
                ["bash", "-c", SHELL, "bash", "chanproxy", *words],
                env={**os.environ, "PATH": path, "CHANPROXY_CONTROL": control},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout.split()

        for words, expected in (
            (("w",), ["watch", "why"]),
            (("why", ""), ["editor", "shop"]),
            (("why", "--json", "e"), ["editor"]),
            (("ps", "shop", ""), ["editor"]),
            (("hold", "s"), ["shop"]),
            (("suspend", "--wa"), ["--wait"]),
        ):
            assert await deferToThread(completed, *words) == expected
        nowhere = f"{tmp_path}/nothing.sock"
        assert await deferToThread(completed, "why", "", control=nowhere) == []
        there = ("--socket", station.path)
        assert await deferToThread(completed, "why", *there, "s", control=nowhere) == ["shop"]


def test_completionLoads() -> None:
    """To complete a verb no command is loaded."""
    code = (
        "import sys\nfrom chanproxy.commands.main import main\n"
        "try:\n    main(prog_name='chanproxy')\nexcept SystemExit:\n    pass\n"
        "print(*(name for name in sys.modules if name.startswith('chanproxy.')))"
    )
    environment = {"COMP_WORDS": "chanproxy ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "_CHANPROXY_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    *verbs, loaded = done.stdout.splitlines()
    assert loaded.split() == ["chanproxy.commands", "chanproxy.commands.main"]
    assert "plain,why" in verbs


def test_json() -> None:
    """What is printed for programs is a line."""
    from chanproxy.commands.showing import jsonLine

    with CliRunner().isolation() as (output, _, _):
        jsonLine({"name": "a\nb\u2028"})
        assert json.loads(output.getvalue()) == {"name": "a\nb\u2028"}
        assert output.getvalue().count(b"\n") == 1
