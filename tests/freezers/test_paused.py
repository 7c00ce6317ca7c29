"""Somebody pauses what we have frozen: it is theirs from then on, whatever comes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from twisted.internet.task import deferLater

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.marks import marked
from chanproxy.freezers.writes import Writes
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup, unusable
from tests.shared.sides import asynchronous, until

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """With a process."""
    with TemporaryCgroup() as made:
        made.spawn(["sleep", "1000"])
        yield made


def write(cgroup: TemporaryCgroup, text: str) -> None:
    """As another program does it, without emptying the file first."""
    code = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), sys.argv[2].encode())"
    path = f"{cgroup.path}/cgroup.freeze"
    subprocess.run([sys.executable, "-c", code, path, text], check=True)


@pytest.mark.parametrize("claimed", [True, False])
@asynchronous
async def test_paused(reactor: ChanproxyReactor, cgroup: TemporaryCgroup, claimed: bool) -> None:
    """Our thaw leaves it; when they end it, it is ours to freeze again, time after time."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    if claimed:
        freezer.claim()
    for _ in range(3):
        await freezer.freeze()
        disturbed = freezer.whenDisturbed()
        write(cgroup, "1")
        assert await disturbed == "paused by somebody else"
        CgroupFreezer(cgroup.path, reactor).thawNow()
        assert cgroup.frozen()
        await freezer.thaw()
        assert cgroup.frozen()
        assert freezer.paused()
        freezer.thawNow()
        assert cgroup.frozen()
        ready = freezer.whenReady()
        assert not ready.called
        write(cgroup, "0")
        await ready
        assert not cgroup.frozen()
    freezer.release()


@asynchronous
async def test_atOnce(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Also before it is frozen, and before somebody waits for what becomes of it."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    freezing = freezer.freeze()
    write(cgroup, "1")
    await freezing
    await deferLater(reactor, 0.01)
    assert await freezer.whenDisturbed() == "paused by somebody else"
    await freezer.thaw()
    assert cgroup.frozen()


@asynchronous
async def test_unread(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Also when the reason of our thaw is heard of before their pause is."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    await freezer.freeze()
    write(cgroup, "1")
    await freezer.thaw()
    assert cgroup.frozen()
    assert freezer.paused()


@asynchronous
async def test_ours(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """What we write ourselves is no disturbance, nor is what others do to it awake."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    freezer.claim()
    said: list[str] = []

    def disturbed(result: object) -> None:
        said.append(str(result))

    for _ in range(20):
        await freezer.freeze()
        freezer.whenDisturbed().addCallbacks(disturbed, disturbed)
        await freezer.thaw()
        assert not cgroup.frozen()
        assert marked(f"{cgroup.path}/cgroup.freeze") is False
        write(cgroup, "0")
    # Frozen again before anything was read of that: it is no pause.
    for _ in range(20):
        freezing = freezer.freeze()
        await freezing
        freezer.whenDisturbed().addCallbacks(disturbed, disturbed)
        thawing, freezing = freezer.thaw(), freezer.freeze()
        assert thawing.called
        await freezing
        freezer.whenDisturbed().addCallbacks(disturbed, disturbed)
        await deferLater(reactor, 0.001)
        await freezer.thaw()
    await deferLater(reactor, 0.05)
    assert not any("somebody" in each for each in said)
    freezer.release()


@asynchronous
async def test_thawedByThem(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """A write of 0 is a thaw, as ever."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    await freezer.freeze()
    disturbed = freezer.whenDisturbed()
    write(cgroup, "0")
    assert await disturbed == "thawed by somebody else"
    await freezer.thaw()


@asynchronous
async def test_gone(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """A file that is gone is watched until it is forgotten."""
    writes = Writes(reactor)
    told: list[None] = []
    fd = os.open(f"{cgroup.path}/cgroup.freeze", os.O_RDWR)
    try:
        watch = writes.watch(fd, lambda: told.append(None))
        assert writes.watch(fd, lambda: told.append(None)) == watch
        write(cgroup, "0")
        await until(reactor, lambda: told)
        writes.hush(watch, fd)
        write(cgroup, "0")
    finally:
        os.close(fd)
    cgroup.close()
    writes.unwatch(watch)
    writes.unwatch(watch)
    assert len(told) == 1


def test_noFile(reactor: ChanproxyReactor) -> None:
    """What cannot be watched leaves nothing behind."""
    writes = Writes(reactor)
    with pytest.raises(OSError, match="inotify_add_watch"):
        writes.watch(10**6, lambda: None)
    writes.hush(1, 10**6)
    writes.unwatch(1)
