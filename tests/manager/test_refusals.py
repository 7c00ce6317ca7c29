"""ProxyWakeChannel refuses: a sentence that names the field, nothing kept, the connection alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chanproxy.container import Bounds
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls
from tests.shared.managing import (
    Box,
    Channel,
    accepted,
    count,
    gone,
    received,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client

FIELDS = ("container_channel", "remote_channel", "counter")

Made = tuple[int, int | None]
"""A descriptor to give away, and the other end to keep, if it has one."""


def pipe(box: Box) -> Made:
    return box.pipe()


def file(box: Box) -> Made:
    return box.own(os.open(__file__, os.O_RDONLY)), None


def datagram(box: Box) -> Made:
    return box.pair(socket.SOCK_DGRAM)[0], None


def stream(box: Box) -> Made:
    given, kept = box.pair(socket.SOCK_STREAM)
    return given, kept.fileno()


def packets(box: Box) -> Made:
    given, kept = box.pair()
    return given, kept.fileno()


def inet(box: Box) -> Made:
    return box.socket(socket.AF_INET, socket.SOCK_DGRAM), None


def unconnected(box: Box) -> Made:
    return box.socket(), None


def listening(box: Box) -> Made:
    given = box.socket()
    with socket.socket(fileno=os.dup(given)) as bound:
        bound.bind("")
        bound.listen()
    return given, None


def path(box: Box) -> Made:
    """A socket's file, opened for its path alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(f"/tmp/{os.getpid()}.chanproxy-test")
        try:
            return box.own(os.open(bound.getsockname(), os.O_PATH)), None
        finally:
            os.unlink(bound.getsockname())


def semaphore(box: Box) -> Made:
    return box.eventfd(semaphore=True), None


def plain(box: Box) -> Made:
    return box.eventfd(), None


def timer(box: Box) -> Made:
    return box.own(calls.timerAt(2.0**33)), None


CHANNELS: list[tuple[Callable[[Box], Made], str]] = [
    (pipe, "it is no socket"),
    (file, "it is no socket"),
    (semaphore, "it is no socket"),
    (path, "it is no socket"),
    (inet, "it is no Unix and no TCP socket; only those are carried"),
    (datagram, "it is no SOCK_SEQPACKET and no SOCK_STREAM socket; only those are carried"),
    (unconnected, "it is not connected"),
    (listening, "it listens; give a connected socket"),
]
COUNTERS: list[tuple[str, Callable[[Box], Made], str]] = [
    ("shared", plain, "the eventfd is not in semaphore mode: make it with EFD_SEMAPHORE"),
    ("shared", pipe, "not an eventfd: make it with eventfd(2) and EFD_SEMAPHORE"),
    ("shared", packets, "not an eventfd"),
    ("shared", timer, "not an eventfd"),
    ("handled", semaphore, "the eventfd is in semaphore mode: make it without"),
    ("handled", pipe, "not an eventfd: make it with eventfd(2)"),
    ("handled", file, "not an eventfd"),
]
WRONG = [
    *((field, "shared", make, says) for field in FIELDS[:2] for make, says in CHANNELS),
    *(("counter", kind, make, says) for kind, make, says in COUNTERS),
]


async def unharmed(box: Box, client: Client) -> None:
    """The same connection still does what is right, and nothing is left of what was wrong."""
    assert await sourcesOf(client) == {}
    channel = Channel(box, "right")
    accepted(await channel.start(client))
    channel.remote.send(b"x")
    assert await received(channel.container) == b"x"
    assert list(await sourcesOf(client)) == ["right"]


@pytest.mark.parametrize(("field", "kind", "make", "says"), WRONG)
@asynchronous
async def test_wrongDescriptor(
    reactor: ChanproxyReactor,
    tmp_path: Path,
    field: str,
    kind: str,
    make: Callable[[Box], Made],
    says: str,
) -> None:
    """
    starnix: manager protocol: a missing field.  What cannot be a channel or a counter is
    named, and all of the call's descriptors are closed.
    """
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc", kind)
        wrong, kept = make(box)
        given = list(channel.given)
        box.give(given[FIELDS.index(field)])
        given[FIELDS.index(field)] = wrong
        channel.given = (given[0], given[1], given[2])
        reply = await channel.start(client)
        assert refused(reply, "InvalidParameter", says)["parameter"] == field
        assert gone(channel.container.fileno())
        assert gone(channel.remote.fileno())
        assert kept is None or gone(kept)
        await unharmed(box, client)


@pytest.mark.parametrize("field", FIELDS[:2])
@asynchronous
async def test_mixed(reactor: ChanproxyReactor, tmp_path: Path, field: str) -> None:
    """Packets at one end and a stream at the other: the second of them is named."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        wrong, kept = stream(box)
        given = list(channel.given)
        box.give(given[FIELDS.index(field)])
        given[FIELDS.index(field)] = wrong
        channel.given = (given[0], given[1], given[2])
        reply = await channel.start(client)
        fields = refused(reply, "InvalidParameter", "only one end keeps message boundaries")
        assert fields["parameter"] == "remote_channel"
        assert gone(channel.container.fileno())
        assert gone(channel.remote.fileno())
        assert kept is None or gone(kept)
        await unharmed(box, client)


@pytest.mark.parametrize("number", [0, 1, 2, 4, 50])
@asynchronous
async def test_wrongNumber(reactor: ChanproxyReactor, tmp_path: Path, number: int) -> None:
    """
    starnix: manager protocol: a missing field.  A descriptor that is missing is named, and
    one that is too many is no other's.
    """
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        surplus, kept = box.pipe()
        given = [*channel.given[:number], *(box.duplicate(surplus) for _ in range(number - 3))]
        client.send("ProxyWakeChannel", {"container": "editor", "name": "rpc"}, *given)
        for fd in [*channel.given, *given[3:], surplus]:
            box.give(fd)
        reply = await client.reply()
        if number < 3:
            fields = refused(reply, "InvalidParameter", f"is missing: the call has {number}, and")
            assert fields["parameter"] == FIELDS[number]
        else:
            fields = refused(reply, "InvalidParameter", f"too many: the call has {number}, and")
            assert fields["parameter"] == "descriptors"
        assert "takes container_channel, remote_channel, counter" in fields["message"]
        assert gone(channel.container.fileno())
        assert gone(channel.remote.fileno())
        assert gone(kept)
        await unharmed(box, client)


@pytest.mark.parametrize(
    ("changed", "error", "field", "says"),
    [
        ({"container": None}, "InvalidParameter", "container", "container is null"),
        ({"container": 1}, "InvalidParameter", "container", "write a text"),
        ({"container": "nobody"}, "ContainerNotFound", "nobody", "no container 'nobody'"),
        ({"name": None}, "InvalidParameter", "name", "name is null"),
        ({"name": ""}, "InvalidParameter", "name", "name is empty"),
        ({"name": "x" * 1025}, "InvalidParameter", "name", "more than 1024 bytes"),
        ({"name": "é" * 513}, "InvalidParameter", "name", "more than 1024 bytes"),
        ({"name": "a\nb"}, "InvalidParameter", "name", "does not print"),
        ({"counter": "mine"}, "InvalidParameter", "counter", "write shared, handled"),
        ({"lifetime": "long"}, "InvalidParameter", "lifetime", "write service, connection"),
        ({"nmae": "x"}, "InvalidParameter", "nmae", "did you mean name?"),
    ],
)
@asynchronous
async def test_wrongParameter(
    reactor: ChanproxyReactor,
    tmp_path: Path,
    changed: dict[str, Any],
    error: str,
    field: str,
    says: str,
) -> None:
    """
    starnix: manager protocol: a missing field.  A parameter is named, and so is a container
    that there is not; the descriptors are closed.
    """
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        parameters = {"container": "editor", "name": "rpc", **changed}
        reply = await box.call(client, "ProxyWakeChannel", parameters, *channel.given)
        fields = refused(reply, error, says)
        assert fields["container" if error == "ContainerNotFound" else "parameter"] == field
        assert gone(channel.container.fileno())
        assert gone(channel.remote.fileno())
        await unharmed(box, client)


@asynchronous
async def test_longestName(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A name of 1,024 bytes is one."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        name = "é" * 512
        accepted(await Channel(box, name).start(client))
        assert list(await sourcesOf(client)) == [name]


@pytest.mark.parametrize("duplicated", [False, True])
@asynchronous
async def test_sameSocket(reactor: ChanproxyReactor, tmp_path: Path, duplicated: bool) -> None:
    """One socket cannot be both channels, by whichever descriptor it comes."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        inner, outer, counter = channel.given
        box.give(outer)
        channel.given = (inner, box.duplicate(inner) if duplicated else inner, counter)
        reply = await channel.start(client)
        fields = refused(reply, "InvalidParameter", "it is the same socket as container_channel")
        assert fields["parameter"] == "remote_channel"
        assert gone(channel.container.fileno())
        await unharmed(box, client)


@asynchronous
async def test_ownConnection(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A connection to the manager is not taken: the service would itself keep it from ending."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        owner = station.client()
        source = {"container": "editor", "name": "s", "events": ["in"], "lifetime": "connection"}
        own = owner.socket.fileno()
        for method, field in (("AddWakeSource", "source"), ("RemoveWakeSource", "source")):
            parameters = source if method == "AddWakeSource" else {"container": "editor"}
            reply = await owner.call(method, parameters, own)
            fields = refused(reply, "InvalidParameter", "a connection to this very manager")
            assert fields["parameter"] == field
        reply = await owner.call("SuspendContainer", {"container": "editor"}, own)
        assert refused(reply, "InvalidParameter")["parameter"] == "wake_locks"
        for field in FIELDS[:2]:
            channel = Channel(box, "rpc")
            given = list(channel.given)
            box.give(given[FIELDS.index(field)])
            given[FIELDS.index(field)] = box.duplicate(own)
            channel.given = (given[0], given[1], given[2])
            reply = await channel.start(owner)
            assert refused(reply, "InvalidParameter")["parameter"] == field
        accepted(await owner.call("AddWakeSource", source, box.eventfd()))
        owner.close()
        await until(reactor, lambda: not len(station.editor.sources))
        await unharmed(box, client)


@pytest.mark.parametrize("registered", ["ProxyWakeChannel", "AddWakeSource"])
@asynchronous
async def test_sameCounter(reactor: ChanproxyReactor, tmp_path: Path, registered: str) -> None:
    """A counter serves one channel; who has it already goes on undisturbed."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        first, second = Channel(box, "first"), Channel(box, "second")
        if registered == "ProxyWakeChannel":
            accepted(await first.start(client))
        else:
            parameters = {"container": "editor", "name": "first", "events": ["in"]}
            accepted(await client.call("AddWakeSource", parameters, first.counter))
        second.given = (*second.given[:2], box.duplicate(first.counter))
        fields = refused(
            await second.start(client), "WakeSourceExists", "'second' is a wake source already"
        )
        assert fields["name"] == "second"
        assert gone(second.container.fileno())
        assert gone(second.remote.fileno())
        assert list(await sourcesOf(client)) == ["first"]
        if registered == "ProxyWakeChannel":
            first.remote.send(b"x")
            assert await received(first.container) == b"x"
            assert count(first.counter) == 1


@asynchronous
async def test_tooManySources(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The limit of wake sources is one of channels, too."""
    async with stationed(reactor, tmp_path, bounds=Bounds(wakeSources=1)) as (_, client, box):
        first, second = Channel(box, "first", "handled"), Channel(box, "second", "handled")
        accepted(await first.start(client))
        reply = await second.start(client)
        fields = refused(reply, "LimitExceeded", "1 wake sources are registered already")
        assert fields["limit"] == "limits.wake-sources"
        assert gone(second.container.fileno())
        assert gone(second.remote.fileno())
        first.container.close()
        assert await received(first.remote) == b""
        third = Channel(box, "third", "handled")
        accepted(await third.start(client))
