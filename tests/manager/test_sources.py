"""AddWakeSource and RemoveWakeSource: anything that can be polled, by whichever duplicate."""

from __future__ import annotations

import contextlib
import os
import random
import select
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
    accepted,
    asleep,
    described,
    gone,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client


async def add(
    client: Client, fd: int, name: str = "source", events: tuple[str, ...] = ("in",), **more: str
) -> dict[str, Any]:
    """AddWakeSource of a descriptor that stays here, too."""
    parameters = {"container": "editor", "name": name, "events": list(events), **more}
    return await client.call("AddWakeSource", parameters, fd)


async def remove(client: Client, fd: int, container: str = "editor") -> dict[str, Any]:
    """RemoveWakeSource."""
    return await client.call("RemoveWakeSource", {"container": container}, fd)


@asynchronous
async def test_wakes(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: AddWakeSource.  A descriptor wakes when its event comes, as often as
    it comes; the service keeps it open.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        given, kept = box.pair()
        assert accepted(await add(client, given, "door bell")) == {}
        for _ in range(3):
            await asleep(station, client)
            kept.send(b"ring")
            assert accepted(await client.reply())["resume_reason"] == "door bell"
            refusal = await client.call("SuspendContainer", {"container": "editor"})
            assert refused(refusal, "WakeLocksExist")["names"] == ["door bell"]
            os.read(given, 10)
        box.give(given)
        assert not gone(kept.fileno())


@pytest.mark.parametrize("through", ["the same", "a duplicate", "a duplicate of another process"])
@asynchronous
async def test_remove(reactor: ChanproxyReactor, tmp_path: Path, through: str) -> None:
    """
    starnix: manager protocol: RemoveWakeSource.  Any duplicate will do, also by another connection;
    what is removed neither wakes nor keeps awake, and its descriptor is closed.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        given, kept = box.pair()
        accepted(await add(client, given))
        if through == "the same":
            by = given
        elif through == "a duplicate":
            by = box.duplicate(given)
            box.give(given)
        else:
            # Every descriptor that arrives by a socket is one.
            one, other = socket.socketpair()
            with one, other:
                socket.send_fds(one, [b"x"], [given])
                by = box.own(socket.recv_fds(other, 1, 1)[1][0])
            box.give(given)
        other_ = station.client()
        reply = await other_.call("RemoveWakeSource", {"container": "editor"}, by)
        assert accepted(reply) == {}
        assert await sourcesOf(client) == {}
        kept.send(b"x")
        await asleep(station, client, timeout=0.01)
        assert accepted(await client.reply())["resume_reason"] == "timeout"
        refused(await remove(client, by), "WakeSourceNotFound", "may have been removed already")
        box.give(by)
        await until(reactor, lambda: gone(kept.fileno()))


@asynchronous
async def test_removeUnknown(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What was never added, what another container has, and what is missing or too much."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        known, unknown = box.eventfd(), box.eventfd()
        accepted(await add(client, known))
        refused(await remove(client, unknown), "WakeSourceNotFound")
        refused(await remove(client, known, "shop"), "WakeSourceNotFound")
        refused(await remove(client, known, "nobody"), "ContainerNotFound")
        reply = await client.call("RemoveWakeSource", {"container": "editor"})
        assert refused(reply, "InvalidParameter", "is missing")["parameter"] == "source"
        reply = await client.call("RemoveWakeSource", {"container": "editor"}, known, unknown)
        assert refused(reply, "InvalidParameter", "too many")["parameter"] == "descriptors"
        assert list(await sourcesOf(client)) == ["source"]


def inEvent(box: Box) -> tuple[int, Callable[[], object]]:
    fd = box.eventfd()
    return fd, lambda: os.eventfd_write(fd, 1)


def outEvent(box: Box) -> tuple[int, Callable[[], object]]:
    writing, reading = box.pipe()
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    return writing, lambda: os.read(reading, 65536)


def priEvent(box: Box) -> tuple[int, Callable[[], object]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = box.enter_context(socket.create_connection(listening.getsockname()))
        far = box.enter_context(listening.accept()[0])
    return box.duplicate(near.fileno()), lambda: far.send(b"!", socket.MSG_OOB)


def rdhupEvent(box: Box) -> tuple[int, Callable[[], object]]:
    given, kept = box.pair(socket.SOCK_STREAM)
    return given, lambda: kept.shutdown(socket.SHUT_WR)


def hupEvent(box: Box) -> tuple[int, Callable[[], object]]:
    writing, reading = box.pipe()
    return reading, lambda: box.give(writing)


def errEvent(box: Box) -> tuple[int, Callable[[], object]]:
    writing, reading = box.pipe()
    return writing, lambda: box.give(reading)


@pytest.mark.parametrize(
    ("events", "make"),
    [
        (("in",), inEvent),
        (("out",), outEvent),
        (("pri",), priEvent),
        (("rdhup",), rdhupEvent),
        (("hup",), hupEvent),
        (("err",), errEvent),
        # Both always count.
        (("pri",), hupEvent),
        (("pri",), errEvent),
    ],
)
@asynchronous
async def test_events(
    reactor: ChanproxyReactor,
    tmp_path: Path,
    events: tuple[str, ...],
    make: Callable[[Box], tuple[int, Callable[[], object]]],
) -> None:
    """Each event wakes, when it was asked for."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd, happen = make(box)
        accepted(await add(client, fd, "source", events))
        await asleep(station, client)
        happen()
        assert accepted(await client.reply())["resume_reason"] == "source"


@asynchronous
async def test_anyOfSeveral(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Of several events one is enough."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        accepted(await add(client, box.eventfd(), "writable", ("pri", "in", "out", "in")))
        reply = await client.call("SuspendContainer", {"container": "editor"})
        assert refused(reply, "WakeLocksExist")["names"] == ["writable"]


@asynchronous
async def test_otherEvents(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What was not asked for does not wake."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        given, kept = box.pair(socket.SOCK_STREAM)
        accepted(await add(client, given, "source", ("rdhup",)))
        await asleep(station, client, timeout=0.02)
        kept.send(b"x")
        assert accepted(await client.reply())["resume_reason"] == "timeout"


@pytest.mark.parametrize(
    ("events", "says"),
    [
        (None, "events is null"),
        ([], "events is empty; write a list of in, out, pri, rdhup, err, hup"),
        ("in", "events is a text"),
        (["IN"], "'IN', which is not known; did you mean in?"),
        (["in", 1], "events holds a whole number"),
        (["in", "pollin"], "'pollin', which is not known"),
    ],
)
@asynchronous
async def test_wrongEvents(
    reactor: ChanproxyReactor, tmp_path: Path, events: object, says: str
) -> None:
    """A sentence for each; the descriptor is closed."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        given, kept = box.pair()
        parameters = {"container": "editor", "name": "source", "events": events}
        reply = await box.call(client, "AddWakeSource", parameters, given)
        assert refused(reply, "InvalidParameter", says)["parameter"] == "events"
        assert gone(kept.fileno())
        assert await sourcesOf(client) == {}


def _file(box: Box) -> int:
    return box.own(os.open(__file__, os.O_RDONLY))


def _directory(box: Box) -> int:
    return box.own(os.open("/", os.O_RDONLY))


def _path(box: Box) -> int:
    return box.own(os.open("/", os.O_PATH))


def _epolls(box: Box) -> int:
    """As deep as the kernel allows; the registry's own are two more."""
    inner = box.eventfd()
    for _ in range(5):
        with select.epoll() as outer:
            outer.register(inner, select.EPOLLIN)
            inner = box.duplicate(outer.fileno())
    return inner


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_file, "it cannot be polled: a file or directory is always ready"),
        (_directory, "it cannot be polled: a file or directory is always ready"),
        (_path, "it was opened for its path alone (O_PATH)"),
        (_epolls, "it is an epoll in an epoll too often"),
    ],
)
@asynchronous
async def test_unpollable(
    reactor: ChanproxyReactor, tmp_path: Path, make: Callable[[Box], int], says: str
) -> None:
    """What no event can come of is no wake source."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd = make(box)
        reply = await add(client, fd)
        assert refused(reply, "InvalidParameter", says)["parameter"] == "source"
        assert await sourcesOf(client) == {}
        refused(await remove(client, fd), "WakeSourceNotFound")
        # The registry is as good as before.
        bell = box.eventfd()
        accepted(await add(client, bell, "bell"))
        await asleep(station, client)
        os.eventfd_write(bell, 1)
        assert accepted(await client.reply())["resume_reason"] == "bell"


@asynchronous
async def test_once(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """An open file is registered once in a container, whoever asks; in another, again."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd, other = box.eventfd(), station.client()
        accepted(await add(client, fd, "one"))
        for asks, again in ((client, fd), (other, box.duplicate(fd))):
            reply = await add(asks, again, "two")
            assert (
                refused(reply, "WakeSourceExists", "'two' is a wake source already")["name"]
                == "two"
            )
        accepted(await add(other, fd, "one", container="shop"))
        # The name is for people: another file may have the same.
        accepted(await add(client, box.eventfd(), "one"))
        assert (await described(client))["source_count"] == 2


@asynchronous
async def test_limit(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """As many as are allowed; one that goes makes room."""
    async with stationed(reactor, tmp_path, bounds=Bounds(wakeSources=3)) as (_, client, box):
        fds = [box.eventfd() for _ in range(3)]
        for number, fd in enumerate(fds):
            accepted(await add(client, fd, f"s{number}"))
        given, kept = box.pair()
        parameters = {"container": "editor", "name": "one more", "events": ["in"]}
        reply = await box.call(client, "AddWakeSource", parameters, given)
        fields = refused(reply, "LimitExceeded", "3 wake sources", "raise limits.wake-sources")
        assert fields["limit"] == "limits.wake-sources"
        assert gone(kept.fileno())
        accepted(await remove(client, fds[1]))
        accepted(await add(client, box.eventfd(), "one more"))
        assert list(await sourcesOf(client)) == ["s0", "s2", "one more"]


@asynchronous
async def test_lifetime(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """lifetime = connection: they go with it, those that are not removed yet; others stay."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        owner = station.client()
        ends = [box.pair() for _ in range(4)]
        accepted(await add(owner, ends[0][0], "s0"))
        for number, lifetime in enumerate(["connection", "connection", "service"], start=1):
            accepted(await add(owner, ends[number][0], f"s{number}", lifetime=lifetime))
        by = box.duplicate(ends[1][0])
        for given, _ in ends:
            box.give(given)
        # By somebody else, who may add it again for longer.
        accepted(await remove(client, by))
        accepted(await add(client, by, "again"))
        box.give(by)
        await asleep(station, client)
        owner.close()
        await until(reactor, lambda: gone(ends[2][1].fileno()))
        assert station.editor.suspension.state == "asleep"
        for number, (_, kept) in enumerate(ends):
            assert gone(kept.fileno()) == (number == 2)
        ends[1][1].send(b"x")
        assert accepted(await client.reply())["resume_reason"] == "again"
        assert list(await sourcesOf(client)) == ["s0", "s3", "again"]


@asynchronous
async def test_manyAlike(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Files that fstat(2) cannot tell apart are told apart: each is found by its duplicate."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        sources = station.editor.sources
        timers = [box.own(calls.timerAt(2.0**33)) for _ in range(200)]
        for number, timer in enumerate(timers):
            sources.addDescriptor(f"{number}", timer, select.EPOLLIN)
        order = list(range(200))
        random.shuffle(order)
        for count, number in enumerate(order):
            found = sources.find(box.duplicate(timers[number]))
            assert found is not None
            assert found.name == f"{number}"
            accepted(await remove(client, timers[number]))
            assert sources.find(timers[number]) is None
            assert len(sources) == 199 - count
