"""Traces: every point, its name and its place, in Chrome's JSON and in Perfetto's own format."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (  # type: ignore[import-untyped]  # it has no annotations
    Trace,
    TrackEvent,
)
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from chanproxy import config, trace
from chanproxy.guest import CallRefused, Guest
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.recording import ChromeFormat, Recording
from chanproxy.service import ChanproxyService
from chanproxy.trace import Tracer
from support.live import PATIENCE
from tests.shared.sides import asynchronous, turns, until


@define
class Point:
    """One trace point, and for a duration what was within it."""

    phase: str
    track: str
    at: float
    name: str
    arguments: dict[str, Any]
    inside: list[Point] = field(factory=list)
    until: float = 0.0


def readChrome(data: bytes) -> list[Point]:
    """By the JSON alone."""
    events = json.loads(data)
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    points = []
    for event in events:
        if event["ph"] != "M":
            assert event["cat"] == "power"
            track = tracks[event["tid"]]
            points.append(Point(event["ph"], track, event["ts"], event["name"], event["args"]))
    return points


def readPerfetto(data: bytes) -> list[Point]:
    """By Perfetto's own parser."""
    tracks, points = {}, []
    phases = {
        TrackEvent.TYPE_SLICE_BEGIN: "B",
        TrackEvent.TYPE_SLICE_END: "E",
        TrackEvent.TYPE_INSTANT: "i",
    }
    for packet in Trace.FromString(data).packet:
        assert packet.trusted_packet_sequence_id
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor.name
        else:
            event = packet.track_event
            assert list(event.categories) == ["power"]
            arguments = {
                note.name: note.string_value or note.int_value for note in event.debug_annotations
            }
            track = tracks[event.track_uuid]
            at = packet.timestamp / 1000
            points.append(Point(phases[event.type], track, at, event.name, arguments))
    return points


READERS: dict[str, Callable[[bytes], list[Point]]] = {
    "json": readChrome,
    "perfetto": readPerfetto,
}


def nested(points: list[Point]) -> dict[str, list[Point]]:
    """By track; checks that each duration ends inside the one that it began in."""
    tops: dict[str, list[Point]] = {}
    stacks: dict[str, list[Point]] = {}
    last: dict[str, float] = {}
    for point in points:
        stack = stacks.setdefault(point.track, [])
        assert point.at >= last.get(point.track, 0)
        last[point.track] = point.at
        assert point.arguments["channel"] == point.track
        if point.phase == "E":
            assert stack[-1].name == point.name
            stack.pop().until = point.at
            continue
        (stack[-1].inside if stack else tops.setdefault(point.track, [])).append(point)
        if point.phase == "B":
            stack.append(point)
    assert not any(stacks.values()), "all that began has ended"
    return tops


def names(points: list[Point]) -> list[str]:
    return [point.name for point in points]


class Traced:
    """A service with one container, which listens here, and one peer."""

    def __init__(self, reactor: ChanproxyReactor, directory: Path, limits: str = "") -> None:
        self.reactor = reactor
        self.control = str(directory / "control")
        self.service = ChanproxyService(
            config.load(
                f"""
control = "{self.control}"
[limits]
{limits}
[containers.editor]
freezer = "none"
linger = 0.02
[containers.editor.channels.rpc]
listen = "seqpacket:{directory}/out"
connect = "seqpacket:{directory}/in"
"""
            ),
            reactor,
        )
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.peer.settimeout(PATIENCE)
        self.listening.bind(f"{directory}/in")
        self.listening.listen()
        self.service.startService()
        self._directory = directory

    async def exchange(self) -> None:
        """Connect, sleep, wake by a message, reply, disconnect."""
        container = self.service.containers["editor"]
        # Of a sleep that has begun before the trace nothing is told.
        await container.resume("test")
        self.peer.connect(f"{self._directory}/out")
        inside, _ = await deferToThread(self.listening.accept)
        # A connection wakes, too: what is asleep from here on is woken by the message alone.
        await container.resume("test")
        await until(self.reactor, lambda: container.suspension.state == "asleep")
        self.peer.send(b"hello")
        assert await deferToThread(inside.recv, 10) == b"hello"
        # What is not really frozen can answer before anybody has seen that there is a message.
        await until(self.reactor, lambda: container.suspension.state != "asleep")
        inside.send(b"back")
        assert await deferToThread(self.peer.recv, 10) == b"back"
        await until(self.reactor, lambda: container.suspension.state == "asleep")
        self.peer.close()
        inside.close()
        await until(self.reactor, lambda: not list(container.channels.proxies()))

    async def close(self) -> None:
        self.peer.close()
        self.listening.close()
        await self.service.stopService()
        await turns(self.reactor)


@pytest.mark.parametrize("form", ["json", "perfetto"])
@asynchronous
async def test_wake(reactor: ChanproxyReactor, tmp_path: Path, form: str) -> None:
    """starnix: channel proxy: 12: all its trace points, nested and named; and the suspend path."""
    traced = Traced(reactor, tmp_path)
    output = tmp_path / "trace"
    try:
        with Guest("-", traced.control) as guest, output.open("wb") as file:
            started = {"container": None, "format": form}
            await deferToThread(guest.call, "StartTrace", started, file.fileno())
            await traced.exchange()
            told = await deferToThread(guest.call, "StopTrace", {"container": None})
            assert trace.active is None
    finally:
        await traced.close()
    data = output.read_bytes()
    points = READERS[form](data)
    assert told == {"events": len(points), "bytes": len(data), "complete": True}
    tops = nested(points)
    assert set(tops) == {"editor/rpc#1", "container editor"}
    (loop,) = tops["editor/rpc#1"]
    assert loop.name == "loop"
    assert (names(loop.inside)[0], names(loop.inside)[-1]) == ("loop enter", "loop exit")
    into, out = (p for p in loop.inside if p.name == "forward message")
    assert (into.arguments["towards"], into.arguments["messages"]) == ("to", 1)
    assert (out.arguments["towards"], out.arguments["messages"]) == ("from", 1)
    assert names(into.inside) == ["counter incremented"]
    assert names(out.inside) == []
    index = loop.inside.index(into)
    assert names(loop.inside[index - 2 : index + 2]) == [
        "wait for messages",
        "remote readable",
        "forward message",
        "wait for messages",
    ]
    assert "container readable" in names(loop.inside)
    suspends = tops["container editor"]
    reasons = [each.inside[-1].arguments.get("reason") for each in suspends]
    assert "editor/rpc#1" in reasons
    woken = suspends[reasons.index("editor/rpc#1")]
    assert names(woken.inside) == ["freeze", "asleep", "thaw"]
    # The message was counted while it slept.
    (counted,) = into.inside
    assert woken.inside[1].at < counted.at < woken.inside[2].until


@asynchronous
async def test_error(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """starnix: channel proxy: 12: an error is a point of its own, with its cause."""
    traced = Traced(reactor, tmp_path, "message-bytes = 100")
    output = tmp_path / "trace"
    try:
        with Guest("-", traced.control) as guest:
            traced.peer.connect(str(tmp_path / "out"))
            inside, _ = await deferToThread(traced.listening.accept)
            with inside, output.open("wb") as file:
                # One that began before is in the trace from its first event on.
                await deferToThread(guest.call, "StartTrace", {"container": None}, file.fileno())
                traced.peer.send(b"x" * 1000)
                assert await deferToThread(inside.recv, 10) == b""
                # Without asking for its end: the connection's end is the trace's.
                guest.close()
                await until(reactor, lambda: trace.active is None)
    finally:
        await traced.close()
    (loop,) = nested(readChrome(output.read_bytes()))["editor/rpc#1"]
    (error,) = (p for p in loop.inside if p.name == "result error")
    assert error.arguments["towards"] == "to"
    assert "100" in error.arguments["error"]
    assert names(loop.inside)[-1] == "loop exit"


@asynchronous
async def test_refused(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pipe, no file for reading, no second trace; and what is none cannot be stopped."""
    # As where the package perfetto is not installed.
    monkeypatch.setitem(sys.modules, "chanproxy.manager.perfetto", None)
    traced = Traced(reactor, tmp_path)
    reading, writing = os.pipe()
    output = tmp_path / "trace"
    try:
        with Guest("-", traced.control) as guest, Guest("-", traced.control) as other:

            async def start(by: Guest, descriptor: int, form: str = "json") -> None:
                parameters = {"container": None, "format": form}
                await deferToThread(by.call, "StartTrace", parameters, descriptor)

            with output.open("wb") as file, open(os.devnull, "wb") as null:
                for descriptor, says in (
                    (writing, "no regular file"),
                    (null.fileno(), "no regular file"),
                ):
                    with pytest.raises(CallRefused, match=says):
                        await start(guest, descriptor)
                with output.open("rb") as only, pytest.raises(CallRefused, match="reading only"):
                    await start(guest, only.fileno())
                with pytest.raises(CallRefused, match="format"):
                    await start(guest, file.fileno(), "xml")
                with pytest.raises(CallRefused, match=r"install chanproxy\[perfetto\] there"):
                    await start(guest, file.fileno(), "perfetto")
                await start(guest, file.fileno())
                with pytest.raises(CallRefused, match="running already") as refused:
                    await start(other, file.fileno())
                assert refused.value.error == "TraceRunning"
                with pytest.raises(CallRefused, match="no trace is running"):
                    await deferToThread(other.call, "StopTrace", {"container": None})
                await deferToThread(guest.call, "StopTrace", {"container": None})
    finally:
        os.close(reading)
        os.close(writing)
        await traced.close()


def test_limit(tmp_path: Path) -> None:
    """At its limit a trace ends; what traces goes on, and a reader sees all up to there."""
    clock = Clock()
    path = tmp_path / "trace"
    recording = Recording(clock, ChromeFormat(), os.open(path, os.O_WRONLY | os.O_CREAT), 5000)
    tracer = recording.tracer
    begun: Tracer | None = trace.active
    assert begun is tracer
    for _ in range(100):
        tracer.channelReady("a#1", "remote readable")
    clock.advance(1)
    stopped: Tracer | None = trace.active
    assert stopped is None
    assert not recording.complete
    tracer.channelExited("a#1")
    recording.stop()
    recording.stop()
    assert not clock.getDelayedCalls()
    assert path.stat().st_size == recording.bytes <= 5000


def test_midway() -> None:
    """A trace that begins and ends in the middle of everything nests all the same."""
    parts: list[bytes] = []
    tracer = Tracer(ChromeFormat(), parts.append)
    tracer.stateChanged("editor", "awake", "")
    tracer.stateChanged("editor", "resuming", "rpc")
    tracer.stateChanged("editor", "awake", "rpc")
    tracer.stateChanged("editor", "asleep", "")
    tracer.forwarded("rpc#1")
    tracer.channelWaiting("rpc#1")
    tracer.channelWaiting("rpc#1")
    tracer.close()
    tracer.close()
    tracer.channelWaiting("rpc#1")
    tops = nested(readChrome(b"".join(parts)))
    assert [(p.name, names(p.inside)) for p in tops["container editor"]] == [
        ("suspend", ["thaw"]),
        ("suspend", ["asleep"]),
    ]
    assert [(p.name, names(p.inside)) for p in tops["rpc#1"]] == [("loop", ["wait for messages"])]


@asynchronous
async def test_command(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """chanproxy trace: for a time, while a command runs, until interrupted; else a sentence."""
    traced = Traced(reactor, tmp_path)
    output = tmp_path / "trace.json"

    def run(*words: str, sent: int = 0) -> tuple[int, str]:
        argv = [sys.executable, "-m", "chanproxy", "trace", "--socket", traced.control, *words]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            if sent:
                while trace.active is None:
                    assert process.poll() is None
                process.send_signal(sent)
            return process.wait(20), process.communicate()[1]

    try:
        for words, sent, status in (
            (("--seconds", "0.01", str(output)), 0, 0),
            ((str(output), "--", "sh", "-c", "exit 3"), 0, 3),
            (("--format", "perfetto", str(output)), signal.SIGINT, 0),
        ):
            ended, errors = await deferToThread(run, *words, sent=sent)
            assert (ended, "events" in errors) == (status, True), errors
        refusals: tuple[tuple[tuple[str, ...], str], ...] = (
            ((str(tmp_path),), "directory"),
            (("/dev/null",), "no regular file"),
            ((str(tmp_path / "no" / "file"),), "No such file"),
        )
        for refused, says in refusals:
            ended, errors = await deferToThread(run, *refused)
            assert ended in (1, 2)
            assert says in errors
        Trace.FromString(output.read_bytes())
    finally:
        await traced.close()
