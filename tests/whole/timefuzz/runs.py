"""
Runs scripts of the fuzzer of time, each twice at once: without chanproxy, and under the service.

One loop does all that comes from outside, signals and visitors, and reads what all programs write.
Knows nothing of what is right; see L{tests.whole.timefuzz.judge}.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from chanproxy.container.breath import BREATH_SECONDS
from support.cgroups import TemporaryCgroup
from support.fleet import Fleet
from tests.shared.frozen import compiled
from tests.whole.timefuzz.judge import Event, Fault, Noise, Record, byKind, compare
from tests.whole.timefuzz.scripts import Script, Sent, Visit

PATIENCE = 18.0
"""Seconds that are waited for what is late, after all has ended without chanproxy."""

APART = 0.03
"""Seconds between the starts of two programs."""

BREATH = BREATH_SECONDS + 0.05
"""Seconds that a breath takes at most, and the freeze after it."""

_libc = ctypes.CDLL(None, use_errno=True)


class Outside:
    """
    The loop: what is to be done at a time, and what is to be read.

    @ivar lags: when something was done here or by the service, and how late, seconds.
    """

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.lags: list[tuple[float, float]] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a time of CLOCK_MONOTONIC."""
        heapq.heappush(self._agenda, (when, next(self._number), call))

    def read(self, fd: int, call: Callable[[], None]) -> None:
        """Call whenever there is something to read."""
        self.selector.register(fd, selectors.EVENT_READ, call)

    def lag(self, since: float) -> float:
        """The most that something was late since then, seconds."""
        recent = itertools.takewhile(lambda lag: lag[0] >= since, reversed(self.lags))
        return max((late for _, late in recent), default=0.0)

    def run(self, done: Callable[[], bool]) -> None:
        """Until it is done, which is looked at after each turn."""
        while not done():
            pause = self._agenda[0][0] - time.monotonic() if self._agenda else 0.5
            for key, _ in self.selector.select(max(0.0, min(pause, 0.5))):
                key.data()
            while self._agenda and self._agenda[0][0] <= (now := time.monotonic()):
                when, _, call = heapq.heappop(self._agenda)
                self.lags.append((now, now - when))
                call()


class Visiting:
    """One connection, which asks, waits for the answer, and asks again."""

    def __init__(self, run: Run, number: int, visit: Visit, address: str | tuple[str, int]) -> None:
        self.run, self.visit = run, visit
        self.prefix = f"v{number}"
        self.asked = 0
        self.buffer = b""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.peer = socket.socket(family, socket.SOCK_STREAM)
        self.peer.settimeout(5)
        self.peer.connect(address)
        run.outside.read(self.peer.fileno(), self.heard)
        self.next()

    def next(self) -> None:
        """Ask again, after the pause, or go."""
        if self.asked == len(self.visit.asks):
            self.close()
        else:
            pause = self.visit.asks[self.asked][0]
            self.run.outside.at(time.monotonic() + pause / 1000, self.ask)

    def ask(self) -> None:
        """Send one request."""
        _, delay, later = self.visit.asks[self.asked]
        if self.peer.fileno() >= 0:
            line = f"request {self.prefix}.{self.asked} {_micro()} {delay} {later}\n"
            self.run.guarded("request", lambda: self.peer.sendall(line.encode()))

    def heard(self) -> None:
        """An answer, or the end."""
        try:
            data = self.peer.recv(4096)
        except OSError as error:
            data = b""
            self.run.failures.append(f"{self.prefix}: {error}")
        self.buffer += data
        if not data:
            self.run.failures.append(f"{self.prefix}: closed by the server")
            self.close()
        while b"\n" in self.buffer:
            line, self.buffer = self.buffer.split(b"\n", 1)
            word, id, sent = line.decode().split()
            if (word, id) != ("answer", f"{self.prefix}.{self.asked}"):
                self.run.failures.append(f"{self.prefix}: a wrong answer: {line!r}")
            name = f"{self.visit.server}.{id}.answered"
            self.run.add(Event(name, "s", "answered", int(sent) / 1e6, time.monotonic()))
            self.asked += 1
            self.next()

    def close(self) -> None:
        """Hang up."""
        if self.peer.fileno() >= 0:
            self.run.outside.selector.unregister(self.peer.fileno())
            self.peer.close()


def _micro() -> int:
    return time.monotonic_ns() // 1000


class Run:
    """
    One program.

    @ivar events: by their ids and times, as they came.
    @ivar failures: in words.
    """

    def __init__(self, script: Script, file: Path, outside: Outside) -> None:
        self.script, self.file, self.outside = script, file, outside
        self.cgroup = TemporaryCgroup()
        self.events: list[Event] = []
        self.ids: set[str] = set()
        self.failures: list[str] = []
        self.pids: dict[int, int] = {}
        self.addresses: dict[str, str | tuple[str, int]] = {}
        self.sent: dict[int, float] = {}
        self.visitors: list[Visiting] = []
        self.began = 0.0
        self.looks = self.asleep = 0
        self._runsSince: float | None = None
        self._looked = self._lag = 0.0
        self.awake: list[float] = []
        self._rest = b""

    def start(self) -> None:
        """Begin."""
        process = self.cgroup.spawn(
            [compiled("whole/timefuzz/program.c"), str(self.file)],
            subprocess.DEVNULL,
            subprocess.PIPE,
        )
        assert process.stdout is not None
        self._output = process.stdout
        self.outside.read(self._output.fileno(), self._heard)
        self.outside.at(time.monotonic() + 1, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self.looks += 1
        frozen = self.cgroup.frozen()
        self.asleep += frozen
        # The machine may keep the service from ending a breath when it should.
        self._lag = 0.0 if frozen else max(self._lag, self.outside.lag(self._looked))
        self._looked = now
        since = self._runsSince = None if frozen else self._runsSince or now
        if since is not None and now - since > BREATH + self._lag:
            self.awake.append(now)
        self.outside.at(now + 0.13, self._look)

    def _heard(self) -> None:
        data = os.read(self._output.fileno(), 65536)
        if not data:
            self.outside.selector.unregister(self._output.fileno())
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode().split())

    def _line(self, words: list[str]) -> None:
        match words:
            case ["event", id, sort, kind, due, came, again, extra]:
                when = int(due) / 1e6
                if kind in ("usr1", "signalfd"):
                    # It cannot know when it was sent.
                    when = self.sent[int(id.rpartition(".")[2])]
                self.add(Event(id, sort, kind, when, int(came) / 1e6, int(again), int(extra) / 1e6))
            case ["process", number, pid]:
                self.pids[int(number)] = int(pid)
            case ["at", name, "tcp", port]:
                self.addresses[name] = ("127.0.0.1", int(port))
            case ["at", name, "unix", path]:
                self.addresses[name] = "\0" + path
            case _:
                self.failures.append(" ".join(words))
        whole = (self.script.processes, self.script.servers)
        if not self.began and (len(self.pids), len(self.addresses)) == whole:
            self.began = time.monotonic()
            self._plan()

    def add(self, event: Event) -> None:
        """One more."""
        self.events.append(event)
        self.ids.add(event.id)

    def guarded(self, what: str, call: Callable[[], object]) -> None:
        """What the program may make impossible is a failure of it."""
        try:
            call()
        except OSError as error:
            self.failures.append(f"{what}: {error}")

    def _plan(self) -> None:
        for number, visit in enumerate(self.script.visits):
            self.outside.at(self.began + visit.at / 1000, partial(self._visit, number, visit))
        for number, sent in enumerate(self.script.signals):
            self.outside.at(self.began + sent.at / 1000, partial(self._send, number, sent))

    def _visit(self, number: int, visit: Visit) -> None:
        def come() -> None:
            self.visitors.append(Visiting(self, number, visit, self.addresses[visit.server]))

        self.guarded("connect", come)

    def _send(self, number: int, sent: Sent) -> None:
        which = getattr(signal, f"SIG{sent.name}")
        self.sent[number] = time.monotonic()
        if _libc.sigqueue(self.pids[sent.process], which, ctypes.c_void_p(number)) < 0:
            self.failures.append(f"{sent.name}: {os.strerror(ctypes.get_errno())}")

    def record(self) -> Record:
        """What became of it."""
        asleep = self.asleep / max(1, self.looks)
        return Record(tuple(self.events), tuple(self.failures), asleep, tuple(self.awake))

    def close(self) -> None:
        """End it, whatever it does."""
        for visitor in self.visitors:
            visitor.close()
        with suppress(AttributeError, KeyError, ValueError):
            self.outside.selector.unregister(self._output.fileno())
        self.cgroup.close()


@contextmanager
def _service(
    directory: Path, runs: Mapping[str, Run], outside: Outside, wanted: bool
) -> Iterator[None]:
    if not wanted:
        yield
        return
    with Fleet(directory, {name: run.cgroup for name, run in runs.items()}) as fleet:
        fleet.start()
        _watchWaits(fleet, outside)
        yield
        fleet.end()


def _watchWaits(fleet: Fleet, outside: Outside) -> None:
    """The service is late by what others have of the processors: a lag, of the last half second."""
    waits = deque([fleet.waited()], maxlen=6)

    def look() -> None:
        now = time.monotonic()
        waits.append(fleet.waited())
        outside.lags.append((now, waits[-1] - waits[0]))
        outside.at(now + 0.1, look)

    look()


class Outcome:
    """
    What a round found.

    @ivar faults: all.
    @ivar asleep: by the name of a script, the share of the time that it slept.
    @ivar count: of all events that were compared.
    """

    def __init__(self, pairs: Mapping[str, tuple[Record, Record]], noise: Noise) -> None:
        self.faults: list[Fault] = []
        for name, (without, under) in pairs.items():
            self.faults += compare(name, without, under, noise)
        self.asleep = {name: under.asleep for name, (_, under) in pairs.items()}
        self.count = sum(len(without.events) for without, _ in pairs.values())

    def __str__(self) -> str:
        asleep = sum(self.asleep.values()) / max(1, len(self.asleep))
        summary = f"{self.count} events, asleep {asleep:.0%} of the time, {len(self.faults)} faults"
        return "\n".join([*map(str, self.faults), byKind(self.faults), summary])


def compareAll(directory: Path, scripts: Mapping[str, Script], service: bool = True) -> Outcome:
    """
    Run each script twice, all at the same time.

    @param service: False to run them twice without, which must show no difference.
    """
    outside = Outside()
    with ExitStack() as stack:
        stack.callback(outside.selector.close)
        runs: list[dict[str, Run]] = [{}, {}]
        for name, script in scripts.items():
            file = directory / name
            file.write_text(script.text)
            for side in runs:
                side[name] = Run(script, file, outside)
                stack.callback(side[name].close)
        with _service(directory, runs[1], outside, service):
            began = time.monotonic()
            both = [side[name] for name in scripts for side in runs]
            for number, run in enumerate(both):
                outside.at(began + number * APART, run.start)
            started = began + len(both) * APART
            ended = started + max(script.lasts for script in scripts.values()) / 1000 + 1

            def done() -> bool:
                if (now := time.monotonic()) < ended:
                    return False
                return now > ended + PATIENCE or all(
                    runs[1][name].ids >= _kept(run) for name, run in runs[0].items()
                )

            outside.run(done)
        pairs = {name: (run.record(), runs[1][name].record()) for name, run in runs[0].items()}
    return Outcome(pairs, Noise((without for without, _ in pairs.values()), outside.lags))


def _kept(run: Run) -> set[str]:
    return {event.id for event in run.events if event.sort != "t"}
