"""ListContainers and Describe: what a container does, and why; in replies that are short enough."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from chanproxy.container import Container, Surroundings
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.wake.statistics import SuspendStatistics, bootNanoseconds
from tests.shared.managing import (
    Channel,
    accepted,
    asleep,
    described,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client


async def add(client: Client, fd: int, name: str) -> dict[str, Any]:
    """AddWakeSource of a descriptor that stays here, too."""
    parameters = {"container": "editor", "name": name, "events": ["in"]}
    return await client.call("AddWakeSource", parameters, fd)


@asynchronous
async def test_listContainers(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Each with its state and its mode, whose word has no hyphen."""
    async with stationed(reactor, tmp_path, mode="dry-run") as (station, client, _):
        awake = {"name": "editor", "state": "awake", "mode": "dry_run"}
        shop = {**awake, "name": "shop"}
        assert await client.call("ListContainers") == {"parameters": {"containers": [awake, shop]}}
        sleeper = station.client()
        sleeper.send("SuspendContainer", {"container": "editor"})
        await until(reactor, lambda: station.editor.suspension.state == "asleep")
        listed = accepted(await client.call("ListContainers"))["containers"]
        assert listed == [{**awake, "state": "asleep"}, shop]
        reply = await client.call("ListContainers", {"container": "editor"})
        assert refused(reply, "InvalidParameter", "is no parameter")["parameter"] == "container"


@asynchronous
async def test_manyContainers(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """ListContainers tells of many in several replies, and of each once."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        names = [f"{number} " + "x" * 1000 for number in range(50)]
        for name in names:
            station.containers[name] = Container(
                reactor, name, FakeFreezer(), mode="manual", around=Surroundings(recorded=False)
            )
        found: list[str] = []
        first: int | None = None
        replies = 0
        while first is not None or not replies:
            parameters = {"first_container": first}
            answer = accepted(await client.call("ListContainers", parameters))
            assert len(json.dumps(answer)) < 65536
            found += [container["name"] for container in answer["containers"]]
            first = answer.get("next_container")
            replies += 1
        assert found == ["editor", "shop", *names]
        assert replies > 1


@asynchronous
async def test_describe(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The container itself; its channels, watchers and alarms."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        before = bootNanoseconds()
        description = await described(client)
        for figures in ("statistics", "histogram", "latencies", "today"):
            del description[figures]
        assert description.pop("since") < before < description.pop("now") < bootNanoseconds()
        assert description == {
            "name": "editor",
            "state": "awake",
            "mode": "manual",
            "why_awake": "it is suspended only when asked (suspend = manual)",
            "times": [],
            "passed_over": [],
            "signals": "looked_for",
            "freezer": "editor",
            "linger": 0.05,
            "settings": [],
            "proxy_count": 0,
            "watcher_count": 0,
            "source_count": 0,
            "events": [],
            "alarms": [],
            "sources": [],
        }
        accepted(await Channel(box, "rpc").start(client))
        watcher = station.client()
        watcher.send("RegisterWakeWatcher", {"container": "editor"}, more=True)
        accepted(await watcher.reply())
        accepted(await client.call("AcquireWakeLock", {"container": "editor", "name": "lock"}))
        alarm = {"container": "editor", "name": "tea", "at": 2.0**33}
        accepted(await client.call("WakeAt", alarm))
        description = await described(client)
        counts = ("proxy_count", "watcher_count", "source_count")
        assert [description[name] for name in counts] == [1, 1, 2]
        assert description["alarms"] == [{"name": "tea", "at": 2.0**33}]
        # Locks come first.
        kinds = [(source["name"], source["kind"]) for source in description["sources"]]
        assert kinds == [("lock", "lock"), ("rpc", "counter")]
        reply = await client.call("Describe", {"container": "nobody"})
        assert refused(reply, "ContainerNotFound")["container"] == "nobody"


@asynchronous
async def test_today(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What became of it today grows with each look, and each wake is counted."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        first = (await described(client))["today"]
        assert first["since"] <= time.time()
        assert (first["asleep_time"], first["wake_count"]) == (0, 0)
        assert first["spared_cpu_time"] is None
        await asleep(station, client)
        second = (await described(station.client()))["today"]
        third = (await described(station.client()))["today"]
        assert second["awake_time"] == third["awake_time"] > first["awake_time"]
        assert third["asleep_time"] > second["asleep_time"] > 0
        await station.editor.resume("enough")
        accepted(await client.reply())
        last = (await described(client))["today"]
        assert last["wake_count"] == 1
        assert last["asleep_time"] >= third["asleep_time"]


@asynchronous
async def test_statistics(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Describe has each source's figures: how often, since when, how long, and when last."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        fd = box.eventfd()
        accepted(await add(client, fd, "bell"))
        before = bootNanoseconds()
        assert await sourcesOf(client) == {
            "bell": {
                "name": "bell",
                "kind": "descriptor",
                **dict.fromkeys(("active_count", "event_count", "wakeup_count", "expire_count"), 0),
                **dict.fromkeys(("active_since", "total_time", "max_time", "last_change"), 0),
                "active": False,
            }
        }
        for _ in range(2):
            await asleep(station, client)
            os.eventfd_write(fd, 1)
            accepted(await client.reply())
            os.eventfd_read(fd)
            await described(client)
        os.eventfd_write(fd, 1)
        bell = (await sourcesOf(client))["bell"]
        now = bootNanoseconds()
        counts = ("active_count", "event_count", "wakeup_count", "expire_count", "active")
        assert [bell[name] for name in counts] == [3, 3, 2, 0, True]
        assert before < bell["active_since"] == bell["last_change"] < now
        assert 0 < bell["max_time"] <= bell["total_time"] <= 2 * bell["max_time"]
        os.eventfd_read(fd)
        bell = (await sourcesOf(client))["bell"]
        assert (bell["active"], bell["active_since"]) == (False, 0)
        assert now < bell["last_change"] < bootNanoseconds()


@asynchronous
async def test_portions(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Describe tells of many sources in several replies, each short enough, and of each once."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        names = [f"{number} " + "ö" * 500 for number in range(150)]
        for name in names:
            accepted(await add(client, box.eventfd(), name))
        found: list[str] = []
        replies, first = 0, None
        while True:
            asked = {"container": "editor", "first_source": first}
            parameters = accepted(await client.call("Describe", asked))
            replies += 1
            assert len(json.dumps(parameters)) < 65536
            assert parameters["description"]["source_count"] == 150
            found += [source["name"] for source in parameters["description"]["sources"]]
            first = parameters.get("next_source")
            if first is None:
                break
            assert first == len(found)
        assert found == names
        assert replies > 3
        # From anywhere on, also from beyond the last.
        asked = {"container": "editor", "first_source": 149}
        last = accepted(await client.call("Describe", asked))
        assert [source["name"] for source in last["description"]["sources"]] == names[-1:]
        assert "next_source" not in last
        for beyond in (150, 2**31):
            asked["first_source"] = beyond
            none = accepted(await client.call("Describe", asked))
            assert none["description"]["sources"] == []
            assert "next_source" not in none
        for wrong in (-1, 2**31 + 1, 1.5, "0"):
            reply = await client.call("Describe", {"container": "editor", "first_source": wrong})
            assert refused(reply, "InvalidParameter")["parameter"] == "first_source"


async def suspended(client: Client, timeout: float = 0.001) -> dict[str, Any]:
    """SuspendContainer, until the time is over."""
    return await client.call("SuspendContainer", {"container": "editor", "timeout": timeout})


@asynchronous
async def test_attempts(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: the attempt is counted.  At once, and in the ring of events; one that is
    refused because another is under way is none.
    """
    async with stationed(reactor, tmp_path) as (station, client, _):
        before = bootNanoseconds()
        await asleep(station, client)
        other = station.client()
        refused(await suspended(other), "AlreadySuspended")
        description = await described(other)
        assert description["statistics"].pop("counted_since") < before
        assert description["statistics"] == {
            "attempt_count": 1,
            **dict.fromkeys(("success_count", "fail_count", "last_wake"), 0),
            **dict.fromkeys(("last_failure", "last_resume_reason", "last_wake_reason"), ""),
            **dict.fromkeys(("last_suspend_time", "total_suspend_time"), 0),
            **dict.fromkeys(("breath_count", "breath_time"), 0),
        }
        (event,) = description["events"]
        assert (event["kind"], event["reason"]) == ("attempt", "")
        assert before < event["at"] < bootNanoseconds()


@asynchronous
async def test_outcomes(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: success and failure.  Each is counted, with its reason; after a failure
    the last reason is the abort.
    """
    async with stationed(reactor, tmp_path) as (station, client, _):
        before = bootNanoseconds()
        slept = [accepted(await suspended(client))["suspend_time"] for _ in range(2)]
        after = bootNanoseconds()
        statistics = (await described(client))["statistics"]
        assert statistics["last_resume_reason"] == "timeout"
        lock = {"container": "editor", "name": "lock"}
        accepted(await client.call("AcquireWakeLock", lock))
        accepted(await client.call("AcquireWakeLock", {**lock, "name": "other"}))
        refused(await suspended(client), "WakeLocksExist")
        statistics = (await described(client))["statistics"]
        assert statistics["last_resume_reason"] == "Abort: lock,other"
        accepted(await client.call("ReleaseWakeLock", lock))
        accepted(await client.call("ReleaseWakeLock", {**lock, "name": "other"}))
        station.freezers["editor"].ready = False
        refused(await suspended(client), "SuspendFailure")
        description = await described(client)
        why = "editor: no process is in it"
        # What failed since has woken nobody.
        assert before < description["statistics"].pop("last_wake") < after
        assert description["statistics"].pop("counted_since") < before
        assert description["statistics"] == {
            "last_wake_reason": "timeout",
            "attempt_count": 4,
            "success_count": 2,
            "fail_count": 2,
            "last_failure": why,
            "last_resume_reason": f"Abort: {why}",
            "last_suspend_time": slept[1],
            "total_suspend_time": sum(slept),
            **dict.fromkeys(("breath_count", "breath_time"), 0),
        }
        assert [(event["kind"], event["reason"]) for event in description["events"]] == [
            ("attempt", ""),
            ("resume", "timeout"),
            ("attempt", ""),
            ("resume", "timeout"),
            ("attempt", ""),
            ("fail", "lock,other"),
            ("attempt", ""),
            ("fail", why),
        ]


@asynchronous
async def test_ring(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Of the events the last 128 are kept, oldest first; a long reason has its beginning."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        names = [f"{number} " + "x" * 1000 for number in range(70)]
        for name in names:
            station.editor.sources.locks.acquire(name)
            refused(await suspended(client), "WakeLocksExist")
            station.editor.sources.locks.release(name)
        description = await described(client)
        assert description["statistics"]["attempt_count"] == 70
        events = description["events"]
        assert [event["kind"] for event in events] == ["attempt", "fail"] * 64
        assert [event["at"] for event in events] == sorted(event["at"] for event in events)
        reasons = [event["reason"] for event in events[1::2]]
        assert reasons == [f"{name[:256]}..." for name in names[6:]]


@asynchronous
async def test_histogram(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: the histogram.  32 buckets; the first reaches up to 100 microseconds, each
    of the others twice as far as the one before.
    """
    expected = [0] * 32
    async with stationed(reactor, tmp_path) as (_, client, _):
        assert (await described(client))["histogram"] == expected
        for timeout in (0, 0, 0.001, 0.002, 0.004, 0.03):
            asleep_ = accepted(await suspended(client, timeout))["suspend_time"]
            bucket, limit = 0, 100_000
            while asleep_ >= limit:
                bucket, limit = bucket + 1, limit * 2
            expected[bucket] += 1
        assert (await described(client))["histogram"] == expected


@pytest.mark.parametrize(
    ("asleep_", "bucket"),
    [
        (0, 0),
        (99_999, 0),
        (100_000, 1),
        (199_999, 1),
        (200_000, 2),
        (100_000 * 2**30 - 1, 30),
        (100_000 * 2**30, 31),
        # More than three years: the last one has no end.
        (100_000 * 2**40, 31),
    ],
)
def test_buckets(asleep_: int, bucket: int) -> None:
    """Where one bucket ends and the next begins."""
    statistics = SuspendStatistics()
    statistics.succeeded(0, asleep_, "")
    assert [number for number, count in enumerate(statistics.histogram) if count] == [bucket]
