"""ManagerClient: the manager from a Twisted program; answers, errors, and either side's end."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.transport import MessageProtocol
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.endpoints.ports import ChannelPort
from chanproxy.interfaces import ChannelBroken, ChanproxyReactor
from chanproxy.manager.client import ManagerClient
from chanproxy.manager.varlink import VarlinkError
from tests.shared.managing import Box, Channel, count, gone, received, stationed
from tests.shared.sides import asynchronous, turns, until
from tests.shared.station import SERVICE, Station

Told = list[tuple[str, tuple[str, ...]]]


@asynccontextmanager
async def connected(
    reactor: ChanproxyReactor, directory: Path, **options: Any
) -> AsyncIterator[tuple[Station, ManagerClient, Box]]:
    """A station, a client of it, and a box."""
    async with stationed(reactor, directory, **options) as (station, _, box):
        client = await ManagerClient.connect(reactor, station.path)
        try:
            yield station, client, box
        finally:
            client.close()
            client.close()
            await turns(reactor)


async def fails(deferred: Deferred[Any], error: str) -> VarlinkError:
    """Check that the manager answers with that error."""
    with pytest.raises(VarlinkError) as caught:
        await deferred
    assert caught.value.error.rpartition(".")[2] == error
    return caught.value


@asynchronous
async def test_closed(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A client that was closed, or whose service has gone, says that another one is needed."""
    says = "this client was closed, or its service has gone; connect another one"
    async with connected(reactor, tmp_path) as (station, client, _):
        client.close()
        with pytest.raises(ConnectionClosed, match=says):
            await client.listContainers()
        other = await ManagerClient.connect(reactor, station.path)
        await other.listContainers()
        station.factory.closeAll()
        await turns(reactor)
        with pytest.raises(ConnectionClosed, match=says):
            await other.listContainers()
        other.close()


@asynchronous
async def test_channels(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A channel and its counter; what was passed stays the caller's."""
    async with connected(reactor, tmp_path) as (_, client, box):
        for kind in ("shared", "handled"):
            channel = Channel(box, kind, kind)
            await client.proxyWakeChannel("editor", kind, channel.given, kind=kind)
            box.give(*channel.given)
            channel.remote.send(b"x")
            assert await received(channel.container) == b"x"
        for wanted in (None, "shared"):
            opened = await client.openCounter("editor", "shared", wanted)
            assert opened.parameters == {"kind": "shared"}
            (fd,) = opened.descriptors
            assert count(box.own(fd)) == 1
        opened = await client.openCounter("editor", "shared", "handled")
        os.eventfd_write(box.own(opened.descriptors[0]), 1)
        await until(reactor, lambda: count(fd) == 0)
        error = await fails(client.openCounter("editor", "handled"), "CounterNotFound")
        assert error.parameters["name"] == "handled"


@asynchronous
async def test_initial(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """One message counts from the start: awake until it is reported as handled."""
    async with connected(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc", "handled")
        await client.proxyWakeChannel("editor", "rpc", channel.given, kind="handled", initial=1)
        box.give(*channel.given)
        error = await fails(client.suspendContainer("editor"), "WakeLocksExist")
        assert error.parameters["names"] == ["rpc"]
        os.eventfd_write(channel.counter, 1)
        answer = await client.suspendContainer("editor", timeout=0.001)
        assert answer["resume_reason"] == "timeout"
        shared = Channel(box, "shared")
        refused = client.proxyWakeChannel("editor", "shared", shared.given, initial=1)
        error = await fails(refused, "InvalidParameter")
        assert error.parameters["parameter"] == "initial"


@asynchronous
async def test_containers(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Added with its channels, and removed; or for the client's time."""
    async with connected(reactor, tmp_path) as (station, client, _):
        owner = await ManagerClient.connect(reactor, station.path)
        listen, connect = f"seqpacket:{tmp_path}/out", f"seqpacket:{tmp_path}/in"
        await owner.addContainer(
            "build",
            "none",
            linger=2,
            suspend="dry_run",
            channels={
                "rpc": {
                    "listen": listen,
                    "connect": connect,
                    "handled": "explicit",
                    # As Varlink writes what is left out, and words of a file.
                    "identity": None,
                    "keepalive_idle": 20,
                    "keepalive-count": 2,
                }
            },
        )
        await owner.addContainer("passing", "none", lifetime="connection")
        description = await client.describe("build")
        assert (description["linger"], description["mode"]) == (2, "dry_run")
        assert (tmp_path / "out").is_socket()
        opened = await client.openCounter("build", "rpc")
        os.close(opened.descriptors[0])
        await fails(client.addContainer("build", "none"), "ContainerExists")
        await fails(client.removeContainer("editor"), "ContainerConfigured")
        owner.close()
        await until(reactor, lambda: "passing" not in station.containers)
        await client.removeContainer("build")
        assert not (tmp_path / "out").exists()
        await fails(client.removeContainer("build"), "ContainerNotFound")
        listed = await client.listContainers()
        assert [container["name"] for container in listed] == ["editor", "shop"]


@asynchronous
async def test_trace(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What happens is in the file, which may be closed as soon as the call is sent."""
    async with connected(reactor, tmp_path) as (_, client, _):
        path = tmp_path / "trace"
        await fails(client.stopTrace(), "TraceNotRunning")
        with path.open("wb") as file:
            started = client.startTrace(file.fileno())
        await started
        with path.open("ab") as file:
            await fails(client.startTrace(file.fileno(), format="perfetto"), "TraceRunning")
        await client.suspendContainer("editor", timeout=0.001)
        answer = await client.stopTrace()
        events = json.loads(path.read_bytes())
        assert "asleep" in {event["name"] for event in events}
        assert answer["complete"]
        assert answer["bytes"] == path.stat().st_size
        assert 0 < answer["events"] <= len(events)


@asynchronous
async def test_suspend(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Sources, locks, alarms; suspended and resumed."""
    async with connected(reactor, tmp_path) as (station, client, box):
        bell = box.eventfd()
        await client.addWakeSource("editor", "bell", bell)
        other = await ManagerClient.connect(reactor, station.path)
        sleeping = client.suspendContainer("editor")
        await until(reactor, lambda: station.editor.suspension.state == "asleep")
        os.eventfd_write(bell, 1)
        assert (await sleeping)["resume_reason"] == "bell"
        error = await fails(client.suspendContainer("editor"), "WakeLocksExist")
        assert error.parameters["names"] == ["bell"]
        assert str(error) == error.parameters["message"]
        await client.removeWakeSource("editor", box.duplicate(bell))
        await client.acquireWakeLock("editor", "lock")
        await fails(other.releaseWakeLock("editor", "lock"), "WakeLockNotHeld")
        await fails(client.suspendContainer("editor"), "WakeLocksExist")
        await client.releaseWakeLock("editor", "lock")
        await client.acquireWakeLock("editor", "lock", timeout=1000, lifetime="service")
        await other.releaseWakeLock("editor", "lock", lifetime="service")
        answer = await client.suspendContainer("editor", timeout=0.01)
        assert answer["resume_reason"] == "timeout"
        assert answer["suspend_time"] > 9_000_000
        locks = box.eventfd(1)
        error = await fails(client.suspendContainer("editor", wakeLocks=locks), "WakeLocksExist")
        assert error.parameters["names"] == ["wake locks"]
        sleeping = client.suspendContainer("editor")
        await until(reactor, lambda: station.editor.suspension.state == "asleep")
        await other.resumeContainer("editor", "because")
        assert (await sleeping)["resume_reason"] == "because"
        sleeping = client.suspendContainer("editor")
        await other.wakeAt("editor", 2.0**33, "tea")
        await other.wakeAt("editor", 1.0, "now")
        assert (await sleeping)["resume_reason"] == "now"
        assert (await client.describe("editor"))["alarms"] == [{"name": "tea", "at": 2.0**33}]
        await client.wakeAt("editor", None, "tea")
        assert (await client.describe("editor"))["alarms"] == []
        other.close()


@asynchronous
async def test_look(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What there is; a description is whole, in however many portions it came."""
    async with connected(reactor, tmp_path) as (_, client, box):
        listed = await client.listContainers()
        assert [container["name"] for container in listed] == ["editor", "shop"]
        names = [f"{number} " + "x" * 1000 for number in range(150)]
        for name in names:
            await client.addWakeSource("editor", name, box.eventfd(), ("in", "hup"))
        description = await client.describe("editor")
        assert [source["name"] for source in description["sources"]] == names
        assert description["source_count"] == 150
        await fails(client.describe("nobody"), "ContainerNotFound")
        answer = await client.call(f"{SERVICE}.GetInfo")
        assert answer.parameters["product"] == "chanproxy"
        assert answer.descriptors == []
        await fails(client.call("Nothing"), "MethodNotFound")


@asynchronous
async def test_lifetime(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What was made for the client's time goes with it."""
    async with connected(reactor, tmp_path) as (station, client, box):
        owner = await ManagerClient.connectTo(
            clientFromString(reactor, f"seqpacket:{station.path}")
        )
        given, kept = box.pair()
        await owner.addWakeSource("editor", "s", given, lifetime="connection")
        box.give(given)
        channel = Channel(box, "rpc")
        await owner.proxyWakeChannel("editor", "rpc", channel.given, lifetime="connection")
        box.give(*channel.given)
        await owner.acquireWakeLock("editor", "lock")
        owner.close()
        await until(reactor, lambda: gone(kept.fileno()))
        assert await received(channel.remote) == b""
        assert not station.editor.sources.locks.held
        assert (await client.describe("editor"))["proxy_count"] == 0


@asynchronous
async def test_cannotBeSent(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A call that cannot be sent costs no other."""
    async with connected(reactor, tmp_path) as (_, client, box):
        fd = box.eventfd()
        for descriptors in ([fd] * 254, [1 << 20]):
            with pytest.raises((ChannelBroken, OSError)):
                await client.call("ListContainers", {}, descriptors)
        # The kernel takes it from root only.
        with pytest.raises((ChannelBroken, VarlinkError)):
            await client.call("ListContainers", {"x": "y" * (1 << 20)})
        assert len(await client.listContainers()) == 2


@asynchronous
async def test_manyAtOnce(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """More calls than the kernel takes at once wait here, in order, with their descriptors."""
    async with connected(reactor, tmp_path) as (_, client, box):
        answers = []
        for number in range(500):
            fd = box.eventfd()
            answers.append(client.addWakeSource("editor", f"{number}", fd))
            box.give(fd)
        for answer in answers:
            assert await answer == {}
        description = await client.describe("editor")
        names = [source["name"] for source in description["sources"]]
        assert names == [f"{number}" for number in range(500)]


@asynchronous
async def test_cancel(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who gives up waiting: the answer is thrown away, with its descriptors; others are right."""
    async with connected(reactor, tmp_path) as (station, client, _):
        station.editor.channels.keepCounter("rpc")
        opening = client.openCounter("editor", "rpc")
        failing = client.describe("nobody")
        pipe = client.watchByPipe("editor")
        listing = client.listContainers()
        for cancelled in (opening, failing, pipe):
            cancelled.cancel()
            with pytest.raises(CancelledError):
                await cancelled
        assert len(await listing) == 2
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        # One that is not answered at all.
        sleeping = client.suspendContainer("editor")
        sleeping.cancel()
        with pytest.raises(CancelledError):
            await sleeping


# The end.


@asynchronous
async def test_connectFails(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Nobody is there."""
    with pytest.raises(ConnectError, match="No such file"):
        await ManagerClient.connect(reactor, str(tmp_path / "control.sock"))


@asynchronous
async def test_serviceGoes(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What waits fails, what comes later fails, and closing is harmless."""
    async with connected(reactor, tmp_path) as (station, client, _):
        sleeping = client.suspendContainer("editor")
        later = client.listContainers()
        await until(reactor, lambda: station.editor.suspension.state == "asleep")
        station.factory.closeAll()
        for waiting in (sleeping, later):
            with pytest.raises(ConnectionClosed):
                await waiting
        with pytest.raises(ConnectionClosed):
            await client.listContainers()
        with pytest.raises(ConnectionClosed):
            await client.describe("editor")


@asynchronous
async def test_close(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """After a close there are no calls; what waited fails."""
    async with connected(reactor, tmp_path) as (station, client, _):
        sleeping = client.suspendContainer("editor")
        await until(reactor, lambda: station.editor.suspension.state == "asleep")
        client.close()
        with pytest.raises(ConnectionClosed):
            await client.listContainers()
        with pytest.raises(ConnectionClosed):
            await sleeping


class Foreign(MessageProtocol):
    """A service that answers as the test wants."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        for answer in self._answers:
            self.transport.sendMessage(answer, [0])


@asynccontextmanager
async def foreign(
    reactor: ChanproxyReactor, directory: Path, *answers: bytes
) -> AsyncIterator[ManagerClient]:
    """A client of a service that answers each call with these packets."""
    path = str(directory / "foreign.sock")
    protocols: list[Foreign] = []

    class Server(Factory):
        def buildProtocol(self, address: IAddress | None) -> Foreign:
            protocols.append(Foreign(list(answers)))
            return protocols[-1]

    port = ChannelPort(reactor, SeqpacketAddressSpec(path), Server(), PeekBuffer())
    port.startListening()
    client = await ManagerClient.connect(reactor, path)
    try:
        yield client
    finally:
        client.close()
        await port.stopListening()
        for protocol in protocols:
            protocol.transport.loseConnection()
        await turns(reactor)


@asynchronous
async def test_malformed(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is no reply fails the call, as an error does; its descriptors are closed."""
    async with foreign(reactor, tmp_path, b"nonsense") as client:
        error = await fails(client.call("ListContainers"), "ReplyMalformed")
        assert "no JSON" in str(error)
        await fails(client.watch("editor", print), "ReplyMalformed")


@asynchronous
async def test_unasked(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A reply to nothing is nobody's; an error of another service is one."""
    replies = (b'{"parameters": {"a": 1}}', b'{"parameters": {}}', b"nonsense")
    async with foreign(reactor, tmp_path, *replies) as client:
        answer = await client.call("org.other.Method")
        assert answer.parameters == {"a": 1}
        os.close(answer.descriptors[0])
        await turns(reactor)
    async with foreign(reactor, tmp_path, b'{"error": "org.other.Bad"}') as client:
        assert str(await fails(client.call("org.other.Method"), "Bad")) == "org.other.Bad"


# Watching.


@asynchronous
async def test_watch(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The present state before the watch is there, then each change; until it is stopped."""
    async with connected(reactor, tmp_path) as (station, client, _):
        told: Told = []
        watch = await client.watch("editor", lambda state, reasons: told.append((state, reasons)))
        assert told == [("awake", ())]
        for _ in range(3):
            # It does not stand in the way of the client's own calls.
            await client.suspendContainer("editor", timeout=0.001)
        await until(reactor, lambda: len(told) == 7)
        assert told[1:] == [("asleep", ()), ("awake", ("timeout",))] * 3
        stopped = watch.stop()
        assert watch.stop() is stopped
        await stopped
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        await client.suspendContainer("editor", timeout=0.001)
        assert len(told) == 7


@asynchronous
async def test_watchFails(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A container that there is not: no watch, and no connection that is left."""
    async with connected(reactor, tmp_path) as (station, client, _):
        await client.listContainers()
        before = len(station.factory._open)
        await fails(client.watch("nobody", print), "ContainerNotFound")
        await until(reactor, lambda: len(station.factory._open) == before)
        assert len(await client.listContainers()) == 2


@asynchronous
async def test_watchEnds(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A service that goes ends the watch, with a failure."""
    async with connected(reactor, tmp_path) as (station, client, _):
        told: Told = []
        watch = await client.watch("editor", lambda state, reasons: told.append((state, reasons)))
        sleeping = client.suspendContainer("editor")
        await until(reactor, lambda: len(told) == 2)
        station.editor.stop()
        station.factory.closeAll()
        with pytest.raises(ConnectionClosed):
            await watch.ended
        assert told[2:] == [("awake", ("the service stopped",))]
        assert (await sleeping)["resume_reason"] == "the service stopped"


@pytest.mark.parametrize("when", ["awake", "asleep"])
@asynchronous
async def test_watchRaises(reactor: ChanproxyReactor, tmp_path: Path, when: str) -> None:
    """A function that raises ends its watch, which fails with that; the client goes on."""
    async with connected(reactor, tmp_path) as (station, client, _):
        told: list[str] = []

        def changed(state: str, reasons: tuple[str, ...]) -> None:
            told.append(state)
            if state == when:
                raise RuntimeError("a bad function")

        watch = await client.watch("editor", changed)
        await client.suspendContainer("editor", timeout=0.001)
        with pytest.raises(RuntimeError, match="a bad function"):
            await watch.ended
        await until(reactor, lambda: len(station.editor.watchers) == 0)
        assert told == (["awake"] if when == "awake" else ["awake", "asleep"])
        await client.suspendContainer("editor", timeout=0.001)
        assert len(told) < 3


@pytest.mark.parametrize("bad", [b"nonsense", b'{"parameters": {}}', b'{"error": "org.x.Y"}'])
@asynchronous
async def test_watchMalformed(reactor: ChanproxyReactor, tmp_path: Path, bad: bytes) -> None:
    """A stream that stops making sense is the end of the watch, and of its connection."""
    good = b'{"parameters": {"state": "awake", "reason": "", "reasons": []}, "continues": true}'
    told: Told = []
    async with foreign(reactor, tmp_path, good, good, bad, good) as client:
        watch = await client.watch("editor", lambda state, reasons: told.append((state, reasons)))
        with pytest.raises((VarlinkError, KeyError)):
            await watch.ended
        await turns(reactor)
    assert told == [("awake", ())] * 2


@asynchronous
async def test_watchByPipe(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A descriptor to read lines from, which outlives the client."""
    async with connected(reactor, tmp_path) as (station, client, box):
        fd = box.own(await client.watchByPipe("editor"))
        client.close()
        await turns(reactor)
        station.editor.suspend(0.001)
        await until(reactor, lambda: station.editor.suspension.statistics.successes)
        expected = b"awake\nasleep\nawake timeout\n"
        assert await deferToThread(os.read, fd, 1000) == expected
