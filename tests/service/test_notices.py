"""What systemd is told; its side is a socket of the test's."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from chanproxy.service.notices import AFTER, PAUSE, Notices

NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Manager:
    """
    What systemd has: a socket that services write to.

    @ivar name: as C{NOTIFY_SOCKET} says it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name.replace("@", "\0"))
        self._socket.settimeout(60)

    def take(self) -> dict[str, str]:
        """The next notice: assignments in lines, and no name twice."""
        lines = self._socket.recv(10_000).decode().splitlines()
        found = dict(line.split("=", 1) for line in lines)
        assert len(found) == len(lines)
        return found

    def takeUntil(self, name: str, value: str | None = None) -> list[dict[str, str]]:
        """All up to one that says this."""
        taken = [self.take()]
        while name not in taken[-1] or value not in (None, taken[-1][name]):
            taken.append(self.take())
        return taken

    def nothing(self) -> bool:
        """Whether there is none."""
        return not select.select([self._socket], [], [], 0)[0]

    def close(self) -> None:
        """It ends."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """At a path, or under an abstract name."""
    made = Manager(f"@{tmp_path}/notify" if request.param == "abstract" else f"{tmp_path}/notify")
    yield made
    made.close()


def noticesFor(manager: Manager, **more: str) -> tuple[Clock, Notices]:
    """Of a service that it has started, and its clock."""
    clock, environment = Clock(), {"NOTIFY_SOCKET": manager.name, "OTHER": "x", **more}
    notices = Notices(clock, environment)
    # What it starts is not to speak for it.
    assert environment == {"OTHER": "x"}
    return clock, notices


def test_startAndStop(manager: Manager) -> None:
    """It is told once each."""
    clock, notices = noticesFor(manager)
    notices.status("3 containers, 2 asleep")
    notices.ready()
    assert manager.take() == {"STATUS": "3 containers, 2 asleep", "READY": "1"}
    notices.status("3 containers, 1 asleep")
    notices.stopping()
    assert manager.take() == {"STATUS": "3 containers, 1 asleep", "STOPPING": "1"}
    notices.status("none")
    notices.stopping()
    clock.advance(100)
    assert manager.nothing()
    assert clock.getDelayedCalls() == []


def test_reload(manager: Manager) -> None:
    """It is told when it begins, by the clock that systemd goes by, and that it is over."""
    clock, notices = noticesFor(manager, WATCHDOG_USEC="3000000")
    notices.ready()
    assert [manager.take() for _ in range(2)] == [{"READY": "1"}, {"WATCHDOG": "1"}]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notices.reloading()
    told = manager.take()
    assert before <= int(told.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert told == {"RELOADING": "1"}
    notices.reloaded()
    assert manager.take() == {"READY": "1"}
    # Of the watchdog there is still one.
    clock.advance(1.5)
    assert manager.take() == {"WATCHDOG": "1"}
    assert manager.nothing()
    notices.stopping()


def test_status(manager: Manager) -> None:
    """Not in the turn of the change, at most once a second, and the last one is told."""
    clock, notices = noticesFor(manager)
    notices.ready()
    assert manager.take() == {"READY": "1"}
    notices.status("1")
    assert manager.nothing()
    clock.advance(AFTER)
    assert manager.take() == {"STATUS": "1"}
    for number in range(2, 30):
        notices.status(str(number))
        clock.advance(PAUSE / 30)
    assert manager.nothing()
    clock.advance(PAUSE / 10)
    assert manager.take() == {"STATUS": "29"}
    clock.advance(100)
    assert manager.nothing()
    notices.status("a\nWATCHDOG=trigger")
    clock.advance(AFTER)
    assert manager.take() == {"STATUS": "a WATCHDOG=trigger"}
    notices.stopping()


@pytest.mark.parametrize("pid", ["", str(os.getpid())], ids=["anybody", "ours"])
def test_watchdog(manager: Manager, pid: str) -> None:
    """At half of its time, from when it is ready until it stops."""
    more = {"WATCHDOG_PID": pid} if pid else {}
    clock, notices = noticesFor(manager, WATCHDOG_USEC="3000000", **more)
    clock.advance(10)
    assert manager.nothing()
    notices.ready()
    assert manager.take() == {"READY": "1"}
    assert manager.take() == {"WATCHDOG": "1"}
    for _ in range(3):
        clock.advance(1.49)
        assert manager.nothing()
        clock.advance(0.01)
        assert manager.take() == {"WATCHDOG": "1"}
    notices.stopping()
    assert manager.take() == {"STOPPING": "1"}
    clock.advance(10)
    assert manager.nothing()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
def test_noWatchdog(manager: Manager, more: dict[str, str]) -> None:
    """There is none, or it is for another process, or nonsense."""
    clock, notices = noticesFor(manager, **more)
    notices.ready()
    clock.advance(100)
    assert manager.take() == {"READY": "1"}
    assert manager.nothing()
    notices.stopping()


def test_full(tmp_path: Path) -> None:
    """A manager that does not read is told later, and nobody waits."""
    manager = Manager(f"{tmp_path}/notify")
    clock, notices = noticesFor(manager)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", manager.name)
                count += 1
    notices.ready()
    clock.advance(10)
    for _ in range(count):
        assert manager.take() == {"X": "1"}
    notices.status("1")
    clock.advance(PAUSE)
    assert manager.take() == {"READY": "1", "STATUS": "1"}
    notices.stopping()
    manager.close()


def test_nobody() -> None:
    """Without systemd nobody is told; one that is gone is spoken of once."""
    clock = Clock()
    notices = Notices(clock, {})
    notices.ready()
    notices.status("1")
    assert clock.getDelayedCalls() == []
    notices.stopping()
    notices = Notices(clock, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000000"})
    with capturedLogs() as events:
        notices.ready()
        notices.status("1")
        clock.advance(100)
        notices.stopping()
    assert [formatEvent(event) for event in events] == [
        "systemd is not told how it is: No such file or directory"
    ]
    assert clock.getDelayedCalls() == []
