"""
For tests under pytest with pytest-twisted: fixtures that end what a test has started.

Write C{pytest_plugins = ["chanproxy.testing.plugin"]} into C{conftest.py}.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations

from chanproxy import config
from chanproxy.container import Container, Surroundings
from chanproxy.service import ChanproxyService
from chanproxy.testing.fakefreezer import FakeFreezer
from chanproxy.testing.reactor import FakeReactor

__all__ = [
    "chanproxyDirectory",
    "fakeContainer",
    "fakeFreezer",
    "fakeReactor",
    "startChanproxy",
]


@pytest.fixture
def fakeReactor() -> FakeReactor:
    """A reactor in which time stands still."""
    return FakeReactor()


@pytest.fixture
def fakeFreezer() -> FakeFreezer:
    """A freezer that stops nothing, and does what the test says."""
    return FakeFreezer()


@pytest.fixture
def fakeContainer(fakeReactor: FakeReactor, fakeFreezer: FakeFreezer) -> Iterator[Container]:
    """A started container of those two; it is frozen 0.5 s after all is quiet."""
    around = Surroundings(recorded=False)
    container = Container(fakeReactor, "container", fakeFreezer, around=around)
    container.start()
    yield container
    container.stop()


@pytest.fixture
def chanproxyDirectory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A directory for sockets, short enough for their paths; records of what is frozen go there."""
    with tempfile.TemporaryDirectory(prefix="chanproxy-") as directory:
        monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", f"{directory}/runtime")
        yield directory


@pytest.fixture
def startChanproxy(chanproxyDirectory: str) -> Iterator[Callable[[str], ChanproxyService]]:
    """Start a service on pytest-twisted's reactor, from the text of a configuration."""
    from twisted.internet import reactor

    started: list[ChanproxyService] = []

    def start(text: str) -> ChanproxyService:
        service = ChanproxyService(config.load(text), reactor)
        service.startService()
        started.append(service)
        return service

    yield start
    for service in reversed(started):
        pytest_twisted.blockon(service.stopService())
