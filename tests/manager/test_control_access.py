"""Who may call what: other users, as the kernel knows them, on connections of their own."""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import count as numbers
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs, formatEvent

from chanproxy.config import AccessEntry
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.errors import ContainerNotFound
from tests.shared.managing import (
    Box,
    Channel,
    accepted,
    connectedAs,
    count,
    gone,
    received,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, until
from tests.shared.station import SERVICE, Client, Station

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")

USER, GROUP, STRANGER, EARLY = 61001, 61002, 61003, 61004

ENTRIES = (
    AccessEntry("user", users=(USER,), containers=("editor",)),
    AccessEntry("early", users=(EARLY,), containers=("editor", "ghost")),
    AccessEntry("group", groups=(GROUP,), containers=("*",), trusted=True),
)


@asynccontextmanager
async def visited(
    reactor: ChanproxyReactor, directory: Path, user: int, *groups: int
) -> AsyncIterator[tuple[Station, Client, Client, Box]]:
    """A station, root's connection, another user's, and a box."""
    async with stationed(reactor, directory, access=ENTRIES) as (station, root, box):
        (connected,) = connectedAs(station.path, user, groups)
        yield station, root, station.client(connected), box


@asynchronous
async def test_nobody(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who has no access is told so and how to get it, and may ask what answers here; no more."""
    with capturedLogs() as events:
        async with visited(reactor, tmp_path, STRANGER) as (_, root, stranger, box):
            for method, parameters in (
                ("ListContainers", {}),
                ("Describe", {"container": "editor"}),
                ("Describe", {"container": "nobody"}),
                ("SuspendContainer", {"container": "editor"}),
                ("AcquireWakeLock", {"container": "editor", "name": "lock"}),
                ("RegisterWakeWatcher", {"container": "editor", "pipe": True}),
            ):
                given, kept = box.pair()
                reply = await box.call(stranger, method, parameters, given)
                says = f"of user {STRANGER} has no access; the configuration gives it"
                refused(reply, "PermissionDenied", says)
                assert gone(kept.fileno())
            assert accepted(await stranger.call(f"{SERVICE}.GetInfo"))["product"] == "chanproxy"
            description = {"interface": "org.chanproxy.Manager"}
            accepted(await stranger.call(f"{SERVICE}.GetInterfaceDescription", description))
            refused(await stranger.call("Nothing"), "MethodNotFound")
            accepted(await root.call("ListContainers"))
    lines = [formatEvent(event) or "" for event in events]
    assert [line for line in lines if line.endswith(f"of user {STRANGER} has no access")]


@asynchronous
async def test_oneContainer(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """An entry is for its containers; of the others not even their names are told."""
    async with visited(reactor, tmp_path, USER) as (station, _, user, _):
        (listed,) = accepted(await user.call("ListContainers"))["containers"]
        assert listed["name"] == "editor"
        accepted(await user.call("Describe", {"container": "editor"}))
        for name in ("shop", "nobody"):
            reply = await user.call("Describe", {"container": name})
            refused(reply, "PermissionDenied", f"has no access to the container '{name}'")
        accepted(await user.call("AcquireWakeLock", {"container": "editor", "name": "lock"}))
        reply = await user.call("AcquireWakeLock", {"container": "shop", "name": "lock"})
        refused(reply, "PermissionDenied")
        # Nor is an entry for what is the service's.
        reply = await user.call("SetContainer", {"name": "editor", "linger": 1})
        refused(reply, "PermissionDenied", "this is for root")
        reply = await user.call("SuspendContainer", {"container": "editor"})
        refused(reply, "WakeLocksExist")
        user.send("RegisterWakeWatcher", {"container": "editor"}, more=True)
        assert accepted(await user.reply())["state"] == "awake"
        assert not station.containers["shop"].sources.locks.held


@asynchronous
async def test_notThere(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who asks for one that is not there is told of those alone that it has access to."""
    async with visited(reactor, tmp_path, EARLY) as (_, root, user, _):
        ghost = {"container": "ghost"}
        lock = {**ghost, "name": "lock"}
        refused(await user.call("AcquireWakeLock", lock), "ContainerNotFound", "known are editor")
        fields = refused(await user.call("Describe", ghost), "ContainerNotFound")
        assert fields["message"].endswith("; known are editor")
        fields = refused(await root.call("Describe", ghost), "ContainerNotFound")
        assert fields["message"].endswith("; known are editor, shop")


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ((), "ListContainers names them all"),
        (("web", "a,b"), "known are web, a\\x2cb"),
        (map(str, range(5)), "known are 0, 1, 2, 3, 4"),
        (map(str, numbers()), "known are 0, 1, 2, 3, 4 and more; ListContainers names them all"),
    ],
)
def test_few(there: Iterable[str], says: str) -> None:
    """However many there are, a few are named."""
    assert str(ContainerNotFound("x", there)) == f"there is no container 'x'; {says}"


@asynchronous
async def test_byGroup(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A group that the caller has besides its own is as good; this one is trusted everywhere."""
    async with visited(reactor, tmp_path, STRANGER, 5, GROUP, 7) as (_, _, member, box):
        listed = accepted(await member.call("ListContainers"))["containers"]
        assert [container["name"] for container in listed] == ["editor", "shop"]
        channel = Channel(box, "rpc")
        accepted(await channel.start(member, "shop"))
        channel.remote.send(b"x")
        assert await received(channel.container) == b"x"
        assert count(channel.counter) == 1


@asynchronous
async def test_counters(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who is not trusted shares no counter, neither its own nor ours, and needs none."""
    async with visited(reactor, tmp_path, USER) as (station, root, user, box):
        shared = Channel(box, "shared")
        reply = await shared.start(user)
        refused(reply, "PermissionDenied", "is not trusted with a shared counter", "handled")
        assert gone(shared.container.fileno())
        channel = Channel(box, "rpc", "handled")
        accepted(await channel.start(user))
        channel.remote.send(b"x")
        assert await received(channel.container) == b"x"
        assert (await sourcesOf(root))["rpc"]["active"]
        os.eventfd_write(channel.counter, 1)
        await until(reactor, lambda: not station.editor.sources.signalled())

        counter = station.editor.channels.keepCounter("kept")
        counter.add(2)
        parameters = {"container": "editor", "name": "kept"}
        reply = await user.call("OpenCounter", {**parameters, "kind": "shared"})
        refused(reply, "PermissionDenied", "ask for kind = handled")
        user.send("OpenCounter", parameters)
        opened, (fd,) = await user.replyWithDescriptors()
        assert accepted(opened) == {"kind": "handled"}
        os.eventfd_write(box.own(fd), 1)
        await until(reactor, lambda: counter.value() == 1)
        # It may make that one block, and fill it: only what is there is taken off.
        os.set_blocking(fd, True)
        os.eventfd_write(fd, 2**64 - 2)
        await until(reactor, lambda: counter.value() == 0)
        accepted(await user.call("ListContainers"))


@asynchronous
async def test_polledSafely(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who is not trusted gives what the kernel alone polls; others could make us wait for ever."""
    async with visited(reactor, tmp_path, USER) as (_, root, user, box):
        with select.epoll() as epoll, select.epoll() as safe:
            source = {"container": "editor", "events": ["in"]}
            for number, fd in enumerate([epoll.fileno(), box.own(os.open("/", os.O_RDONLY))]):
                parameters: dict[str, Any] = {**source, "name": f"unsafe {number}"}
                reply = await user.call("AddWakeSource", parameters, fd)
                fields = refused(reply, "InvalidParameter", "may give sockets, pipes, eventfds")
                assert fields["parameter"] == "source"
                reply = await user.call("SuspendContainer", {"container": "editor"}, fd)
                assert refused(reply, "InvalidParameter")["parameter"] == "wake_locks"
            # Root knows what it does.
            accepted(await root.call("AddWakeSource", {**source, "name": "e"}, safe.fileno()))
            given = [
                box.eventfd(),
                box.pipe()[1],
                box.pair()[0],
                box.own(os.pidfd_open(os.getpid())),
            ]
            for number, fd in enumerate(given):
                parameters = {**source, "name": f"safe {number}"}
                accepted(await user.call("AddWakeSource", parameters, fd))
            sources = list(await sourcesOf(root))
            assert sources == ["e", *(f"safe {number}" for number in range(len(given)))]


@asynchronous
async def test_connections(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Another user may have an eighth of the connections; root, as many as there are."""
    options = {"access": ENTRIES, "connections": 16}
    async with stationed(reactor, tmp_path, **options) as (station, root, _):
        mine = [station.client(each) for each in connectedAs(station.path, USER, count=4)]
        for client in mine[:2]:
            accepted(await client.call("ListContainers"))
        for client in mine[2:]:
            fields = refused(await client.reply(), "LimitExceeded", "too many connections")
            assert fields["limit"] == "limits.control-connections"
            assert await client.ended()
        # Others, and root, are not concerned.
        (stranger,) = connectedAs(station.path, STRANGER)
        refused(await station.client(stranger).call("ListContainers"), "PermissionDenied")
        for _ in range(10):
            accepted(await station.client().call("ListContainers"))
        accepted(await root.call("ListContainers"))
        # One that goes makes room.
        mine[0].close()
        accounts = station.factory._open
        await until(reactor, lambda: sum(a.who == f"user {USER}" for a in accounts.values()) == 1)
        (again,) = connectedAs(station.path, USER)
        accepted(await station.client(again).call("ListContainers"))
