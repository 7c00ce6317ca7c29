"""AcquireWakeLock, ReleaseWakeLock and WakeAt: awake by name, for a time, or at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from chanproxy.container import Bounds
from chanproxy.interfaces import ChanproxyReactor
from tests.shared.managing import accepted, asleep, described, refused, sourcesOf, stationed
from tests.shared.sides import asynchronous, until
from tests.shared.station import Client, Station


async def acquire(client: Client, name: str = "lock", **more: Any) -> dict[str, Any]:
    """AcquireWakeLock."""
    return await client.call("AcquireWakeLock", {"container": "editor", "name": name, **more})


async def release(client: Client, name: str = "lock", **more: Any) -> dict[str, Any]:
    """ReleaseWakeLock."""
    return await client.call("ReleaseWakeLock", {"container": "editor", "name": name, **more})


async def suspend(client: Client) -> dict[str, Any]:
    """SuspendContainer, for a moment."""
    return await client.call("SuspendContainer", {"container": "editor", "timeout": 0.001})


def held(station: Station) -> set[str]:
    """The names of the editor's locks."""
    return set(station.editor.sources.locks.held)


@asynchronous
async def test_acquireAndRelease(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """While a lock is held by anybody, the container is kept awake; its figures stay."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        other, mine = station.client(), {"lifetime": "connection"}
        accepted(await acquire(client, **mine))
        accepted(await acquire(other, **mine))
        # Holding it already holds it once.
        accepted(await acquire(client, **mine))
        accepted(await acquire(client, "another"))
        names = refused(await suspend(client), "WakeLocksExist", "'another', 'lock'")["names"]
        assert names == ["another", "lock"]
        accepted(await release(other, "another"))
        accepted(await release(client, **mine))
        assert refused(await suspend(client), "WakeLocksExist")["names"] == ["lock"]
        accepted(await release(other, **mine))
        assert accepted(await suspend(client))["resume_reason"] == "timeout"
        lock = (await sourcesOf(client))["lock"]
        counts = ("kind", "active", "active_count", "event_count", "wakeup_count", "expire_count")
        assert [lock[name] for name in counts] == ["lock", False, 1, 3, 0, 0]
        assert lock["total_time"] == lock["max_time"] > 0


@asynchronous
async def test_wakes(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """One that is acquired while the container sleeps wakes it."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        await asleep(station, client)
        accepted(await acquire(station.client(), "phone call"))
        assert accepted(await client.reply())["resume_reason"] == "phone call"
        assert (await sourcesOf(client))["phone call"]["wakeup_count"] == 1


@asynchronous
async def test_timeout(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It ends by itself, at the time that was said last; then it is not held any more."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        accepted(await acquire(client, timeout=0.03))
        accepted(await acquire(client, "shorter", timeout=1000))
        accepted(await acquire(client, "shorter", timeout=0.03))
        accepted(await acquire(client, "longer", timeout=0.03))
        accepted(await acquire(client, "longer"))
        await until(reactor, lambda: held(station) == {"longer"})
        sources = await sourcesOf(client)
        expired = {name: source["expire_count"] for name, source in sources.items()}
        assert expired == {"lock": 1, "shorter": 1, "longer": 0}
        assert 0.029e9 < sources["lock"]["total_time"] < 5e9
        refused(await release(client), "WakeLockNotHeld")
        accepted(await release(client, "longer"))
        assert held(station) == set()


@pytest.mark.parametrize("timeout", [-1, "1", True, 1e9, [1]])
@asynchronous
async def test_wrongTimeout(reactor: ChanproxyReactor, tmp_path: Path, timeout: object) -> None:
    """What is no number of seconds is named, for a lock and for a suspend."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        reply = await acquire(client, timeout=timeout)
        assert refused(reply, "InvalidParameter", "a number from 0 to")["parameter"] == "timeout"
        parameters = {"container": "editor", "timeout": timeout}
        reply = await client.call("SuspendContainer", parameters)
        assert refused(reply, "InvalidParameter", "a number from 0 to")["parameter"] == "timeout"
        assert held(station) == set()


@asynchronous
async def test_lifetime(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """lifetime = connection: it ends with the connection, and with it the reason to be awake."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        owner = station.client()
        accepted(await acquire(owner, "goes", lifetime="connection"))
        accepted(await acquire(owner, "timed", lifetime="connection", timeout=1000))
        accepted(await acquire(owner, "stays", lifetime="service"))
        accepted(await acquire(owner, "shared", lifetime="connection"))
        accepted(await acquire(client, "shared", lifetime="connection"))
        elsewhere = {"container": "shop", "name": "goes", "lifetime": "connection"}
        accepted(await owner.call("AcquireWakeLock", elsewhere))
        assert held(station) == {"goes", "timed", "stays", "shared"}
        owner.close()
        await until(reactor, lambda: held(station) == {"stays", "shared"})
        assert not station.containers["shop"].sources.locks.held
        # What is the service's can be released by whoever comes.
        accepted(await release(client, "stays"))
        accepted(await release(client, "shared", lifetime="connection"))
        assert held(station) == set()


@asynchronous
async def test_wrongHolder(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A lock is released with the lifetime it was acquired with, and by its own connection."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        other = station.client()
        accepted(await acquire(client, "mine", lifetime="connection"))
        accepted(await acquire(client, "all", lifetime="service"))
        for asks, name, lifetime in (
            (other, "mine", "connection"),
            (client, "mine", "service"),
            (client, "all", "connection"),
            (client, "none", "service"),
        ):
            reply = await release(asks, name, lifetime=lifetime)
            fields = refused(reply, "WakeLockNotHeld", f"the wake lock '{name}' is not held")
            assert fields["name"] == name
        assert held(station) == {"mine", "all"}


@asynchronous
async def test_limit(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """As many as are allowed are held; of those that are not, the longest unused is forgotten."""
    async with stationed(reactor, tmp_path, bounds=Bounds(wakeLocks=2)) as (_, client, _):
        accepted(await acquire(client, "a"))
        accepted(await acquire(client, "b"))
        reply = await acquire(client, "c")
        fields = refused(reply, "LimitExceeded", "2 wake locks are held", "limits.wake-locks")
        assert fields["limit"] == "limits.wake-locks"
        accepted(await release(client, "a"))
        accepted(await acquire(client, "c"))
        assert list(await sourcesOf(client)) == ["b", "c"]


# Alarms.


async def wakeAt(client: Client, at: object, **more: Any) -> dict[str, Any]:
    """WakeAt."""
    return await client.call("WakeAt", {"container": "editor", "at": at, **more})


async def alarms(client: Client) -> dict[str, float]:
    """Those that are set."""
    return {alarm["name"]: alarm["at"] for alarm in (await described(client))["alarms"]}


@pytest.mark.parametrize("name", [None, "tea time"])
@asynchronous
async def test_alarm(reactor: ChanproxyReactor, tmp_path: Path, name: str | None) -> None:
    """It wakes at its time, not before, and keeps the container awake for a moment."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        expected = name or "alarm"
        await asleep(station, client)
        other = station.client()
        at = time.time() + 0.05
        accepted(await wakeAt(other, at, name=name))
        assert accepted(await client.reply())["resume_reason"] == expected
        assert at <= time.time() < at + 5
        # It went off, once; the container has its moment.
        assert await alarms(client) == {}
        assert refused(await suspend(client), "WakeLocksExist")["names"] == [expected]


@asynchronous
async def test_alarmMoment(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment passes by itself, also when it was awake already."""
    monkeypatch.setattr("chanproxy.container.container.ALARM_HOLD", 0.06)
    async with stationed(reactor, tmp_path) as (station, client, _):
        accepted(await wakeAt(client, time.time() + 0.01))
        await until(reactor, lambda: held(station) == {"alarm"})
        await until(reactor, lambda: held(station) == set())
        lock = (await sourcesOf(client))["alarm"]
        assert lock["total_time"] >= 0.059e9
        assert accepted(await suspend(client))["resume_reason"] == "timeout"


@pytest.mark.parametrize("at", [0, 1, 1e9])
@asynchronous
async def test_pastAlarm(reactor: ChanproxyReactor, tmp_path: Path, at: float) -> None:
    """A time that is past is now."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        await asleep(station, client)
        accepted(await wakeAt(station.client(), at))
        assert accepted(await client.reply())["resume_reason"] == "alarm"


@asynchronous
async def test_cancelledAlarm(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Without a time an alarm is cancelled; the same name replaces, and another does not."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        soon = time.time() + 0.4
        accepted(await wakeAt(client, soon))
        accepted(await wakeAt(client, soon, name="replaced"))
        accepted(await wakeAt(client, 2.0**33, name="replaced"))
        accepted(await wakeAt(client, soon, name="cancelled"))
        # By whoever comes.
        accepted(await wakeAt(station.client(), None, name="cancelled"))
        accepted(await wakeAt(client, None, name="never set"))
        accepted(await client.call("WakeAt", {"container": "editor"}))
        assert await alarms(client) == {"replaced": 2.0**33}
        parameters = {"container": "editor", "timeout": soon - time.time() + 0.02}
        slept = accepted(await client.call("SuspendContainer", parameters))
        assert slept["resume_reason"] == "timeout"
        assert time.time() > soon


@asynchronous
async def test_alarmLimit(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """As many as are allowed are set; one of a name that is set already is not one more."""
    async with stationed(reactor, tmp_path, bounds=Bounds(wakeLocks=2)) as (_, client, _):
        for name in ("a", "b", "a"):
            accepted(await wakeAt(client, 2.0**33, name=name))
        reply = await wakeAt(client, 2.0**33, name="c")
        fields = refused(reply, "LimitExceeded", "2 alarms are set already; cancel some")
        assert fields["limit"] == "limits.wake-locks"
        accepted(await wakeAt(client, None, name="a"))
        accepted(await wakeAt(client, 2.0**33, name="c"))
        assert set(await alarms(client)) == {"b", "c"}


@asynchronous
async def test_alarmWithoutRoom(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """An alarm that goes off when no more locks can be held: what is held is enough."""
    async with stationed(reactor, tmp_path, bounds=Bounds(wakeLocks=1)) as (station, client, _):
        accepted(await acquire(client))
        accepted(await wakeAt(client, time.time() + 0.01))
        await until(reactor, lambda: not station.editor.alarms.all())
        assert held(station) == {"lock"}


@pytest.mark.parametrize("at", [-1, 2.0**33 + 1, "now", True])
@asynchronous
async def test_wrongTime(reactor: ChanproxyReactor, tmp_path: Path, at: object) -> None:
    """What is no time of day is named."""
    async with stationed(reactor, tmp_path) as (_, client, _):
        reply = await wakeAt(client, at)
        assert refused(reply, "InvalidParameter", "a number from 0 to")["parameter"] == "at"
        assert await alarms(client) == {}
