"""SuspendContainer and ResumeContainer: what is answered when, and what is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from chanproxy.container import Bounds
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from tests.shared.managing import (
    Box,
    accepted,
    asleep,
    described,
    refused,
    sourcesOf,
    stationed,
)
from tests.shared.sides import asynchronous, turns, until
from tests.shared.station import Client, Station

EDITOR = {"container": "editor"}


async def bells(client: Client, box: Box, *names: str) -> list[int]:
    """Wake sources."""
    fds = []
    for name in names:
        fds.append(box.eventfd())
        parameters = {**EDITOR, "name": name, "events": ["in"]}
        accepted(await client.call("AddWakeSource", parameters, fds[-1]))
    return fds


async def freezing(station: Station, sleeper: Client) -> None:
    """Ask for a suspend whose freeze does not finish by itself."""
    station.freezers["editor"].manual = True
    sleeper.send("SuspendContainer", EDITOR)
    await until(station.reactor, lambda: station.freezers["editor"].freezing)


async def inState(station: Station, state: str) -> None:
    await until(station.reactor, lambda: station.editor.suspension.state == state)


@asynchronous
async def test_answer(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: manager protocol: SuspendContainer.  The answer comes after the resume, with the time
    asleep and the reason; meanwhile the service serves others.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        (bell,) = await bells(client, box, "bell")
        await asleep(station, client)
        other = station.client()
        assert (await described(other))["state"] == "asleep"
        os.eventfd_write(bell, 1)
        answer = accepted(await client.reply())
        assert set(answer) == {"suspend_time", "resume_reason", "resume_reasons"}
        assert answer["resume_reason"] == "bell"
        description = await described(other)
        assert description["state"] == "awake"
        assert description["statistics"]["last_suspend_time"] == answer["suspend_time"] > 0
        assert not station.freezers["editor"].frozen


@asynchronous
async def test_resumedThenAnswered(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: the answer.  First it is resumed, then the watchers are told AWAKE, then
    it is answered.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        (bell,) = await bells(client, box, "bell")
        watcher = station.client()
        watcher.send("RegisterWakeWatcher", EDITOR, more=True)
        accepted(await watcher.reply())
        await asleep(station, client)
        assert accepted(await watcher.reply())["state"] == "asleep"
        station.freezers["editor"].thawError = FreezerError("not now")
        os.eventfd_write(bell, 1)
        await inState(station, "resuming")
        await turns(reactor)
        for waiting in (client, watcher):
            waiting.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.socket.recv(1)
            waiting.socket.settimeout(10)
        station.freezers["editor"].thawError = None
        told = await watcher.reply()
        assert accepted(told) == {
            "state": "awake",
            "reason": "bell",
            "reasons": ["bell"],
        }
        assert accepted(await client.reply())["resume_reason"] == "bell"


@asynchronous
async def test_reason(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: the reason.  The names of all that are signalled, joined by commas, each
    counted as having woken; a timeout has a name of its own.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        fds = await bells(client, box, "c", "a", "d", "b")
        await asleep(station, client)
        os.eventfd_write(fds[0], 1)
        os.eventfd_write(fds[1], 1)
        os.eventfd_write(fds[3], 1)
        station.editor.sources.locks.acquire("lock")
        assert accepted(await client.reply())["resume_reason"] == "a,b,c,lock"
        sources = (await sourcesOf(client)).values()
        woke = {source["name"]: source["wakeup_count"] for source in sources}
        assert woke == {"lock": 1, "c": 1, "a": 1, "d": 0, "b": 1}
        for fd in (fds[0], fds[1], fds[3]):
            os.eventfd_read(fd)
        station.editor.sources.locks.release("lock")
        answer = accepted(await client.call("SuspendContainer", {**EDITOR, "timeout": 0.02}))
        assert answer["resume_reason"] == "timeout"
        assert 0.019e9 < answer["suspend_time"] < 5e9


@asynchronous
async def test_anySource(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: any wake source.  It is waited for as long as it takes, for hundreds of
    sources at once, also for those that come while it sleeps.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        fds = await bells(client, box, *(f"{number}" for number in range(300)))
        late: list[int] = []
        for number in (0, 150, 299, 300):
            await asleep(station, client)
            if number == 300:
                late = await bells(station.client(), box, "300")
            fd = [*fds, *late][number]
            os.eventfd_write(fd, 1)
            assert accepted(await client.reply())["resume_reason"] == f"{number}"
            os.eventfd_read(fd)


@asynchronous
async def test_manyNames(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A reason of more names than go into one packet has as many as do."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        names = [f"{number:03} " + "ö" * 400 for number in range(250)]
        fds = await bells(client, box, *names)
        watcher = station.client()
        watcher.send("RegisterWakeWatcher", EDITOR, more=True)
        accepted(await watcher.reply())
        await asleep(station, client)
        accepted(await watcher.reply())
        for fd in fds:
            os.eventfd_write(fd, 1)
        slept = accepted(await client.reply())
        reason = slept["resume_reason"]
        assert slept["resume_reasons"] == reason.split(",")
        assert reason.endswith(",...")
        shown = reason.split(",")[:-1]
        assert 10 < len(shown) < 250
        assert shown == names[: len(shown)]
        assert accepted(await watcher.reply())["reason"] == reason
        refusal = refused(await client.call("SuspendContainer", EDITOR), "WakeLocksExist")
        assert refusal["names"] == shown


@pytest.mark.parametrize("when", ["before", "while freezing", "at the second look"])
@asynchronous
async def test_wakeLocks(reactor: ChanproxyReactor, tmp_path: Path, when: str) -> None:
    """
    starnix: suspending: wake locks.  What is held or signalled before it is asleep is found,
    whenever it came: it is resumed, and the error has the names.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        (bell,) = await bells(client, box, "bell")
        freezer, locks = station.freezers["editor"], station.editor.sources.locks
        if when == "before":
            locks.acquire("lock")
            os.eventfd_write(bell, 1)
            client.send("SuspendContainer", EDITOR)
        else:
            await freezing(station, client)
            locks.acquire("lock")
            os.eventfd_write(bell, 1)
            if when == "at the second look":
                # Before the reactor hears of either.
                freezer.finishFreeze()
                assert station.editor.suspension.state == "awake"
        fields = refused(await client.reply(), "WakeLocksExist", "'bell', 'lock'")
        assert fields["names"] == ["bell", "lock"]
        assert not freezer.frozen
        assert freezer.calls.count("thaw") == (0 if when == "before" else 1)
        assert (await described(client))["state"] == "awake"
        os.eventfd_read(bell)
        locks.release("lock")
        freezer.manual = False
        await asleep(station, client)


@asynchronous
async def test_wakeLocksDescriptor(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A descriptor can stand for the caller's wake locks, for the time of that suspend."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        locks = box.eventfd(1)
        reply = await client.call("SuspendContainer", EDITOR, locks)
        assert refused(reply, "WakeLocksExist")["names"] == ["wake locks"]
        os.eventfd_read(locks)
        client.send("SuspendContainer", EDITOR, locks)
        await inState(station, "asleep")
        assert list(await sourcesOf(station.client())) == ["wake locks"]
        os.eventfd_write(locks, 1)
        assert accepted(await client.reply())["resume_reason"] == "wake locks"
        assert await sourcesOf(client) == {}
        # What is registered already has its name, and stays.
        parameters = {**EDITOR, "name": "own", "events": ["in"]}
        accepted(await client.call("AddWakeSource", parameters, locks))
        reply = await client.call("SuspendContainer", EDITOR, locks)
        assert refused(reply, "WakeLocksExist")["names"] == ["own"]
        assert list(await sourcesOf(client)) == ["own"]
        file = box.own(os.open(__file__, os.O_RDONLY))
        reply = await client.call("SuspendContainer", EDITOR, file)
        assert refused(reply, "InvalidParameter", "polled")["parameter"] == "wake_locks"
        reply = await client.call("SuspendContainer", EDITOR, locks, locks)
        assert refused(reply, "InvalidParameter", "too many")["parameter"] == "descriptors"


@asynchronous
async def test_oneAtATime(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: suspending: one at a time.  Who comes second, however far the first is, is told so,
    and disturbs nothing, not even by wake locks of its own; another container is another matter.
    """
    async with stationed(reactor, tmp_path) as (station, client, box):
        freezer, other = station.freezers["editor"], station.client()
        held = box.eventfd(1)

        async def refuses(state: str) -> None:
            for descriptors in ([], [held]):
                reply = await other.call("SuspendContainer", EDITOR, *descriptors)
                fields = refused(reply, "AlreadySuspended", f"is {state} already")
                assert fields["state"] == state
            await turns(reactor)
            assert station.editor.suspension.state == state
            assert await sourcesOf(other) == {}

        await freezing(station, client)
        await refuses("suspending")
        freezer.finishFreeze()
        await refuses("asleep")
        shop = {"container": "shop", "timeout": 0.001}
        assert accepted(await other.call("SuspendContainer", shop))["resume_reason"] == "timeout"
        freezer.thawError = FreezerError("not now")
        station.editor.suspension.resume("test")
        await refuses("resuming")
        freezer.thawError = None
        assert accepted(await client.reply())["resume_reason"] == "test"
        assert (await described(client))["statistics"]["attempt_count"] == 1


@pytest.mark.parametrize("how", ["at once", "later", "not ready", "too long"])
@asynchronous
async def test_failure(reactor: ChanproxyReactor, tmp_path: Path, how: str) -> None:
    """
    starnix: manager protocol: SuspendContainer.  A freezer that fails is SuspendFailure, with what
    it says; the container is awake.
    """
    bounds = Bounds(freezeWarning=10, freezeLimit=0.03 if how == "too long" else 10)
    async with stationed(reactor, tmp_path, bounds=bounds) as (station, client, _):
        freezer = station.freezers["editor"]
        freezer.tasks = ["worker[7] in pipe_read"]
        says = "no luck"
        if how == "at once":
            freezer.freeze = _failing  # type: ignore[method-assign]
            client.send("SuspendContainer", EDITOR)
        elif how == "not ready":
            freezer.ready = False
            client.send("SuspendContainer", EDITOR)
            says = "no process is in it"
        else:
            await freezing(station, client)
            if how == "later":
                freezer.failFreeze(says)
            else:
                says = "not frozen within 0.03 s: worker[7] in pipe_read;"
        refused(await client.reply(), "SuspendFailure", says)
        assert not freezer.frozen
        assert not freezer.freezing
        description = await described(client)
        assert description["state"] == "awake"
        assert says in description["statistics"]["last_failure"]


def _failing() -> Deferred[None]:
    raise FreezerError("no luck")


@asynchronous
async def test_resumeContainer(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It wakes, for the reason that is given; what is awake already stays so, in silence."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        other = station.client()
        for asked, reason in ((None, "ResumeContainer"), ("lunch is over", "lunch is over")):
            await asleep(station, client)
            reply = await other.call("ResumeContainer", {**EDITOR, "reason": asked})
            assert accepted(reply) == {}
            assert not station.freezers["editor"].frozen
            assert accepted(await client.reply())["resume_reason"] == reason
            assert accepted(await other.call("ResumeContainer", EDITOR)) == {}
        assert (await described(client))["statistics"]["attempt_count"] == 2
        # Answered when it is awake, and not before.
        await asleep(station, client)
        station.freezers["editor"].thawError = FreezerError("not now")
        other.send("ResumeContainer", EDITOR)
        await inState(station, "resuming")
        station.freezers["editor"].thawError = None
        assert accepted(await other.reply()) == {}
        assert station.editor.suspension.state == "awake"
        # While it is freezing, it is the suspend that fails.
        accepted(await client.reply())
        await freezing(station, client)
        assert accepted(await other.call("ResumeContainer", EDITOR)) == {}
        refused(await client.reply(), "SuspendFailure", "ResumeContainer")
        reply = await other.call("ResumeContainer", {**EDITOR, "reason": "a\nb"})
        assert refused(reply, "InvalidParameter", "U+000A")["parameter"] == "reason"


@asynchronous
async def test_clientGoes(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who asked and has gone: the container sleeps on, and what wakes it wakes it."""
    async with stationed(reactor, tmp_path) as (station, client, box):
        locks = box.eventfd()
        sleeper = station.client()
        sleeper.send("SuspendContainer", EDITOR, locks)
        await inState(station, "asleep")
        sleeper.close()
        await turns(reactor)
        assert (await described(client))["state"] == "asleep"
        os.eventfd_write(locks, 1)
        await inState(station, "awake")
        assert await sourcesOf(client) == {}
        reason = (await described(client))["statistics"]["last_resume_reason"]
        assert reason == "wake locks"


# How it is configured.


@asynchronous
async def test_off(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """suspend = off: not even when asked."""
    async with stationed(reactor, tmp_path, mode="off") as (station, client, box):
        reply = await client.call("SuspendContainer", EDITOR, box.eventfd())
        refused(reply, "SuspendFailure", "suspending is off in the configuration")
        assert await sourcesOf(client) == {}
        assert "freeze" not in station.freezers["editor"].calls


@asynchronous
async def test_auto(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """suspend = auto: when it is idle, and again when it was woken; also when asked."""
    async with stationed(reactor, tmp_path, mode="auto") as (station, client, _):
        await asleep(station, client)
        station.editor.start()
        other = station.client()
        for _ in range(3):
            await inState(station, "asleep")
            accepted(await other.call("ResumeContainer", EDITOR))
        assert accepted(await client.reply())["resume_reason"] == "ResumeContainer"
        assert station.freezers["editor"].calls.count("freeze") >= 3


@asynchronous
async def test_manual(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """suspend = manual: only when asked."""
    async with stationed(reactor, tmp_path) as (station, client, _):
        station.editor.start()
        await deferLater(reactor, 0.2)
        freezer = station.freezers["editor"]
        # Nobody even waits for a moment to suspend it.
        assert freezer.calls == ["check"]
        reply = await client.call("SuspendContainer", {**EDITOR, "timeout": 0.001})
        assert accepted(reply)["resume_reason"] == "timeout"


@asynchronous
async def test_dryRun(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """suspend = dry-run: all but the freeze; when idle by itself; and it says what would be."""
    async with stationed(reactor, tmp_path, mode="dry-run") as (station, client, box):
        (bell,) = await bells(client, box, "bell")
        with capturedLogs() as events:
            client.send("SuspendContainer", EDITOR)
            await inState(station, "asleep")
            os.eventfd_write(bell, 1)
            answer = accepted(await client.reply())
            # They come a moment later.
            await until(reactor, lambda: len(events) == 2)
        lines = [formatEvent(event) for event in events]
        assert answer["resume_reason"] == "bell"
        slept = f"asleep for {answer['suspend_time'] / 1e9:.3f} s"
        assert lines == [
            "editor: dry run: it would be asleep now",
            f"editor: dry run: it would be awake now, by bell; {slept}",
        ]
        os.eventfd_read(bell)
        station.editor.start()
        await inState(station, "asleep")
        assert not {"freeze", "thaw"} & set(station.freezers["editor"].calls)
        statistics = (await described(client))["statistics"]
        assert (statistics["attempt_count"], statistics["success_count"]) == (2, 1)
        station.freezers["editor"].ready = False
        accepted(await client.call("ResumeContainer", EDITOR))
        reply = await client.call("SuspendContainer", EDITOR)
        refused(reply, "SuspendFailure", "no process is in it")
