"""Out of descriptors: a call is carried out or refused with a sentence, and nothing is left."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chanproxy.carry.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.interfaces import ChanproxyReactor
from tests.shared.leaks import openFiles
from tests.shared.managing import (
    Box,
    Channel,
    accepted,
    asleep,
    described,
    gone,
    received,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, connect, turns, until
from tests.shared.station import Client

ROOM = 16
"""More than any call needs."""


@contextmanager
def scarce(left: int) -> Iterator[None]:
    """Let this process have only so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken: list[int] = []
    # The limit is one of numbers.  With 3, not even those that are closed meanwhile can be used.
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + ROOM + 2 if left else 3, hard))
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        for _ in range(left):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def called(
    reactor: ChanproxyReactor,
    client: Client,
    left: int,
    method: str,
    parameters: dict[str, Any],
    *descriptors: int,
) -> tuple[dict[str, Any], list[int]]:
    """A call that is carried out when descriptors are scarce; the reply is received later."""
    client.send(method, {"container": "editor", **parameters}, *descriptors)
    with scarce(left):
        await turns(reactor, 10)
    return await client.replyWithDescriptors()


def checked(reply: dict[str, Any]) -> bool:
    """Whether it was carried out; if not, whoever called is told why."""
    if "error" not in reply:
        return True
    fields = refused(reply, "LimitExceeded", "Too many open files")
    assert fields["limit"] == "RLIMIT_NOFILE"
    return False


async def settled(reactor: ChanproxyReactor, client: Client) -> int:
    """Descriptors that are open when all is at rest."""
    accepted(await client.call("ListContainers"))
    await turns(reactor)
    return len(openFiles())


@pytest.mark.parametrize("kind", ["shared", "handled"])
@asynchronous
async def test_proxyWakeChannel(reactor: ChanproxyReactor, tmp_path: Path, kind: str) -> None:
    """Whatever is missing in the middle of it."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        done = []
        for left in range(ROOM):
            before = await settled(reactor, client)
            channel = Channel(box, "rpc", kind)
            given, parameters = channel.given, {"name": "rpc", "counter": kind}
            reply, _ = await called(reactor, client, left, "ProxyWakeChannel", parameters, *given)
            box.give(*given)
            done.append(checked(reply))
            if done[-1]:
                assert list(await sourcesOf(client)) == ["rpc"]
                channel.remote.send(b"x")
                assert await received(channel.container) == b"x"
                channel.remote.close()
                assert await received(channel.container) == b""
            else:
                assert gone(channel.container.fileno())
                assert gone(channel.remote.fileno())
            assert await sourcesOf(client) == {}
            # The ends that are kept here, and the counter's duplicate.
            channel.container.close()
            channel.remote.close()
            box.give(channel.counter)
            assert await settled(reactor, client) == before
        assert False in done
        assert True in done


def answers(box: Box) -> list[tuple[str, dict[str, Any], list[int]]]:
    return [
        ("AddWakeSource", {"name": "s", "events": ["in"]}, [box.eventfd()]),
        ("RegisterWakeWatcher", {"pipe": True}, []),
        ("OpenCounter", {"name": "kept"}, []),
        ("OpenCounter", {"name": "kept", "kind": "handled"}, []),
        ("WakeAt", {"at": 2.0**33}, []),
        ("SuspendContainer", {"timeout": 0}, [box.eventfd()]),
        ("Describe", {}, []),
    ]


@pytest.mark.parametrize("number", range(7))
@asynchronous
async def test_others(reactor: ChanproxyReactor, tmp_path: Path, number: int) -> None:
    """Each call that needs a descriptor of its own."""
    for left in range(8):
        # A station of its own, so that what is kept for later calls is not there yet.
        directory = tmp_path / str(left)
        directory.mkdir()
        async with stationed(reactor, directory) as (station, client, box):
            station.editor.channels.keepCounter("kept")
            await settled(reactor, client)
            method, parameters, given = answers(box)[number]
            reply, descriptors = await called(reactor, client, left, method, parameters, *given)
            for fd in descriptors:
                box.own(fd)
            # A leak is found by the fixture.
            if not checked(reply):
                description = await described(client)
                assert description["alarms"] == []
                assert description["watcher_count"] == 0
                assert [source["name"] for source in description["sources"]] == ["editor/kept"]
                client.send(method, {"container": "editor", **parameters}, *given)
                reply, descriptors = await client.replyWithDescriptors()
                for fd in descriptors:
                    box.own(fd)
                accepted(reply)


@asynchronous
async def test_removeWakeSource(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What cannot be looked up now is not called unknown."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        fd = box.eventfd()
        parameters = {"name": "s", "events": ["in"]}
        for left in range(8):
            accepted(await client.call("AddWakeSource", {"container": "editor", **parameters}, fd))
            reply, _ = await called(reactor, client, left, "RemoveWakeSource", {}, fd)
            if not checked(reply):
                assert list(await sourcesOf(client)) == ["s"]
                accepted(await client.call("RemoveWakeSource", {"container": "editor"}, fd))
            assert await sourcesOf(client) == {}


@pytest.mark.parametrize("kind", ["shared", "handled"])
@asynchronous
async def test_ends(reactor: ChanproxyReactor, tmp_path: Path, kind: str) -> None:
    """What ends needs no descriptor: all of it leaves the registry, and nothing stays awake."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        owner = station.client()
        ends, owned = Channel(box, "ends", kind), Channel(box, "owned", kind)
        accepted(await ends.start(client))
        accepted(await owned.start(owner, lifetime="connection"))
        for channel in (ends, owned):
            channel.remote.send(b"x")
            assert await received(channel.container) == b"x"
        for number in range(3):
            parameters = {"container": "editor", "name": f"s{number}", "events": ["in"]}
            parameters["lifetime"] = "connection"
            accepted(await owner.call("AddWakeSource", parameters, box.eventfd(1)))
        assert len(await sourcesOf(client)) == 5
        owner.close()
        ends.remote.close()
        with scarce(0):
            await until(reactor, lambda: not len(station.editor.sources))
        assert await sourcesOf(client) == {}
        await asleep(station, client, timeout=0.01)
        accepted(await client.reply())


@asynchronous
async def test_keptCounter(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The counter of a channel that its container has let go of becomes zero all the same."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        counter = station.editor.channels.keepCounter("rpc")
        buffer = PeekBuffer()
        inner, container = connect(reactor, ContainerProtocol(), buffer)
        outer, remote = connect(reactor, RemoteProtocol(), buffer)
        with container, remote:
            station.editor.channels.proxy(inner, outer, "rpc#1", counter)
            remote.send(b"x")
            assert await received(container) == b"x"
            assert counter.value() == 1
            container.close()
            with scarce(0):
                await until(reactor, lambda: not counter.positive())
