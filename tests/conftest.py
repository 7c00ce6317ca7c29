"""Fixtures for all tests; the first one makes leaks fail."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from twisted.internet import reactor as _module
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from chanproxy.interfaces import ChanproxyReactor

# The module stands for the reactor that is installed.
_reactor: Any = _module

_INTERNAL = {"_SIGCHLDWaker", "_UnixWaker", "_Waker"}


@pytest.fixture
def reactor() -> ChanproxyReactor:
    """The reactor that pytest-twisted runs."""
    return cast(ChanproxyReactor, _reactor)


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def _selectables() -> set[object]:
    readers, writers = _reactor.getReaders(), _reactor.getWriters()
    return {s for s in readers + writers if type(s).__name__ not in _INTERNAL}


@pytest.fixture(scope="session", autouse=True)
def running() -> None:
    """Let the reactor open what it keeps for good, before anybody counts descriptors."""
    pytest_twisted.blockon(deferLater(_reactor, 0))
    # The first port keeps a descriptor in reserve, for a process that runs out of them.
    pytest_twisted.blockon(_reactor.listenTCP(0, Factory(), 1, "127.0.0.1").stopListening())


@pytest.fixture(autouse=True)
def nothingLeaks(running: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves descriptors, selectables, delayed calls or unhandled failures."""
    monkeypatch.setenv("CHANPROXY_RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    critical: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical:
            critical.append(str(event.get("log_failure") or event.get("log_format")))

    # A function is observer enough; the type wants an interface declared.
    observer: Any = observe
    gc.collect()
    before, selectables = _descriptors(), _selectables()
    calls = set(_reactor.getDelayedCalls())
    globalLogPublisher.addObserver(observer)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observer)
    late = [c for c in _reactor.getDelayedCalls() if c not in calls]
    left = _selectables() - selectables
    for call in late:
        call.cancel()
    assert not late, f"delayed calls are left: {late}"
    assert not left, f"selectables are left: {left}"
    open_ = {fd: what for fd, what in _descriptors().items() if before.get(fd) != what}
    assert not open_, f"descriptors are left: {open_}"
    assert not critical, f"logged as critical: {critical}"


@pytest.fixture
def runtimeDirectory(tmp_path: Path) -> Callable[[], Path]:
    """Where records of this test lie."""
    return lambda: tmp_path / "runtime"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI the real parts have to be there: a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped on CI: {report.longrepr}"
    return report
