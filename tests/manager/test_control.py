"""The control socket: packets, their order and their limits, whatever the calls mean."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.control import ControlConnection
from tests.shared.managing import accepted, asleep, described, gone, refused, stationed
from tests.shared.sides import asynchronous, turns, until
from tests.shared.station import MANAGER, SERVICE, Client

EDITOR = {"container": "editor"}


def padded(size: int) -> bytes:
    """A call of so many bytes that lists the containers."""
    call = json.dumps({"method": f"{MANAGER}.ListContainers"}).encode()
    return call + b" " * (size - len(call))


@asynchronous
async def test_tooLarge(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A call over the limit is told so, its descriptors are closed, and the next one is heard."""
    async with stationed(reactor, tmp_path, messageBytes=2048) as (_, client, box):
        client.sendRaw(padded(2048))
        assert len(accepted(await client.reply())["containers"]) == 2
        for size in (2049, 10000, 200000):
            given, kept = box.pair()
            client.sendRaw(padded(size), given)
            box.give(given)
            fields = refused(await client.reply(), "CallTooLarge", "raise limits.control-bytes")
            assert fields["limit"] == 2048
            assert gone(kept.fileno())
            accepted(await client.call("ListContainers"))
        # In a row with others: each has its own answer.
        for size in (100, 3000, 100, 3000, 3000, 100):
            client.sendRaw(padded(size))
        errors = [(await client.reply()).get("error") for _ in range(6)]
        large = f"{MANAGER}.CallTooLarge"
        assert errors == [None, large, None, large, large, None]


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (b"", "no JSON"),
        (b"hello", "no JSON"),
        (b"[]", "no object"),
        (b'{"method": 1}', "method is no text"),
        (b'{"method": "a.b", "parameters": []}', "parameters is no object"),
        (padded(100) + b"\0", "zero byte"),
    ],
)
@asynchronous
async def test_malformed(
    reactor: ChanproxyReactor, tmp_path: Path, packet: bytes, says: str
) -> None:
    """What is no call is answered, once; its descriptors are closed, and the connection lives."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        given, kept = box.pair()
        client.sendRaw(packet, given)
        box.give(given)
        refused(await client.reply(), "CallMalformed", says)
        assert gone(kept.fileno())
        accepted(await client.call("ListContainers"))


@asynchronous
async def test_unknown(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """No such interface, no such method; descriptors that a method does not take."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        for method in (f"{MANAGER}.Nothing", f"{MANAGER}.listContainers", f"{SERVICE}.Nothing"):
            fields = refused(await client.call(method), "MethodNotFound", repr(method))
            assert fields["method"] == method
        for method, interface in (("org.x.Y", "org.x"), (f"{MANAGER}.Describe.x", None)):
            reply = await client.call(method, EDITOR)
            fields = refused(reply, "InterfaceNotFound", f"there are {MANAGER} and {SERVICE}")
            assert fields["interface"] == (interface or f"{MANAGER}.Describe")
        client.sendRaw(b'{"method": "Describe"}')
        refused(await client.reply(), "InterfaceNotFound", "no interface ''")
        for method in ("ListContainers", f"{SERVICE}.GetInfo", "WakeAt", "AcquireWakeLock"):
            given, kept = box.pair()
            parameters = {**EDITOR, "name": "x"} if method[0] in "WA" else {}
            reply = await box.call(client, method, parameters, given)
            fields = refused(reply, "InvalidParameter", "the call has 1, and takes none")
            assert fields["parameter"] == "descriptors"
            assert gone(kept.fileno())


@asynchronous
async def test_oneway(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who wants no answer gets none, not even an error; the call is carried out."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        client.send("AcquireWakeLock", {**EDITOR, "name": "lock"}, oneway=True)
        client.send("Nothing", {}, oneway=True)
        client.send("Describe", {"container": "nobody"}, oneway=True)
        given, kept = box.pair()
        client.send("AcquireWakeLock", {**EDITOR, "name": "no"}, given, oneway=True)
        box.give(given)
        station.editor.channels.keepCounter("rpc")
        client.send("OpenCounter", {**EDITOR, "name": "rpc"}, oneway=True)
        client.send("ListContainers")
        assert "containers" in accepted(await client.reply())
        assert gone(kept.fileno())
        assert list(station.editor.sources.locks.held) == ["lock"]
        accepted(await client.call("ReleaseWakeLock", {**EDITOR, "name": "lock"}))
        # One that has to be waited for is not answered either, and those after it are.
        client.send("SuspendContainer", {**EDITOR, "timeout": 0.01}, oneway=True)
        client.send("Describe", EDITOR)
        statistics = accepted(await client.reply())["description"]["statistics"]
        assert statistics["success_count"] == 1


@asynchronous
async def test_inOrder(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Calls are answered in their order, also those that came while one was waited for."""
    async with stationed(reactor, tmp_path) as (_, client, _):
        for number in range(30):
            client.send("Describe", {"container": f"c{number}"})
        for number in range(30):
            fields = refused(await client.reply(), "ContainerNotFound")
            assert fields["container"] == f"c{number}"
        client.send("SuspendContainer", {**EDITOR, "timeout": 0.02})
        client.send("AcquireWakeLock", {**EDITOR, "name": "lock"})
        client.send("SuspendContainer", EDITOR)
        assert accepted(await client.reply())["resume_reason"] == "timeout"
        assert accepted(await client.reply()) == {}
        assert refused(await client.reply(), "WakeLocksExist")["names"] == ["lock"]


@asynchronous
async def test_halfClosed(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who shuts down its sending side gets all its answers, and then the end."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        client.send("SuspendContainer", {**EDITOR, "timeout": 0.02})
        for _ in range(30):
            client.send("ListContainers")
        client.socket.shutdown(socket.SHUT_WR)
        assert accepted(await client.reply())["resume_reason"] == "timeout"
        for _ in range(30):
            accepted(await client.reply())
        assert await client.ended()
        assert len(accepted(await station.call("ListContainers"))["containers"]) == 2


@pytest.mark.parametrize("pending", [False, True])
@asynchronous
async def test_goesWhileWaiting(reactor: ChanproxyReactor, tmp_path: Path, pending: bool) -> None:
    """Who goes while its call is being answered: that is carried out, and what is its own ends."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        leaving = station.client()
        given, kept = box.pair()
        source = {**EDITOR, "name": "s", "events": ["in"], "lifetime": "connection"}
        accepted(await box.call(leaving, "AddWakeSource", source, given))
        await asleep(station, leaving)
        if pending:
            # One that was sent behind it may not be.
            leaving.send("ListContainers")
        leaving.close()
        await until(reactor, lambda: gone(kept.fileno()))
        assert (await described(client))["state"] == "asleep"
        accepted(await client.call("ResumeContainer", EDITOR))
        assert (await described(client))["statistics"]["success_count"] == 1


@asynchronous
async def test_doesNotRead(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who does not read its answers is heard no more, until it does; others are not disturbed."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        other = station.client()
        client.socket.setblocking(False)
        call = json.dumps({"method": f"{MANAGER}.Describe", "parameters": EDITOR}).encode()
        sent = 0
        quiet = 0
        while quiet < 3:
            try:
                client.socket.send(call)
                sent += 1
                quiet = 0
                assert sent < 10000
            except BlockingIOError:
                quiet += 1
                await turns(reactor)
        # The answers fill one direction, and then the calls the other.
        assert sent > 10
        (connection,) = [c for c in station.factory._open if c.transport.pending]
        assert connection.transport.pending == 1
        accepted(await other.call("ListContainers"))
        client.socket.settimeout(10)
        for _ in range(sent):
            assert accepted(await client.reply())["description"]["name"] == "editor"
        accepted(await client.call("ListContainers"))


@asynchronous
async def test_serviceStops(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """When the service stops, its connections end, also one that is waiting."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        waiting = station.client()
        await asleep(station, waiting)
        accepted(await client.call("ListContainers"))
        station.editor.stop()
        station.factory.closeAll()
        assert accepted(await waiting.reply())["resume_reason"] == "the service stopped"
        assert await waiting.ended()
        assert await client.ended()


@pytest.mark.parametrize("later", [False, True])
@asynchronous
async def test_ourMistake(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """A mistake of ours is in the log, and costs one call."""
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    class Observer:
        def __call__(self, event: LogEvent) -> None:
            events.append(event)

    def fail(*_: object) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(ControlConnection, "_log", Logger(observer=Observer()))
    async with stationed(reactor, tmp_path) as (station, client, box):
        given, kept = box.pair()
        if later:
            monkeypatch.setattr("chanproxy.manager.calls_sleep.fitting", fail)
            parameters = {**EDITOR, "timeout": 0.001}
            reply = await client.call("SuspendContainer", parameters, given)
        else:
            monkeypatch.setattr(station.editor.sources, "addDescriptor", fail)
            parameters = {**EDITOR, "name": "s", "events": ["in"]}
            reply = await client.call("AddWakeSource", parameters, given)
        box.give(given)
        refused(reply, "InternalError", "see the service's log")
        assert gone(kept.fileno())
        assert "a mistake" in str(events[0]["log_failure"])
        assert len(events) == 1
        accepted(await client.call("ListContainers"))


# Who is let in.


async def turnedAway(client: Client) -> None:
    """It is told why, and then it is over."""
    fields = refused(await client.reply(), "LimitExceeded", "too many connections; try later")
    assert fields["limit"] == "limits.control-connections"
    assert await client.ended()


@asynchronous
async def test_tooMany(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """As many connections as are allowed, also for ourselves; one that ends makes room."""
    async with stationed(reactor, tmp_path, connections=3) as (station, client, _):
        clients = [client, station.client(), station.client()]
        for each in clients:
            accepted(await each.call("ListContainers"))
        for _ in range(3):
            await turnedAway(station.client())
        clients[1].close()
        await until(reactor, lambda: len(station.factory._open) == 2)
        accepted(await station.client().call("ListContainers"))
        await turnedAway(station.client())
        accepted(await clients[2].call("ListContainers"))


@asynchronous
async def test_manyComeAndGo(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Connections that come and go, some in the middle of a call, leave nothing."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        accepted(await client.call("ListContainers"))
        before = len(os.listdir("/proc/self/fd"))
        for number in range(60):
            with Client(station.path) as passing:
                if number % 3:
                    passing.send("RegisterWakeWatcher", EDITOR, more=number % 3 == 1)
                if number % 2:
                    passing.send("AcquireWakeLock", {**EDITOR, "name": "l"})
        await until(reactor, lambda: len(station.factory._open) == 1)
        assert (await described(client))["watcher_count"] == 0
        await until(reactor, lambda: len(os.listdir("/proc/self/fd")) == before)
