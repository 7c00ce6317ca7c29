"""A service in a Twisted program that follows another configuration, in any moment of its life."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from twisted.internet.task import LoopingCall, deferLater

from chanproxy import config
from chanproxy.config import Changed, Reloaded, ReloadError
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.service import ChanproxyService
from support.live import listens
from tests.shared.sides import asynchronous, turns, until

CONTAINER = """
[containers.{0}]
freezer = "none"
suspend = "manual"
[containers.{0}.channels.c]
listen = "seqpacket:{1}/{0}"
connect = "seqpacket:{1}/inside"
handled = "{2}"
"""


def written(directory: Path, *names: str, handled: str = "consumed", top: str = "") -> str:
    """A file with such containers, of one channel each."""
    return top + "".join(CONTAINER.format(name, directory, handled) for name in names)


@asynccontextmanager
async def running(
    reactor: ChanproxyReactor, directory: Path, *names: str
) -> AsyncIterator[ChanproxyService]:
    """A service, stopped at the end."""
    service = ChanproxyService(config.load(written(directory, *names)), reactor)
    service.startService()
    try:
        yield service
    finally:
        if service.running:
            await service.stopService()
        await turns(reactor)
        assert not any(listens(directory / name) for name in "abcd")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", str(tmp_path / "runtime"))


@asynchronous
async def test_reload(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """It says what became of it, and what is the same is the same object."""
    async with running(reactor, tmp_path, "a", "b") as service:
        a = service.containers["a"]
        wanted = config.load(written(tmp_path, "a", "c", top="watchdog = 7\n"))
        assert await service.reload(wanted) == Reloaded(("c",), ("b",), (), (), ("watchdog",))
        assert list(service.containers) == ["a", "c"]
        assert service.containers["a"] is a
        # Of what holds as long as it runs, that is in force which it began with.
        assert service.configuration.containers == wanted.containers
        assert service.configuration.watchdog != 7
        # A process that was just begun has it, too, until it has closed what is not its own.
        await until(reactor, lambda: not listens(tmp_path / "b"))
        assert [listens(tmp_path / name) for name in "ac"] == [True, True]
        again = await service.reload(wanted)
        assert again == Reloaded(restart=("watchdog",))
        other = config.load(written(tmp_path, "a", "c", handled="idle"))
        changed = tuple(Changed(name, channels=("c",)) for name in "ac")
        assert await service.reload(other) == Reloaded(changed=changed)


@asynchronous
async def test_refused(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """All that is wrong, and nothing has changed."""
    async with running(reactor, tmp_path, "a") as service:
        before, a = service.configuration, service.containers["a"]
        text = written(tmp_path / "nowhere", "b", "c")
        with pytest.raises(ReloadError) as refused:
            await service.reload(config.load(text))
        paths = [problem.path for problem in refused.value.problems]
        assert paths == [f"containers.{name}.channels.c.listen" for name in "bc"]
        assert refused.value.lost == ()
        assert (service.configuration, service.containers) == (before, {"a": a})


@asynchronous
async def test_source(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Without one nothing can be read again; what that raises is what is wrong."""
    async with running(reactor, tmp_path, "a") as service:
        with pytest.raises(ReloadError, match="none to be read again"):
            await service.reread()
        service.rereadSoon()
        service.source = lambda: config.load("[containers.a]\nfreezer = 3")
        with pytest.raises(ReloadError, match=r"containers\.a\.freezer: is a whole number"):
            await service.reread()
        service.source = lambda: config.load(written(tmp_path, "a", "b"))
        assert await service.reread() == Reloaded(added=("b",))


@asynchronous
async def test_once(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Asked again and again before it begins, it reads once; and what comes later, later."""
    async with running(reactor, tmp_path, "a") as service:
        texts: list[str] = []

        def read() -> config.Configuration:
            texts.append(written(tmp_path, "a", *"bcd"[: len(texts) + 1]))
            return config.load(texts[-1])

        service.source = read
        first = service.reload(config.load(written(tmp_path, "a", "d")))
        for _ in range(20):
            service.rereadSoon()
        last = service.reread()
        assert await first == Reloaded(added=("d",))
        assert await last == Reloaded(added=("c",))
        assert len(texts) == 2
        assert set(service.containers) == {"a", "b", "c"}


@asynchronous
async def test_notRunning(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Before it starts, and when it has stopped."""
    wanted = config.load(written(tmp_path, "a"))
    service = ChanproxyService(config.Configuration(), reactor)
    for _ in range(2):
        with pytest.raises(ReloadError, match="the service does not run"):
            await service.reload(wanted)
        service.startService()
        await service.stopService()
    assert service.containers == {}


@pytest.mark.parametrize("count", range(12))
@asynchronous
async def test_stoppedMeanwhile(reactor: ChanproxyReactor, tmp_path: Path, count: int) -> None:
    """In any turn of the reactor: it ends, and nothing of either configuration is left."""
    async with running(reactor, tmp_path, "a", "b") as service:
        wanted = config.load(written(tmp_path, "b", "c", handled="idle"))
        reloading = service.reload(wanted)
        for _ in range(count):
            await deferLater(reactor, 0)
        await service.stopService()
        with contextlib.suppress(ReloadError):
            await reloading
        assert service.containers == {}


@pytest.mark.parametrize("count", range(12))
@asynchronous
async def test_otherChanges(reactor: ChanproxyReactor, tmp_path: Path, count: int) -> None:
    """Others add and remove containers in any turn: it follows the file in the end."""
    async with running(reactor, tmp_path, "a", "b") as service:
        wanted = config.load(written(tmp_path, "a", "b", "c", handled="idle"))
        reloading = service.reload(wanted)
        for _ in range(count):
            await deferLater(reactor, 0)
        removing = service.removeContainer("b")
        with contextlib.suppress(config.StartError):
            service.addContainer(config.load(written(tmp_path / "other", "c")).containers[0])
        with contextlib.suppress(ReloadError):
            await reloading
        await removing
        if "c" in service.containers:
            # Of whichever of the two.
            await service.removeContainer("c")
        await service.reload(wanted)
        assert set(service.containers) == {"a", "b", "c"}
        assert all(listens(tmp_path / name) for name in "abc")


def _note(taken: list[float]) -> None:
    taken.append(time.thread_time())


@asynchronous
async def test_turns(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Hundreds that come, change and go do not take a turn of the reactor for themselves."""
    names = [f"m{number}" for number in range(300)]
    async with running(reactor, tmp_path, "a") as service:
        for text in (
            written(tmp_path, "a", *names),
            written(tmp_path, "a", *names, handled="idle"),
            written(tmp_path, "a"),
        ):
            wanted = config.load(text)
            taken = [time.thread_time()]
            clock = LoopingCall(_note, taken)
            ticking = clock.start(0)
            await service.reload(wanted)
            clock.stop()
            await ticking
            # Of this thread's processor time: what others on this machine do is none of it.
            whole = taken[-1] - taken[0]
            longest = max(after - before for before, after in itertools.pairwise(taken))
            assert longest < max(whole / 4, 0.02), (longest, whole)
