"""RegisterWakeWatcher: a stream of replies, or a pipe; told all, in order, or dropped."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from chanproxy.container import Bounds
from chanproxy.container.watchers import LINE_BYTES, PipeWatcher
from chanproxy.interfaces import ChanproxyReactor, IWakeWatcher
from chanproxy.manager.varlink import parseReply
from tests.shared.managing import Box, accepted, asleep, cycle, described, gone, refused, stationed
from tests.shared.sides import asynchronous, turns, until
from tests.shared.station import Client, Station

EDITOR = {"container": "editor"}

Told = tuple[str, str]


async def watch(station: Station) -> Client:
    """A connection that has become a watcher; its first reply is still to be read."""
    client = station.client()
    client.send("RegisterWakeWatcher", EDITOR, more=True)
    watchers = station.editor.watchers
    before = len(watchers)
    await until(station.reactor, lambda: len(watchers) > before)
    return client


async def told(client: Client) -> Told:
    """What a watcher hears next; more will follow."""
    reply = await client.reply()
    assert set(reply) == {"parameters", "continues"}
    assert reply["continues"] is True
    assert set(reply["parameters"]) == {"state", "reason", "reasons"}
    return reply["parameters"]["state"], reply["parameters"]["reason"]


async def pipe(client: Client, box: Box) -> int:
    """The read end of a watcher's pipe."""
    client.send("RegisterWakeWatcher", {**EDITOR, "pipe": True})
    reply, (fd,) = await client.replyWithDescriptors()
    assert reply == {"parameters": {}}
    return box.own(fd)


async def line(fd: int) -> str:
    """What a pipe says next; empty at its end."""
    data = await deferToThread(os.read, fd, 65536)
    assert data.count(b"\n") == (1 if data else 0)
    return data.decode()


@asynchronous
async def test_stream(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: RegisterWakeWatcher.  The present state at once, then each change in
    its order, none left out, with what woke it; attempts are none.
    """
    async with stationed(reactor, tmp_path) as (station, client, _):
        watcher = await watch(station)
        assert await told(watcher) == ("awake", "")
        expected = []
        for number in range(100):
            cycle(station, f"reason {number}")
            expected += [("asleep", ""), ("awake", f"reason {number}")]
            if number % 10 == 0:
                station.editor.sources.locks.acquire("lock")
                refused(await client.call("SuspendContainer", EDITOR), "WakeLocksExist")
                station.editor.sources.locks.release("lock")
            if number % 25 == 0:
                station.freezers["editor"].manual = True
                client.send("SuspendContainer", EDITOR)
                await until(reactor, lambda: station.freezers["editor"].freezing)
                station.freezers["editor"].failFreeze("no luck")
                station.freezers["editor"].manual = False
                refused(await client.reply(), "SuspendFailure")
        assert [await told(watcher) for _ in range(200)] == expected


@asynchronous
async def test_asleepIsTold(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: asleep is told.  When all is stopped, and not before; who comes later
    hears that it is asleep, or why it was woken.
    """
    async with stationed(reactor, tmp_path) as (station, client, _):
        early = await watch(station)
        assert await told(early) == ("awake", "")
        station.freezers["editor"].manual = True
        client.send("SuspendContainer", EDITOR)
        await until(reactor, lambda: station.freezers["editor"].freezing)
        during = await watch(station)
        assert await told(during) == ("awake", "")
        station.freezers["editor"].finishFreeze()
        for watcher in (early, during):
            assert await told(watcher) == ("asleep", "")
        late = await watch(station)
        assert await told(late) == ("asleep", "")
        accepted(await station.client().call("ResumeContainer", {**EDITOR, "reason": "because"}))
        later = await watch(station)
        for watcher in (early, during, late, later):
            assert await told(watcher) == ("awake", "because")


@asynchronous
async def test_expectedMore(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who does not expect several replies is told to; who expects none gets none."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        refused(await client.call("RegisterWakeWatcher", EDITOR), "ExpectedMore", '"more": true')
        client.send("RegisterWakeWatcher", EDITOR, more=True, oneway=True)
        client.send("RegisterWakeWatcher", {**EDITOR, "pipe": True}, oneway=True)
        await client.call("ListContainers")
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        client.send("RegisterWakeWatcher", {"container": "nobody"}, more=True)
        refused(await client.reply(), "ContainerNotFound")
        # It is a usual connection still.
        client.send("RegisterWakeWatcher", EDITOR, more=True)
        assert await told(client) == ("awake", "")
        assert len(station.editor.watchers) == 1


@asynchronous
async def test_slow(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who does not read is dropped, when its socket is full; nobody waits for it meanwhile."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        slow, quick = await watch(station), await watch(station)
        assert await told(quick) == ("awake", "")
        cycles = 0
        while len(station.editor.watchers) == 2:
            cycle(station, "x" * 10000)
            cycles += 1
            assert cycles < 1000
            assert await told(quick) == ("asleep", "")
            assert await told(quick) == ("awake", "x" * 10000)
        for _ in range(5):
            cycle(station, "later")
            assert await told(quick) == ("asleep", "")
            assert await told(quick) == ("awake", "later")
        # What it was told before, it was told without a gap.
        heard: list[Told] = []
        while True:
            data = await deferToThread(_recv, slow.socket)
            if not data:
                break
            heard.append(_parsed(data))
        everything = [("awake", ""), *[("asleep", ""), ("awake", "x" * 10000)] * cycles]
        assert 5 < len(heard) < len(everything)
        assert heard == everything[: len(heard)]
        accepted(await client.call("ListContainers"))


def _recv(connected: socket.socket) -> bytes:
    try:
        return connected.recv(1 << 20)
    except ConnectionResetError:
        return b""


def _parsed(data: bytes) -> Told:
    parameters = parseReply(data).parameters
    return parameters["state"], parameters["reason"]


@pytest.mark.parametrize("how", ["close", "shutdown"])
@asynchronous
async def test_gone(reactor: ChanproxyReactor, tmp_path: Path, how: str) -> None:
    """Who has gone is dropped at once; who only says no more goes on listening."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        one, other = await watch(station), await watch(station)
        assert await told(other) == ("awake", "")
        if how == "close":
            one.close()
            await until(reactor, lambda: len(station.editor.watchers) == 1)
        else:
            assert await told(one) == ("awake", "")
            one.socket.shutdown(socket.SHUT_WR)
            await turns(reactor)
            assert len(station.editor.watchers) == 2
            cycle(station, "because")
            assert await told(one) == ("asleep", "")
        if how == "close":
            cycle(station, "because")
        assert await told(other) == ("asleep", "")
        assert await told(other) == ("awake", "because")


@asynchronous
async def test_stillTalking(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What a watcher may still send goes unanswered, and harms nobody."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        watcher = await watch(station)
        watcher.send("AcquireWakeLock", {**EDITOR, "name": "lock"})
        watcher.sendRaw(b"nonsense")
        cycle(station, "because")
        assert await told(watcher) == ("awake", "")
        assert await told(watcher) == ("asleep", "")
        assert await told(watcher) == ("awake", "because")
        watcher.close()
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        assert not station.editor.sources.locks.held


@asynchronous
async def test_serviceStops(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """When the service stops, both kinds of watchers hear the last change, and then the end."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        watcher = await watch(station)
        fd = await pipe(client, box)
        await asleep(station, client)
        station.editor.stop()
        for expected in (("awake", ""), ("asleep", ""), ("awake", "the service stopped")):
            assert await told(watcher) == expected
        assert await watcher.ended()
        lines = await deferToThread(os.read, fd, 65536)
        assert lines == b"awake\nasleep\nawake the service stopped\n"
        assert await line(fd) == ""
        assert accepted(await client.reply())["resume_reason"] == "the service stopped"


@asynchronous
async def test_limit(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """As many as are allowed, by whichever way they listen; one that goes makes room."""
    bounds = Bounds(wakeWatchers=2)
    async with stationed(reactor, tmp_path, bounds=bounds) as (station, client, box):
        watcher = await watch(station)
        fd = await pipe(client, box)
        for more in ({}, {"pipe": True}):
            client.send("RegisterWakeWatcher", {**EDITOR, **more}, more=True)
            fields = refused(await client.reply(), "LimitExceeded", "2 watchers are told already")
            assert fields["limit"] == "limits.wake-watchers"
        watcher.close()
        await until(reactor, lambda: len(station.editor.watchers) == 1)
        watcher = await watch(station)
        assert await told(watcher) == ("awake", "")
        assert await line(fd) == "awake\n"


# The pipe.


@asynchronous
async def test_pipe(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: RegisterWakeWatcher.  By a pipe: a line for each change.  It
    outlives the connection that asked for it.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        asking = station.client()
        fd = await pipe(asking, box)
        # Its reader may wait for it, as for any pipe.
        assert os.get_blocking(fd)
        assert await line(fd) == "awake\n"
        accepted(await asking.call("ListContainers"))
        asking.close()
        await turns(reactor)
        for reason in ("one", "the second one", "three, four"):
            await asleep(station, client)
            assert await line(fd) == "asleep\n"
            other = station.client()
            accepted(await other.call("ResumeContainer", {**EDITOR, "reason": reason}))
            accepted(await client.reply())
            # One name, and it cannot pass for two.
            shown = reason.replace(",", r"\x2c")
            assert await line(fd) == f"awake {shown}\n"
        late = await pipe(client, box)
        assert await line(late) == "awake three\\x2c four\n"
        assert (await described(client))["watcher_count"] == 2


@asynchronous
async def test_longLine(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A line is as long as the kernel writes at once, and ends like any."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd = await pipe(client, box)
        cycle(station, "é" * 5000)
        lines = (await deferToThread(os.read, fd, 65536)).split(b"\n")
        assert lines[:2] == [b"awake", b"asleep"]
        assert len(lines[2]) == LINE_BYTES - 1
        assert lines[3:] == [b""]


@asynchronous
async def test_fullPipe(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who does not read a pipe finds what was said until it was full, and then its end."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd = await pipe(client, box)
        other = await pipe(client, box)
        cycles = 0
        while len(station.editor.watchers) == 2:
            cycle(station, "x" * 1000)
            cycles += 1
            assert cycles < 1000
            os.read(other, 65536)
        with os.fdopen(os.dup(fd), "rb") as file:
            heard = await deferToThread(file.read)
        everything = b"awake\n" + (b"asleep\nawake " + b"x" * 1000 + b"\n") * cycles
        assert len(heard) > 10000
        assert heard.endswith(b"\n")
        assert everything.startswith(heard)
        assert len(heard) < len(everything)
        cycle(station, "because")
        assert (await deferToThread(os.read, other, 65536)).endswith(b"awake because\n")


@asynchronous
async def test_closedPipe(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who has closed its pipe is dropped at once, without waiting for a change."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd = await pipe(client, box)
        box.give(fd)
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        cycle(station, "because")
        # Closed in the very moment in which a change comes.
        fd = await pipe(client, box)
        box.give(fd)
        cycle(station, "because")
        assert len(station.editor.watchers) == 0
        await turns(reactor)


@asynchronous
async def test_pipeIsOurs(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Nobody but the reader has the read end, and nobody but the service the other."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd = await pipe(client, box)
        assert not gone(fd)
        (watcher,) = station.editor.watchers._watchers
        assert isinstance(watcher, PipeWatcher)
        assert verifyObject(IWakeWatcher, watcher)
        station.editor.watchers.close()
        assert gone(fd)


@asynchronous
async def test_tooMany(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """As many as are allowed are told, by whichever way; one that goes makes room."""
    async with stationed(reactor, tmp_path, bounds=Bounds(wakeWatchers=2)) as (
        station,
        client,
        box,
    ):
        first = await watch(station)
        fd = await pipe(client, box)
        for more in ({}, {"pipe": True}):
            other = station.client()
            other.send("RegisterWakeWatcher", {**EDITOR, **more}, more=not more)
            fields = refused(await other.reply(), "LimitExceeded", "raise limits.wake-watchers")
            assert fields["limit"] == "limits.wake-watchers"
        first.close()
        await until(reactor, lambda: len(station.editor.watchers) == 1)
        assert await told(await watch(station)) == ("awake", "")
        assert await line(fd) == "awake\n"
