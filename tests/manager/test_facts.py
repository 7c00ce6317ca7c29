"""What Describe and ListContainers say beside figures: since when, until when, and held by whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chanproxy.config import AccessEntry
from chanproxy.container import Bounds
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.statistics import bootNanoseconds
from tests.shared.managing import (
    Channel,
    accepted,
    asleep,
    connectedAs,
    cycle,
    described,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous
from tests.shared.station import Client

USER = 61001


async def acquire(client: Client, name: str, **more: Any) -> None:
    """AcquireWakeLock."""
    accepted(await client.call("AcquireWakeLock", {"container": "editor", "name": name, **more}))


@asynchronous
async def test_since(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Since when it is awake, or asleep; an attempt that fails changes nothing."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        begin = await described(client)
        assert begin["since"] == begin["statistics"]["counted_since"] < begin["now"]
        station.editor.sources.locks.acquire("lock")
        refused(await client.call("SuspendContainer", {"container": "editor"}), "WakeLocksExist")
        station.editor.sources.locks.release("lock")
        station.freezers["editor"].ready = False
        refused(await client.call("SuspendContainer", {"container": "editor"}), "SuspendFailure")
        station.freezers["editor"].ready = True
        assert (await described(client))["since"] == begin["since"]
        before = bootNanoseconds()
        await asleep(station, client)
        other = station.client()
        slept = (await described(other))["since"]
        assert before < slept < bootNanoseconds()
        station.editor.suspension.resume("dawn")
        accepted(await client.reply())
        woken = await described(client)
        assert slept < woken["statistics"]["last_wake"] <= woken["since"] < woken["now"]


@asynchronous
async def test_times(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """While it sleeps, when it will be woken by itself, in order; not before, and not after."""
    bounds = Bounds(maxAsleep=1000)
    async with stationed(reactor, tmp_path, bounds=bounds) as (station, client, _):
        assert (await described(client))["times"] == []
        before = bootNanoseconds()
        await asleep(station, client, timeout=2000)
        other = station.client()
        first, second = (await described(other))["times"]
        assert (first["reason"], first["wakes"]) == ("max-asleep", True)
        assert (second["reason"], second["wakes"]) == ("timeout", True)
        for time, after in ((first, 1000), (second, 2000)):
            assert before + after * 1e9 < time["at"] < bootNanoseconds() + after * 1e9
        station.editor.suspension.resume("dawn")
        accepted(await client.reply())
        assert (await described(client))["times"] == []


@asynchronous
async def test_details(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Of each container in the list what it does and why, as Describe says it."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        cycle(station, "dawn")
        station.editor.sources.locks.acquire("backup")
        refused(await client.call("SuspendContainer", {"container": "editor"}), "WakeLocksExist")
        answer = accepted(await client.call("ListContainers", {"details": True}))
        editor, shop = answer["containers"]
        description = await described(client)
        before, now = editor["details"].pop("today"), description["today"]
        assert before.keys() == now.keys()
        assert before["awake_time"] < now["awake_time"]
        assert before["asleep_time"] == now["asleep_time"]
        assert editor["details"] == {
            **{name: description[name] for name in ("since", "why_awake")},
            **{
                name: description["statistics"][name]
                for name in (
                    *("last_wake", "last_wake_reason", "counted_since"),
                    *("total_suspend_time", "attempt_count"),
                )
            },
        }
        assert editor["details"]["why_awake"] == "backup"
        assert editor["details"]["last_wake_reason"] == "dawn"
        assert shop["details"]["last_wake"] == 0
        assert editor["details"]["since"] < answer["now"] < description["now"]
        reply = await client.call("ListContainers", {"details": "yes"})
        assert refused(reply, "InvalidParameter")["parameter"] == "details"


@asynchronous
async def test_holders(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who holds a lock, since when and until when; by name it is whoever acquired it last."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        before = bootNanoseconds()
        await acquire(client, "job")
        await acquire(client, "job", lifetime="connection", timeout=1000)
        (named, connected) = (await sourcesOf(client))["job"]["holders"]
        ours: dict[str, Any] = {"uid": os.geteuid(), "pid": os.getpid()}
        ours["command"] = Path("/proc/self/comm").read_text().strip()
        since = named.pop("since")
        assert before < since < bootNanoseconds()
        assert named == {"lifetime": "service", **ours}
        assert since < connected["since"] < connected["until"] - 1000e9 + 1
        assert connected["lifetime"] == "connection"
        # Another time limit is no other hold.
        await acquire(client, "job", timeout=2000)
        again = (await sourcesOf(client))["job"]["holders"][0]
        assert again["since"] == since < again["until"] - 2000e9 + 1
        # An alarm's is held by nobody.
        station.editor.sources.locks.acquire("tea", 1000, station.editor.alarms)
        (alarm,) = (await sourcesOf(client))["tea"]["holders"]
        assert set(alarm) == {"lifetime", "since", "until"}
        station.editor.sources.locks.releaseAll(station.editor.alarms)
        assert (await sourcesOf(client))["tea"]["holders"] == []
        for number in range(20):
            station.editor.sources.locks.acquire("crowd", None, number)
        crowd = (await sourcesOf(client))["crowd"]
        assert (len(crowd["holders"]), crowd["holder_count"]) == (16, 20)
        for number in range(20):
            station.editor.sources.locks.release("crowd", number)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@asynchronous
async def test_otherUser(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A holder is whoever has connected; of a process that has ended there is no name any more."""
    entry = AccessEntry("user", users=(USER,), containers=("editor",))
    async with stationed(reactor, tmp_path, access=[entry]) as (station, client, _):
        (connected,) = connectedAs(station.path, USER)
        await acquire(station.client(connected), "job")
        (holder,) = (await sourcesOf(client))["job"]["holders"]
        assert (holder["uid"], holder["command"]) == (USER, "")
        assert holder["pid"] != os.getpid()


@asynchronous
async def test_unhandled(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """How many messages are not handled, of a counter that is not zero."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        channel = Channel(box, "rpc")
        accepted(await channel.start(client))
        assert "unhandled" not in (await sourcesOf(client))["rpc"]
        os.eventfd_write(channel.counter, 3)
        assert (await sourcesOf(client))["rpc"]["unhandled"] == 3
        for _ in range(3):
            os.eventfd_read(channel.counter)
        assert "unhandled" not in (await sourcesOf(client))["rpc"]
