"""Fixtures for all tests; the first one makes leaks fail."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import hypothesis
import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet import reactor as _module
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogBeginner
from zope.interface import implementer

from chanproxy.interfaces import ChanproxyReactor
from support.live import LiveService
from tests.shared.leaks import nothingCritical, nothingLeft, threadsDone

# How long an example takes says how busy the machine is; what is to be fast has a benchmark.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# The module stands for the reactor that is installed.
_reactor: Any = _module

# trial runs what is in there.
collect_ignore = ["trial"]

pytest_plugins = ["tests.workers", "tests.shared.priority"]


def pytest_configure(config: pytest.Config) -> None:
    """A shell has its background ignore SIGINT, and all that tests start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def reactor() -> ChanproxyReactor:
    """The reactor that pytest-twisted runs."""
    return cast(ChanproxyReactor, _reactor)


@implementer(ILogObserver)
def _unheard(event: LogEvent) -> None:
    """Each test that wants to hear has an observer of its own."""


@pytest.fixture(scope="session", autouse=True)
def running() -> None:
    """Let the reactor open what it keeps for good, before anybody counts descriptors."""
    # Until logging has begun, Twisted keeps the latest events, and all that they speak of.
    globalLogBeginner.beginLoggingTo([_unheard], redirectStandardIO=False, discardBuffer=True)
    pytest_twisted.blockon(deferLater(_reactor, 0))
    # The first port keeps a descriptor in reserve, for a process that runs out of them.
    pytest_twisted.blockon(_reactor.listenTCP(0, Factory(), 1, "127.0.0.1").stopListening())
    # What is there now stays: not to be gone through after each test.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothingLeaks(running: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves descriptors, selectables, delayed calls or unhandled failures."""
    monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    monkeypatch.setenv("CHANPROXY_STATE_DIRECTORY", str(tmp_path / "state"))
    gc.collect()
    with nothingCritical(), nothingLeft(_reactor):
        yield
        if threadsDone(_reactor):
            pytest_twisted.blockon(deferLater(_reactor, 0))
        gc.collect()


@pytest.fixture
def runtimeDirectory(tmp_path: Path) -> Callable[[], Path]:
    """Where records of this test lie."""
    return lambda: tmp_path / "runtime"


@pytest.fixture
def open_() -> Iterator[Path]:
    """A directory that every user may go into: pytest's own are closed when the next one begins."""
    with tempfile.TemporaryDirectory(prefix="chanproxy-open-") as made:
        directory = Path(made)
        directory.chmod(0o755)
        yield directory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    On CI the real parts have to be there: a skip is a failure.  Of a failure, what real services
    say that still run then.
    """
    report = yield
    if report.failed and call.when == "call":
        told = [(f"said by {each.control}", each.statement()) for each in LiveService.living]
        report.sections += told
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped on CI: {report.longrepr}"
    return report
