"""Wake watchers in Python: an object with two methods, which may do anything but wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from zope.interface import implementer

from chanproxy.container.watchers import WakeWatchers
from chanproxy.interfaces import ChanproxyReactor, IWakeWatcher
from chanproxy.words import listed
from tests.shared.managing import cycle, stationed
from tests.shared.sides import asynchronous


@implementer(IWakeWatcher)
class Witness:
    """Remembers what it hears, and may do something then."""

    def __init__(self, name: str, heard: list[str]) -> None:
        self.name = name
        self.heard = heard
        self.acts: dict[str, Any] = {}

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        self.heard.append(f"{self.name}: {state} {listed(reasons)}".strip())
        if state in self.acts:
            self.acts[state]()

    def dropped(self) -> None:
        self.heard.append(f"{self.name}: dropped")


def _fail() -> None:
    raise RuntimeError("a bad watcher")


@asynchronous
async def test_raises(
    reactor: ChanproxyReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that raises is logged, dropped and told so; the others hear everything."""
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    class Observer:
        def __call__(self, event: LogEvent) -> None:
            events.append(event)

    monkeypatch.setattr(WakeWatchers, "_log", Logger(observer=Observer()))
    async with stationed(reactor, tmp_path) as (station, _, _):
        heard: list[str] = []
        first, bad, last = (Witness(name, heard) for name in ("first", "bad", "last"))
        bad.acts["asleep"] = _fail
        for witness in (first, bad, last):
            station.editor.watchers.add(witness)
        del heard[:]
        for _ in range(2):
            cycle(station, "because")
        assert heard == [
            "first: asleep",
            "bad: asleep",
            "bad: dropped",
            "last: asleep",
            "first: awake because",
            "last: awake because",
            "first: asleep",
            "last: asleep",
            "first: awake because",
            "last: awake because",
        ]
        assert [event["log_level"] for event in events] == [LogLevel.critical]
        assert "a bad watcher" in str(events[0]["log_failure"])
        # As soon as it comes.
        del heard[:]
        bad.acts["awake"] = _fail
        station.editor.watchers.add(bad)
        assert heard == ["bad: awake because", "bad: dropped"]


@asynchronous
async def test_comesAndGoesMeanwhile(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """One that leaves, brings another or wakes the container from within: still all, and once."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        heard: list[str] = []
        watchers = station.editor.watchers
        first, second, third = (Witness(name, heard) for name in ("1", "2", "3"))
        watchers.add(first)
        watchers.add(second)
        del heard[:]

        def act() -> None:
            first.acts.clear()
            watchers.remove(second)
            watchers.remove(second)
            watchers.add(third)
            station.editor.suspension.resume("from within")

        first.acts["asleep"] = act
        station.editor.suspend().addErrback(lambda _: None)
        assert station.editor.suspension.state == "awake"
        assert heard == [
            "1: asleep",
            "3: asleep",
            "1: awake from within",
            "3: awake from within",
        ]
        watchers.close()
        assert heard[4:] == ["1: dropped", "3: dropped"]
