"""Left frozen, and no record of it: what is ours is thawed, what others have paused is not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet.defer import Deferred

from chanproxy.container import Bounds, Container
from chanproxy.container.outcomes import SuspendFailure
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.guest import Guest
from chanproxy.interfaces import ChanproxyReactor, FreezerError, FreezerNotReady
from support.cgroups import TemporaryCgroup, unusable
from support.live import Live, listens, until

pytestmark = [
    pytest.mark.cgroup,
    pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable"),
]

inlineCallbacks = pytest_twisted.ensureDeferred

_NOBODY: Any = None
"""In place of a reactor, where nothing waits."""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """A container that accepts; the service is not started yet."""
    with Live(tmp_path) as live:
        live.accept()
        yield live


@pytest.fixture
def cgroup() -> Iterator[TemporaryCgroup]:
    """One with a process."""
    with TemporaryCgroup() as made:
        made.spawn(["sleep", "1000"])
        yield made


def marked(cgroup: TemporaryCgroup) -> bool:
    """Whether a freeze of ours is marked on it."""
    return "user.chanproxy.frozen" in os.listxattr(f"{cgroup.path}/cgroup.freeze")


def exchange(live: Live) -> None:
    """It answers."""
    with live.peer() as peer:
        peer.send(b"hello")
        assert peer.recv(100) == b"hello"


def lose(live: Live) -> None:
    """Killed while the container sleeps, and all records are gone."""
    live.start()
    live.waitFrozen()
    assert marked(live.cgroup)
    live.end(signal.SIGKILL)
    shutil.rmtree(live.directory / "runtime")
    assert live.cgroup.frozen()


def test_recordsLost(live: Live) -> None:
    """The next start thaws it all the same, says so, and messages are answered."""
    lose(live)
    live.linger = 3600
    live.start()
    exchange(live)
    assert not live.cgroup.frozen()
    assert not marked(live.cgroup)
    live.end()
    assert "echo: left frozen by a chanproxy that died, and no record named it; thawed" in (
        live.log.read_text()
    )


@pytest.mark.parametrize("suspend", ["dry-run", "off", "manual"])
def test_recordsLostOtherModes(live: Live, suspend: str) -> None:
    """Also by a start that is not to freeze it; one in a dry run keeps nobody from it."""
    lose(live)
    live.suspend = suspend
    live.start()
    until("thawed", lambda: not live.cgroup.frozen())
    exchange(live)
    claim = CgroupFreezer(live.cgroup.path, _NOBODY)
    if suspend == "dry-run":
        claim.claim()
        claim.release()
    else:
        with pytest.raises(FreezerError, match="in the hands of another"):
            claim.claim()
    live.end()


def test_dryRunBeside(reactor: ChanproxyReactor, live: Live) -> None:
    """A dry run beside a service that runs is allowed, and thaws nothing of it."""
    live.start()
    live.waitFrozen()
    container = Container(
        reactor, "a", CgroupFreezer(live.cgroup.path, reactor), "dry-run", Bounds(linger=1)
    )
    container.stop()
    assert live.cgroup.frozen()


def test_recordsLostThenAdded(live: Live) -> None:
    """So does whoever adds the container to a running service."""
    lose(live)
    live.linger = 3600
    with TemporaryCgroup() as other:
        file = live.configuration()
        text = file.read_text()
        file.write_text(
            f'control = "{live.control}"\n[containers.x]\nfreezer = "{other.spec}"\n'
            'suspend = "manual"\n'
        )
        live.service = live.run("--config", str(file))
        live.waitFor("listening", lambda: listens(live.control))
        assert live.cgroup.frozen()
        assert live.outside.as_posix() in text
        with Guest("echo", str(live.control)) as guest:
            guest.call(
                "AddContainer",
                {"container": None, "name": "echo", "freezer": live.cgroup.spec, "linger": 3600},
            )
        until("thawed", lambda: not live.cgroup.frozen())
        live.end()


def thaw(live: Live, *arguments: str) -> tuple[int, list[str]]:
    """C{chanproxy thaw}; the lines that are of this test's cgroups."""
    done = subprocess.run(
        [sys.executable, "-m", "chanproxy", "thaw", *arguments],
        env=dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(live.directory / "runtime")),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stdout.splitlines() if live.cgroup.path in line]
    return done.returncode, lines


def test_search(live: Live) -> None:
    """Without any service C{chanproxy thaw --search} finds it, and leaves what is in use."""
    lose(live)
    assert thaw(live) == (0, [])
    assert live.cgroup.frozen()
    status, lines = thaw(live, "--search", "/proc")
    assert (status, lines) == (1, [])
    # Only there, for others on this machine have left theirs frozen on purpose.
    found = thaw(live, "--search", live.cgroup.path)
    assert found == (0, [f"thawed cgroup:{live.cgroup.path}"])
    until("thawed", lambda: not live.cgroup.frozen())
    live.start()
    live.waitFrozen()
    # What is around one that is in use, and was left by somebody who is dead, is not in use.
    with TemporaryCgroup() as outer, TemporaryCgroup(below=outer.path) as inner:
        claim = CgroupFreezer(inner.path, _NOBODY)
        claim.claim()
        outer.leaveFrozen()
        inner.leaveFrozen()
        assert thaw(live, "--search", outer.path) == (0, [])
        until("thawed", lambda: not outer.frozen())
        assert inner.read("cgroup.freeze") == "1\n"
        claim.release()
    assert thaw(live, "--search", live.cgroup.path) == (0, [])
    assert live.cgroup.frozen()


def test_pausedAtStart(live: Live) -> None:
    """Somebody else's pause stays, asleep or awake, until they end it; then it sleeps again."""
    live.cgroup.write("cgroup.freeze", "1")
    until("paused", live.cgroup.frozen)
    live.start()
    live.waitFor("taking calls", lambda: listens(live.control))
    with Guest("echo", str(live.control)) as guest, live.peer() as peer:
        told = guest.call("Describe")["description"]
        assert (told["state"], told["why_awake"]) == ("awake", "paused by somebody else")
        peer.send(b"hello")
        # Longer than any linger time.
        time.sleep(0.3)
        assert live.cgroup.frozen()
        live.cgroup.write("cgroup.freeze", "0")
        assert peer.recv(100) == b"hello"
        live.waitFrozen()
        assert guest.call("Describe")["description"]["state"] == "asleep"
    live.end()
    assert not live.cgroup.frozen()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is told who opens files")
@pytest.mark.parametrize("asleep", [True, False])
def test_pausedByUs(live: Live, asleep: bool) -> None:
    """What is paused through the service stays so, whoever looks; what sleeps does not."""
    live.linger = 0.05 if asleep else 3600
    live.start()
    live.waitFor("taking calls", lambda: listens(live.control))
    path = Path(live.cgroup.path, "cgroup.freeze")
    with Guest("echo", str(live.control)) as guest:
        if asleep:
            live.waitFrozen()
        guest.call("PauseContainer", {"by": "us"})
        live.waitFrozen()
        for _ in range(3):
            assert path.read_text() == "1\n"
        guest.call("UnpauseContainer")

        def woken() -> bool:
            # While it thaws, the kernel may say for a moment that it is frozen.
            live.waitFrozen()
            assert path.read_text() == "0\n"
            told = guest.call("Describe")["description"]
            why = told["statistics"]["last_wake_reason"]
            return re.fullmatch(r"\S+\[\d+\] asks for its state", why) is not None

        if asleep:
            until("woken by who looks", woken)
    live.end()


def test_pausedAfterAKill(live: Live) -> None:
    """What the guardian of a killed service has thawed, and others then pause, is theirs."""
    live.start()
    live.waitFrozen()
    assert live.service is not None
    live.service.kill()
    until("thawed", lambda: not live.cgroup.frozen())
    until("unmarked", lambda: not marked(live.cgroup))
    live.end(signal.SIGKILL)
    live.cgroup.write("cgroup.freeze", "1")
    until("paused", live.cgroup.frozen)
    live.start()
    live.end()
    assert live.cgroup.frozen()


def test_pausedAtStop(live: Live) -> None:
    """A service that starts, stops, is killed and starts beside a pause does not end it."""
    live.cgroup.write("cgroup.freeze", "1")
    until("paused", live.cgroup.frozen)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        live.start()
        live.end(number)
        assert live.cgroup.frozen()
    assert thaw(live, "--all", "--search", live.cgroup.path)[1] == []
    assert live.cgroup.frozen()
    assert "echo: paused by somebody else, and left so" in live.log.read_text()


@inlineCallbacks  # type: ignore[untyped-decorator]  # it has no annotations
async def test_pausedWhileAwake(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """A suspend that is asked for is refused for that reason, and undoes nothing."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    container = Container(reactor, "a", freezer, "manual", Bounds(linger=0.01))
    container.start()
    cgroup.write("cgroup.freeze", "1")
    for _ in range(2):
        with pytest.raises(SuspendFailure, match="paused by somebody else"):
            await container.suspend()
        assert cgroup.read("cgroup.freeze") == "1\n"
        assert container.why == "paused by somebody else"
    await freezer.thaw()
    freezer.thawNow()
    assert cgroup.read("cgroup.freeze") == "1\n"
    container.stop()
    assert cgroup.read("cgroup.freeze") == "1\n"


@inlineCallbacks  # type: ignore[untyped-decorator]  # it has no annotations
async def test_awaited(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """Ready when the pause ends, also when nothing was stopped by it yet, or it is gone."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    for _ in range(20):
        cgroup.write("cgroup.freeze", "1")
        ready = freezer.whenReady()
        assert not ready.called
        with pytest.raises(FreezerNotReady, match="paused by somebody else"):
            await freezer.freeze()
        cgroup.write("cgroup.freeze", "0")
        await within(reactor, ready)
    await freezer.freeze()
    assert marked(cgroup)
    await freezer.thaw()
    assert not marked(cgroup)
    # Made again while it was waited for.
    cgroup.write("cgroup.freeze", "1")
    ready = freezer.whenReady()
    cgroup.close()
    cgroup.create()
    cgroup.spawn(["sleep", "1000"])
    await within(reactor, ready)


async def within(reactor: ChanproxyReactor, waiting: Deferred[None]) -> None:
    """Fires in time."""
    waiting.addTimeout(10, reactor)
    await waiting


@inlineCallbacks  # type: ignore[untyped-decorator]  # it has no annotations
async def test_leftLater(reactor: ChanproxyReactor) -> None:
    """A cgroup that comes after the start, and was left frozen by another one, is ours then."""
    with TemporaryCgroup(create=False) as cgroup:
        freezer = CgroupFreezer(cgroup.path, reactor)
        freezer.claim()
        assert not freezer.thawLeft()
        cgroup.create()
        cgroup.spawn(["sleep", "1000"])
        cgroup.leaveFrozen()
        assert not freezer.paused()
        await freezer.freeze()
        await freezer.thaw()
        assert not cgroup.frozen()
        assert not marked(cgroup)
        freezer.release()


def test_staleMark(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """One that was killed between its thaw and taking off the mark: nothing to thaw, no mark."""
    cgroup.leaveFrozen()
    cgroup.write("cgroup.freeze", "0")
    freezer = CgroupFreezer(cgroup.path, reactor)
    freezer.claim()
    assert not freezer.thawLeft()
    assert not marked(cgroup)
    cgroup.write("cgroup.freeze", "1")
    assert freezer.paused()
    assert not freezer.thawLeft()
    freezer.release()
    assert cgroup.read("cgroup.freeze") == "1\n"


@inlineCallbacks  # type: ignore[untyped-decorator]  # it has no annotations
async def test_cannotBeMarked(reactor: ChanproxyReactor, cgroup: TemporaryCgroup) -> None:
    """With no room for the mark it is not frozen: nobody could tell afterwards."""
    freezer = CgroupFreezer(cgroup.path, reactor)
    path = f"{cgroup.path}/cgroup.freeze"
    full = False
    for number in range(1000):
        try:
            os.setxattr(path, f"user.{number}", b"x")
        except OSError:
            full = True
            break
    assert full
    with pytest.raises(Exception, match=r"cgroup\.freeze: No space left on device"):
        await freezer.freeze()
    assert cgroup.read("cgroup.freeze") == "0\n"
    await freezer.thaw()


@inlineCallbacks  # type: ignore[untyped-decorator]  # it has no annotations
async def test_withoutMarks(
    reactor: ChanproxyReactor, cgroup: TemporaryCgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that has none: all that is frozen counts as ours, so that nothing stays so."""

    def unsupported(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, name, unsupported)
    freezer = CgroupFreezer(cgroup.path, reactor)
    freezer.claim()
    await freezer.freeze()
    await freezer.thaw()
    cgroup.write("cgroup.freeze", "1")
    assert not freezer.paused()
    assert freezer.thawLeft()
    assert cgroup.read("cgroup.freeze") == "0\n"
    cgroup.write("cgroup.freeze", "1")
    freezer.thawNow()
    assert cgroup.read("cgroup.freeze") == "0\n"
    freezer.release()
