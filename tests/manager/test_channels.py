"""ProxyWakeChannel and OpenCounter: channels that somebody else made, carried and counted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.counter import MAXIMUM
from tests.shared.managing import (
    Channel,
    accepted,
    asleep,
    count,
    described,
    gone,
    received,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client


async def echoed(channel: socket.socket, expected: bytes) -> None:
    """Take a packet with a descriptor, and write the packet into that."""
    data, descriptors, _, _ = await deferToThread(socket.recv_fds, channel, 100, 253)
    assert data == expected
    (fd,) = descriptors
    os.write(fd, data)
    os.close(fd)


@asynchronous
async def test_carries(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: ProxyWakeChannel.  Packets go both ways, as they were sent and with
    their descriptors; those that go in are counted, on a wake source of that name.
    """
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        assert accepted(await channel.start(client)) == {}
        packets = [b"one", b"", b"x" * 40000, b"four"]
        for packet in packets:
            channel.remote.send(packet)
        for packet in packets:
            assert await received(channel.container) == packet
        given, kept = box.pipe()
        socket.send_fds(channel.remote, [b"in"], [given])
        box.give(given)
        await until(reactor, lambda: count(channel.counter) == 5)
        await echoed(channel.container, b"in")
        assert os.read(kept, 10) == b"in"
        assert gone(kept)

        given, kept = box.pipe()
        socket.send_fds(channel.container, [b"out"], [given])
        box.give(given)
        channel.container.send(b"")
        await echoed(channel.remote, b"out")
        assert await received(channel.remote) == b""
        assert os.read(kept, 10) == b"out"
        assert gone(kept)
        assert count(channel.counter) == 5

        described_ = await described(client)
        assert described_["proxy_count"] == 1
        source = (await sourcesOf(client))["rpc"]
        assert (source["kind"], source["active"], source["event_count"]) == ("counter", True, 5)
        for _ in range(5):
            os.eventfd_read(channel.counter)
        assert not (await sourcesOf(client))["rpc"]["active"]


@asynchronous
async def test_wakes(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: ProxyWakeChannel.  A message wakes the container, and keeps it awake
    until it is handled.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        channel = Channel(box, "rpc")
        await channel.start(client)
        for number in range(3):
            await asleep(station, client)
            channel.remote.send(b"%d" % number)
            assert accepted(await client.reply())["resume_reason"] == "rpc"
            assert await received(channel.container) == b"%d" % number
            refusal = await client.call("SuspendContainer", {"container": "editor"})
            assert refused(refusal, "WakeLocksExist")["names"] == ["rpc"]
            os.eventfd_read(channel.counter)
        assert (await sourcesOf(client))["rpc"]["wakeup_count"] == 3


@asynchronous
async def test_handledByWriting(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """With counter = handled the container writes how many it has handled; more is no error."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc", "handled")
        await channel.start(client)
        for _ in range(5):
            channel.remote.send(b"x")
            await received(channel.container)
        # It is not the counter: nothing is added to it.
        assert count(channel.counter) == 0
        assert (await sourcesOf(client))["rpc"]["active"]
        os.eventfd_write(channel.counter, 4)
        await until(reactor, lambda: count(channel.counter) == 0)
        assert (await sourcesOf(client))["rpc"]["active"]
        os.eventfd_write(channel.counter, 1000)
        await until(reactor, lambda: count(channel.counter) == 0)
        assert not (await sourcesOf(client))["rpc"]["active"]
        channel.remote.send(b"x")
        await received(channel.container)
        source = (await sourcesOf(client))["rpc"]
        assert (source["active"], source["event_count"]) == (True, 6)


@asynchronous
async def test_handledCannotStall(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A client that makes its eventfd a blocking one, and fills it again and again, stalls none."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        channel = Channel(box, "rpc", "handled")
        os.set_blocking(channel.counter, True)
        await channel.start(client)
        other = station.client()
        for number in range(20):
            os.eventfd_write(channel.counter, MAXIMUM)
            channel.remote.send(b"%d" % number)
            assert await received(channel.container) == b"%d" % number
            assert len(accepted(await other.call("ListContainers"))["containers"]) == 2
            await until(reactor, lambda: count(channel.counter) == 0)
        assert (await sourcesOf(client))["rpc"]["event_count"] == 20


@pytest.mark.parametrize("blocking", [False, True])
@asynchronous
async def test_sharedIsFull(reactor: ChanproxyReactor, tmp_path: Path, blocking: bool) -> None:
    """
    starnix: channel proxy: 9: a shared counter that its holder has filled costs that channel alone,
    and says why.
    """
    async with stationed(reactor, tmp_path) as (_, client, box):
        first, second = Channel(box, "first"), Channel(box, "second")
        os.set_blocking(first.counter, blocking)
        await first.start(client)
        await second.start(client)
        os.eventfd_write(first.counter, MAXIMUM)
        with capturedLogs() as events:
            first.remote.send(b"x")
            assert await received(first.container) == b""
        lines = [formatEvent(event) for event in events]
        assert "first: closed, to the container: adding 1 would overflow the counter" in lines
        second.remote.send(b"x")
        assert await received(second.container) == b"x"
        assert list(await sourcesOf(client)) == ["second"]


@pytest.mark.parametrize("side", ["container", "remote"])
@asynchronous
async def test_end(reactor: ChanproxyReactor, tmp_path: Path, side: str) -> None:
    """
    starnix: channel proxy: 11: what one end has sent arrives before the other sees the end; then
    the wake source goes.
    """
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        await channel.start(client)
        ends = {"container": channel.container, "remote": channel.remote}
        closing = ends.pop(side)
        (other,) = ends.values()
        for number in range(3):
            closing.send(b"%d" % number)
        closing.close()
        for number in range(3):
            assert await received(other) == b"%d" % number
        assert await received(other) == b""
        assert await sourcesOf(client) == {}
        assert (await described(client))["proxy_count"] == 0
        # The counter is free: it can be given again.
        again = Channel(box, "rpc")
        again.given = (*again.given[:2], box.duplicate(channel.counter))
        accepted(await again.start(client))
        again.remote.send(b"x")
        assert await received(again.container) == b"x"


@asynchronous
async def test_endedBefore(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A peer that has gone before the call: what it had sent is carried, and counted."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        for number in range(3):
            channel.remote.send(b"%d" % number)
        channel.remote.close()
        accepted(await channel.start(client))
        for number in range(3):
            assert await received(channel.container) == b"%d" % number
        assert await received(channel.container) == b""
        assert count(channel.counter) == 3
        assert await sourcesOf(client) == {}


@asynchronous
async def test_sourceRemoved(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A proxy whose counter is removed from the registry carries on, and ends as others do."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        await channel.start(client)
        removal = {"container": "editor"}
        accepted(await client.call("RemoveWakeSource", removal, channel.counter))
        channel.remote.send(b"x")
        assert await received(channel.container) == b"x"
        assert await sourcesOf(client) == {}
        channel.remote.close()
        assert await received(channel.container) == b""


@asynchronous
async def test_sameName(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A name is for people: two channels may have the same, and each has its own counter."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        channels = [Channel(box, "rpc"), Channel(box, "rpc")]
        for channel in channels:
            accepted(await channel.start(client))
        await asleep(station, client)
        channels[1].remote.send(b"x")
        assert accepted(await client.reply())["resume_reason"] == "rpc"
        await until(reactor, lambda: count(channels[1].counter) == 1)
        assert count(channels[0].counter) == 0
        # OpenCounter is asked by name: the first has it, as long as it lasts.
        reply, (fd,) = await opened(client, "rpc")
        assert reply["kind"] == "shared"
        assert count(box.own(fd)) == 0


@pytest.mark.parametrize("kind", ["shared", "handled"])
@asynchronous
async def test_lifetime(reactor: ChanproxyReactor, tmp_path: Path, kind: str) -> None:
    """lifetime = connection: it ends with the connection, after what is pending; others stay."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        owner = station.client()
        stays, goes = Channel(box, "stays", kind), Channel(box, "goes", kind)
        accepted(await stays.start(owner, lifetime="service"))
        accepted(await goes.start(owner, lifetime="connection"))
        elsewhere = Channel(box, "elsewhere", kind)
        accepted(await elsewhere.start(owner, "shop", lifetime="connection"))
        goes.remote.send(b"last words")
        owner.close()
        assert await received(goes.container) == b"last words"
        assert await received(goes.container) == b""
        assert await received(goes.remote) == b""
        assert await received(elsewhere.remote) == b""
        assert list(await sourcesOf(client)) == ["stays"]
        assert await sourcesOf(client, "shop") == {}
        stays.remote.send(b"x")
        assert await received(stays.container) == b"x"


async def opened(
    client: Client, name: str, kind: str | None = None
) -> tuple[dict[str, object], list[int]]:
    """OpenCounter's answer, and the descriptors with it."""
    client.send("OpenCounter", {"container": "editor", "name": name, "kind": kind})
    reply, descriptors = await client.replyWithDescriptors()
    return accepted(reply), descriptors


@pytest.mark.parametrize("of", ["channel", "proxy"])
@asynchronous
async def test_openCounter(reactor: ChanproxyReactor, tmp_path: Path, of: str) -> None:
    """Both kinds, of a channel with handled = explicit and of a proxy with a shared counter."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        channel = Channel(box, "rpc")
        if of == "proxy":
            await channel.start(client)
            channel.remote.send(b"1")
            channel.remote.send(b"2")
            channel.remote.send(b"3")
            name = "rpc"
        else:
            station.editor.channels.keepCounter("rpc").add(3)
            name = "editor/rpc"
        await until(reactor, lambda: station.editor.sources.signalled())
        # For who is trusted, the counter itself is what is wanted.
        reply, (shared,) = await opened(client, "rpc")
        assert reply == {"kind": "shared"}
        box.own(shared)
        await until(reactor, lambda: count(shared) == 3)
        os.eventfd_read(shared)
        assert count(shared) == 2
        reply, (handled,) = await opened(client, "rpc", "handled")
        assert reply == {"kind": "handled"}
        os.eventfd_write(box.own(handled), 1)
        await until(reactor, lambda: count(shared) == 1)
        # There is one for all who ask.
        reply, (again,) = await opened(client, "rpc", "handled")
        os.eventfd_write(box.own(again), 1)
        await until(reactor, lambda: count(shared) == 0)
        assert not (await sourcesOf(client))[name]["active"]


@asynchronous
async def test_openNoCounter(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """None is of an unknown channel, of a proxy without a shared one, and of one that has ended."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel, handled = Channel(box, "rpc"), Channel(box, "handled", "handled")
        await channel.start(client)
        await handled.start(client)
        _, (fd,) = await opened(client, "rpc", "handled")
        box.own(fd)
        channel.remote.close()
        assert await received(channel.container) == b""
        for name in ("nothing", "handled", "rpc"):
            for kind in ("shared", "handled", None):
                parameters = {"container": "editor", "name": name, "kind": kind}
                reply = await client.call("OpenCounter", parameters)
                fields = refused(reply, "CounterNotFound", f"there is no counter '{name}'")
                assert fields["name"] == name
        # What was handed out is nobody's any more, and harms nobody.
        os.eventfd_write(fd, 1)
        accepted(await client.call("ListContainers"))
