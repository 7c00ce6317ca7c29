"""
Programs that a sleep has made late, or lost, side by side under one real service with all defaults.

What of these kinds is tested elsewhere::

    random times, signals and visitors    tests/whole/timefuzz/test_timefuzz.py
    what is left of times, exactly        tests/adopt/test_rests.py
    waits that merely ask again, exactly  tests/adopt/test_cutshort.py
    io_urings, each way to learn of them  tests/adopt/test_rings.py
    signalfds in epolls, nested ones too  tests/adopt/test_fragile.py
    signals of threads, and who comes in  tests/container/test_sleeping.py,
                                          tests/container/test_sleeping_threads.py
    freezes that do not finish            tests/container/test_freezing.py
    peers that vanish behind a channel    tests/whole/test_vanished.py,
                                          tests/whole/test_end_to_end.py
    node, redis, cron and others          tests/whole/beside/test_beside.py
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from attrs import define, field

from support.cgroups import TemporaryCgroup
from support.fleet import Fleet
from support.processes import cannotStick, stuckProcess
from tests.adopt.test_rings import DEFERRED, SQPOLL
from tests.shared.frozen import compiled, needsCgroup
from tests.whole.timefuzz.runs import Outside

pytestmark = [
    pytest.mark.lasts(40),
    pytest.mark.punctual,
    *needsCgroup,
    pytest.mark.skipif(bool(cannotStick()), reason=cannotStick() or "usable"),
]

LASTS = 32.0
"""Seconds from the moment when the service listens."""

LATE = 1.0
"""Seconds that what is known may be late, beside so many others; see also L{Record.waited}."""

LONGEST = 15.0
"""Seconds that what is not known may be late."""

VISITS, ENTRIES = range(3, 24), (5.1, 8.3, 11.9, 15.2, 20.4)
"""When somebody asks the one that cannot be frozen, and comes into another; seconds."""

WAITS = (
    *("poll", "ppoll", "select", "select0", "pselect"),
    *("epoll", "epollrest", "recv", "accept", "sigtimedwait", "thread"),
)
"""Those of 12 s."""

RINGS = {
    "plain": (0, "enter"),
    "deferred": (DEFERRED, "enter"),
    "sqpoll": (SQPOLL, "enter"),
    "worker": (0, "async"),
}

LOOPS = {
    "hidden": "8000,16000",
    "visitor": "16000",
    "two": "12800,16000",
    "behind": "-1000,14000",
}

OTHERS = ("beside", "signalfd", "stuck", "watchdog", "semop", "send", "entered")

NAMES = (*LOOPS, *WAITS, *RINGS, *OTHERS)

UNTOUCHED = ("semop", "send", "stuck", "deferred", "sqpoll", "worker")
"""Those that a freeze would harm, or that could not be woken."""


@define
class Record:
    """
    One container.

    @ivar events: what its programs said, with the seconds after the service began, and the seconds
        that they said themselves.
    @ivar asleep: when it was found frozen.
    @ivar took: seconds of whatever was done to it from outside, in order.
    @ivar waits: for how long the service had to wait for a processor up to a time; seconds, of all.
    """

    events: list[tuple[str, float, float]] = field(factory=list)
    looks: int = 0
    asleep: list[float] = field(factory=list)
    took: list[float] = field(factory=list)
    why: str = ""
    waits: list[tuple[float, float]] = field(factory=list)

    @property
    def frozen(self) -> float:
        """Share of looks at which it was."""
        return len(self.asleep) / self.looks

    def waited(self, due: float) -> float:
        """By how much the service may be late with what is due then, because others ran."""
        until = [waited for at, waited in self.waits if at <= due - 1] or [self.waits[0][1]]
        after = [waited for at, waited in self.waits if at >= due + 2] or [self.waits[-1][1]]
        return after[0] - until[-1]

    def at(self, what: str) -> list[float]:
        """The seconds that it said, of one kind of event."""
        return [said for word, _, said in self.events if word == what]

    def heard(self, what: str) -> list[float]:
        """When that was heard."""
        return [at for word, at, _ in self.events if word == what]


class Stage:
    """All of it, at one time."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.outside = Outside()
        stack.callback(self.outside.selector.close)
        self.records: dict[str, Record] = {}
        self.cgroups: dict[str, TemporaryCgroup] = {}
        self.ends: dict[str, socket.socket] = {}
        self.pids: dict[str, int] = {}
        self.waits: list[tuple[float, float]] = []
        self.began = 0.0

    def run(self, name: str, *argv: str, stdin: int | None = None) -> None:
        """A program in a container, from now on."""
        process = self.cgroups[name].spawn(argv, stdin, subprocess.PIPE)
        self.pids[name] = process.pid
        assert process.stdout is not None
        fd = process.stdout.fileno()
        os.set_blocking(fd, False)
        self.outside.read(fd, partial(self._said, name, fd))

    def program(self, name: str, kind: str, times: str, path: str = "") -> None:
        """One of C{oversleeps.c}, with one end of a pair as its standard input."""
        if kind == "accept":
            theirs = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        else:
            self.ends[name], theirs = map(self.stack.enter_context, socket.socketpair())
        self.run(name, compiled("shared/oversleeps.c"), kind, times, path, stdin=theirs.fileno())

    def _said(self, name: str, fd: int) -> None:
        data = os.read(fd, 65536)
        if not data:
            self.outside.selector.unregister(fd)
        for line in data.decode().splitlines():
            what, _, at = line.partition(" ")
            now = time.monotonic() - self.began
            self.records[name].events.append((what, now, int(at or 0) / 1000))

    def at(self, seconds: float, call: partial[None]) -> None:
        """After the service has begun."""
        self.outside.at(self.began + seconds, call)

    def seeWaits(self, waited: Callable[[], float]) -> None:
        """Take down how long the service has waited so far, from now on."""
        now = time.monotonic()
        self.waits.append((now - self.began, waited()))
        self.outside.at(now + 0.25, partial(self.seeWaits, waited))

    def look(self) -> None:
        """Who is asleep."""
        for name, cgroup in self.cgroups.items():
            self.records[name].looks += 1
            if cgroup.frozen():
                self.records[name].asleep.append(time.monotonic() - self.began)
        if time.monotonic() < self.began + LASTS:
            self.outside.at(time.monotonic() + 0.5, self.look)

    def send(self, name: str, data: bytes) -> None:
        """To the standard input of its program."""
        self.ends[name].sendall(data)

    def visit(self, name: str, address: str) -> None:
        """Ask, and read the answer when it comes."""
        peer = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        asked = time.monotonic()

        def answered() -> None:
            if peer.recv(1):
                self.records[name].took.append(time.monotonic() - asked)
            self.outside.selector.unregister(peer.fileno())
            peer.close()

        peer.setblocking(False)
        peer.connect("\0" + address)
        peer.sendall(b"x")
        self.outside.read(peer.fileno(), answered)

    def kill(self, name: str) -> None:
        """TERM."""
        os.kill(self.pids[name], signal.SIGTERM)

    def drain(self, name: str) -> None:
        """Read all that is there, and all that comes."""
        end = self.ends[name]
        end.setblocking(False)

        def more() -> None:
            if not end.recv(1 << 20):
                self.outside.selector.unregister(end.fileno())

        self.outside.read(end.fileno(), more)

    def enter(self, name: str) -> None:
        """A process comes in, and ends."""
        began = time.monotonic()
        procs = os.path.join(self.cgroups[name].path, "cgroup.procs")
        process = subprocess.Popen(["sh", "-c", f"echo $$ > {procs}; exec true"])
        self.stack.callback(process.wait)
        pidfd = os.pidfd_open(process.pid)
        self.stack.callback(os.close, pidfd)

        def ended() -> None:
            self.outside.selector.unregister(pidfd)
            self.records[name].took.append(time.monotonic() - began)

        self.outside.read(pidfd, ended)


def _programs(stage: Stage, path: str) -> None:
    """Start them."""
    for name, times in LOOPS.items():
        stage.program(name, "loop", times, path + name)
    stage.program("beside", "epollrest", "12000")
    stage.program("beside", "busy", "8000")
    for kind in WAITS:
        stage.program(kind, kind, "12000")
    for name, (flags, how) in RINGS.items():
        stage.ends[name], theirs = map(stage.stack.enter_context, socket.socketpair())
        argv = (compiled("shared/uring.c", "-luring"), str(flags), how)
        stage.run(name, *argv, stdin=theirs.fileno())
    stage.program("signalfd", "signalfd", "0")
    stage.program("stuck", "loop", "3600000", path + "stuck")
    stage.stack.enter_context(stuckProcess(stage.cgroups["stuck"]))
    stage.run(
        "watchdog",
        "env",
        "WATCHDOG_USEC=4000000",
        compiled("shared/oversleeps.c"),
        "loop",
        "-1000",
        path + "watchdog",
    )
    stage.program("semop", "semop", "0")
    stage.program("send", "send", "0")
    stage.program("entered", "idle", "0")


def _plan(stage: Stage, path: str) -> None:
    """What comes from outside."""
    stage.at(13, partial(stage.visit, "visitor", path + "visitor"))
    stage.at(10, partial(stage.kill, "signalfd"))
    stage.at(6, partial(stage.drain, "send"))
    for name in RINGS:
        stage.at(12, partial(stage.send, name, b"x"))
    for second in VISITS:
        stage.at(second, partial(stage.visit, "stuck", path + "stuck"))
    for moment in ENTRIES:
        stage.at(moment, partial(stage.enter, "entered"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """What became of each."""
    directory, path = tmp_path_factory.mktemp("fleet"), f"oversleeping-{secrets.token_hex(6)}-"
    with contextlib.ExitStack() as stack:
        stage = Stage(directory, stack)
        for name in NAMES:
            stage.cgroups[name] = stack.enter_context(TemporaryCgroup())
            stage.records[name] = Record()
        # What began to wait before that would have begun then, as far as the service knows.
        fleet = stack.enter_context(Fleet(directory, stage.cgroups))
        fleet.start()
        stage.began = time.monotonic()
        stage.seeWaits(fleet.waited)
        _programs(stage, path)
        _plan(stage, path)
        stage.at(3, partial(stage.look))
        stage.outside.run(lambda: time.monotonic() > stage.began + LASTS)
        for name in UNTOUCHED:
            stage.records[name].why = fleet.describe(name)["why_awake"]
        for record in stage.records.values():
            record.waits = stage.waits
        fleet.end()
        _removeSet(stage.records["semop"])
    return stage.records


def _removeSet(record: Record) -> None:
    # Its number stands where others have milliseconds.
    (number,) = record.at("set")
    subprocess.run(["ipcrm", "-s", str(round(number * 1000))], check=True)


def inTime(record: Record, what: str, due: float, late: float = LATE) -> None:
    """Said once, and then."""
    (said,) = record.at(what)
    assert due <= said <= due + late + record.waited(due)


@pytest.mark.parametrize("kind", WAITS)
def test_waits(records: dict[str, Record], kind: str) -> None:
    """Each call of 12 s is over then, asleep or not."""
    inTime(records[kind], "over", 12)
    assert records[kind].frozen > 0.5


def test_timers(records: dict[str, Record]) -> None:
    """A timer behind another one, and one that is nearly over when somebody else comes."""
    for name, earlier in (("hidden", 8.0), ("two", 12.8)):
        inTime(records[name], f"timer{round(1000 * earlier)}", earlier)
        inTime(records[name], "timer16000", 16)
        assert records[name].frozen > 0.5
    inTime(records["visitor"], "timer16000", 16)
    assert len(records["visitor"].took) == 1
    assert records["visitor"].took[0] < 0.5 + records["visitor"].waited(13)
    assert records["visitor"].frozen > 0.5


def test_behindATick(records: dict[str, Record]) -> None:
    """What nothing outside shows is late by what was slept at most."""
    inTime(records["behind"], "timer14000", 14, LONGEST)
    assert records["behind"].frozen > 0.5


def test_besideABusyOne(records: dict[str, Record]) -> None:
    """A time counts from its beginning, not from when its container first slept."""
    assert sorted(round(at) for at in records["beside"].at("over")) == [8, 12]
    assert max(records["beside"].at("over")) <= 12 + LATE + records["beside"].waited(12)


@pytest.mark.parametrize("name", RINGS)
def test_rings(records: dict[str, Record], name: str) -> None:
    """Each gets its byte, asleep or kept awake."""
    record = records[name]
    assert [word for word, _, _ in record.events[1:]] == ["1"]
    assert 12 <= record.events[1][1] <= 12.5 + record.waited(12)
    if name in UNTOUCHED:
        # A freeze that is tried and given up may be seen, once.
        assert sum(at < 12 for at in record.asleep) <= 1
    else:
        assert record.frozen > 0.5


def test_signalfd(records: dict[str, Record]) -> None:
    """TERM is read, soon."""
    (heard,) = records["signalfd"].heard("signalled")
    assert 10 <= heard <= 10.75 + records["signalfd"].waited(10)
    assert records["signalfd"].frozen > 0.5


def test_stuck(records: dict[str, Record]) -> None:
    """One that cannot be frozen harms no other: each request is answered at once."""
    record = records["stuck"]
    for second, took in zip(VISITS, record.took, strict=True):
        assert took < 0.5 + record.waited(second)
    assert record.frozen == 0
    assert record.why.startswith("busy: stat[")


def test_watchdog(records: dict[str, Record]) -> None:
    """It reports within the time that its watchdog gives it, though it sleeps."""
    record = records["watchdog"]
    ticks = [*record.heard("ready"), *record.heard("tick"), LASTS]
    for earlier, later in pairwise(ticks):
        assert later - earlier < 4 + record.waited(later)
    assert record.frozen > 0.3


def test_semop(records: dict[str, Record]) -> None:
    """It waits, and no try ends that."""
    record = records["semop"]
    assert [word for word, _, _ in record.events] == ["ready", "set"]
    assert record.frozen == 0
    assert "is in semop" in record.why or "semtimedop" in record.why


def test_send(records: dict[str, Record]) -> None:
    """A reader that has something else to do gets all of it in the end."""
    record = records["send"]
    assert len(record.heard("all")) == 1
    assert record.at("part") == []


def test_entered(records: dict[str, Record]) -> None:
    """Who comes in waits for next to nothing."""
    record = records["entered"]
    for moment, took in zip(ENTRIES, record.took, strict=True):
        assert took < 0.5 + record.waited(moment)
    assert record.frozen > 0.5
