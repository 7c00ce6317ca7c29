"""C{chanproxy call}: the manager from a shell; what is printed where, and the exit status."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from chanproxy.commands.main import main
from chanproxy.interfaces import ChanproxyReactor
from tests.shared.managing import accepted, gone, sourcesOf, stationed
from tests.shared.sides import asynchronous, until

PROGRAM = [sys.executable, "-m", "chanproxy"]


def call(*arguments: str | Path) -> Deferred[Result]:
    """Run the command, one at a time; it blocks, and the service is in this thread."""
    return deferToThread(CliRunner().invoke, main, ["call", *map(str, arguments)])


def printed(result: Result) -> list[object]:
    """What it printed, when all went well."""
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def failed(result: Result, status: int, *says: str) -> None:
    """Nothing printed, and a sentence for people."""
    assert (result.exit_code, result.stdout) == (status, "")
    for text in says:
        assert text in result.stderr
    assert "Traceback" not in result.stderr


@asynchronous
async def test_calls(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A line of JSON for the answer; parameters as words, as JSON, and both."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        path = ("--socket", station.path)
        (listed,) = printed(await call(*path, "ListContainers"))
        assert listed == {
            "containers": [
                {"name": "editor", "state": "awake", "mode": "manual"},
                {"name": "shop", "state": "awake", "mode": "manual"},
            ]
        }
        words = ("container=editor", "name=a b=c", "timeout=1000")
        assert printed(await call(*path, "AcquireWakeLock", *words)) == [{}]
        tree = '{"container": "editor", "name": "42"}'
        assert printed(await call(*path, "AcquireWakeLock", tree)) == [{}]
        # A later word is the one that counts; what is no JSON is a text.
        words = (tree, "name=[1", 'lifetime="service"')
        assert printed(await call(*path, "AcquireWakeLock", *words)) == [{}]
        assert set(station.editor.sources.locks.held) == {"a b=c", "42", "[1"}
        (info,) = printed(await call(*path, "org.varlink.service.GetInfo"))
        assert isinstance(info, dict)
        assert info["product"] == "chanproxy"


@asynchronous
async def test_suspend(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It waits for the answer."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        suspending = call("--socket", station.path, "SuspendContainer", "container=editor")
        await until(reactor, lambda: station.editor.suspension.state == "asleep")
        resuming = {"container": "editor", "reason": "back to work"}
        assert accepted(await client.call("ResumeContainer", resuming)) == {}
        (answer,) = printed(await suspending)
        assert isinstance(answer, dict)
        assert answer["resume_reason"] == "back to work"


@asynchronous
async def test_descriptors(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Descriptors of the shell's go along, in order; those of the answer are closed."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        path = ("--socket", station.path)
        given, kept = box.pipe()
        words = ("container=editor", "name=bell", 'events=["in"]')
        assert printed(await call(*path, f"--fd={kept}", "AddWakeSource", *words)) == [{}]
        assert list(await sourcesOf(client)) == ["bell"]
        result = await call(*path, "--fd", str(kept), "RemoveWakeSource", "container=editor")
        assert printed(result) == [{}]
        inner, outer = box.pair()[0], box.pair()[0]
        counter = box.eventfd(semaphore=True)
        order = (f"--fd={inner}", f"--fd={outer}", f"--fd={counter}")
        rpc = ("container=editor", "name=rpc")
        assert printed(await call(*path, *order, "ProxyWakeChannel", *rpc)) == [{}]
        assert printed(await call(*path, "OpenCounter", *rpc)) == [{"kind": "shared"}]
        result = await call(*path, "--fd=1000000", "RemoveWakeSource", "container=editor")
        failed(result, 1, "the call cannot be sent: Bad file descriptor")
        failed(await call(*path, "--fd=x", "RemoveWakeSource"), 2, "'x' is not a valid integer")
        result = await call(*path, "RegisterWakeWatcher", "container=editor", "pipe=true")
        assert printed(result) == [{}]
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        box.give(given)
        assert gone(kept)


@asynchronous
async def test_more(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """With --more, a line for each reply, as it comes; until the service ends it."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        path, words = ("--socket", station.path), ("RegisterWakeWatcher", "container=editor")
        watching = call(*path, "--more", *words)
        await until(reactor, lambda: len(station.editor.watchers) == 1)
        station.editor.suspend().addErrback(lambda _: None)
        station.editor.suspension.resume("because")
        station.editor.stop()
        result = await watching
        assert result.exit_code == 1
        assert [json.loads(line) for line in result.stdout.splitlines()] == [
            {"state": "awake", "reason": "", "reasons": []},
            {"state": "asleep", "reason": "", "reasons": []},
            {"state": "awake", "reason": "because", "reasons": ["because"]},
        ]
        assert result.stderr == f"{station.path}: the service has closed the connection\n"
        failed(await call(*path, *words), 1, "org.varlink.service.ExpectedMore: ")
        # More than one answer is not needed for --more.
        assert len(printed(await call(*path, "--more", "ListContainers"))) == 1


@asynchronous
async def test_errors(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """An error of the service: its name and its sentence, and exit status 1."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        path = ("--socket", station.path)
        failed(
            await call(*path, "Describe", "container=nobody"),
            1,
            "org.chanproxy.Manager.ContainerNotFound: there is no container 'nobody'; known are",
        )
        failed(await call(*path, "Describe", "conteiner=x"), 1, "did you mean it by 'conteiner'?")
        failed(await call(*path, "Nothing"), 1, "org.varlink.service.MethodNotFound: ")
        # Numbers are no texts.
        failed(await call(*path, "Describe", "container=42"), 1, "container is a whole number")
        long = f"name={'x' * 100000}"
        failed(await call(*path, "Describe", long), 1, "org.chanproxy.Manager.CallTooLarge: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing argument 'METHOD'"),
        (("Describe", "editor"), "'editor' is neither NAME=VALUE nor a JSON object"),
        (("Describe", "{"), "'{' is no JSON object"),
        (("Describe", "{} {}"), "is no JSON object"),
        (("Describe", '{"x": NaN}'), "NaN is no JSON"),
        (("Describe", "x=1e999"), "x=1e999: Out of range float values"),
        (("Describe", "{" * 100000), "is no JSON object"),
        (("--nothing", "Describe"), "No such option"),
    ],
)
def test_usage(arguments: tuple[str, ...], says: str) -> None:
    """What is no call is not sent: exit status 2, and a sentence that says why."""
    result = CliRunner().invoke(main, ["call", "--socket", "/nowhere", *arguments])
    failed(result, 2, says)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing.sock", "No such file or directory; is the service running"),
        ("stream.sock", "Protocol wrong type for socket"),
        ("stale.sock", "Connection refused; is the service running"),
        ("x" * 200, "AF_UNIX path too long"),
        ("@chanproxy-test-nobody", "Connection refused"),
    ],
)
def test_notThere(tmp_path: Path, path: str, says: str) -> None:
    """Where nobody answers: which path it was, and what to look for."""
    full = path if path.startswith("@") else str(tmp_path / path)
    with socket.socket(socket.AF_UNIX) as stream:
        if path == "stream.sock":
            stream.bind(full)
            stream.listen()
        if path == "stale.sock":
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
                stale.bind(full)
        result = CliRunner().invoke(main, ["call", "--socket", full, "ListContainers"])
    failed(result, 1, f"{full}: {says}")


@asynchronous
async def test_defaultSocket(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --socket: what the environment names, or the runtime directory's."""
    monkeypatch.delenv("CHANPROXY_CONTROL", raising=False)
    result = await call("ListContainers")
    failed(result, 1, str(tmp_path / "runtime" / "control.sock"))
    for directory in ("runtime", "elsewhere"):
        (tmp_path / directory).mkdir()
        async with stationed(reactor, tmp_path / directory) as (station, _, _):
            if directory == "elsewhere":
                monkeypatch.setenv("CHANPROXY_CONTROL", station.path)
            assert len(printed(await call("ListContainers"))) == 1


@asynchronous
async def test_program(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The program itself, in a pipeline whose other end goes first."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        program = [*PROGRAM, "call", "--socket", station.path]
        words = ["--more", "RegisterWakeWatcher", "container=editor"]
        with subprocess.Popen(
            [*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            assert watching.stderr is not None
            line = await deferToThread(watching.stdout.readline)
            watching.stdout.close()
            station.editor.suspend().addErrback(lambda _: None)
            assert await deferToThread(watching.wait, 20) == 1
            assert "Traceback" not in watching.stderr.read()
        # Not in there: it waits for the program, which would not end.
        assert json.loads(line) == {"state": "awake", "reason": "", "reasons": []}
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        # A descriptor that the shell has opened for it.
        with socket.socket(socket.AF_UNIX) as given:
            words = [f"--fd={given.fileno()}", "AddWakeSource", "container=editor", "name=s"]
            done = await deferToThread(
                lambda: subprocess.run(
                    [*program, *words, 'events=["hup"]'],
                    pass_fds=[given.fileno()],
                    capture_output=True,
                    timeout=20,
                )
            )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"{}\n", b"")
        assert [source.name for source in station.editor.sources] == ["s"]
        assert os.path.exists(station.path)
