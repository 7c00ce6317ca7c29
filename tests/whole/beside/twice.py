"""
A program twice at the same time, alone and asleep under the service, and what its clients saw.

Each side is an unmodified program in a cgroup of its own, with clients that do the same to both at
the same moments.  All that is seen is an event with the time at which it was due.  Which programs,
and what their clients do, is not known here.
"""

from __future__ import annotations

import http.client
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from support.cgroups import TemporaryCgroup
from support.live import PATIENCE, LiveService
from support.ports import freePort
from support.programs import answers, controlled, describe, find
from tests.whole.beside.compare import Event, Sleep
from tests.whole.beside.record import Recorder

ROUNDS = int(os.environ.get("CHANPROXY_TEST_ROUNDS", "1"))
"""How often clients do all that they do; C{make test-long} has six."""

KNOWN = Path(__file__).parent / "known"
"""Sources of those programs that are a file of ours."""

SETTLING = 2.0
"""Seconds until a program with nothing to do has to be asleep: the linger time, and some looks."""


class Missed(Exception):
    """Something did not happen, which is recorded; what would follow is not tried."""


class Side:
    """
    One of the two runs of a program.

    @ivar name: of the program.
    @ivar directory: its own, as C{port} and C{cgroup} are.
    @ivar events: what its clients saw, in order.
    @ivar idles: when its clients did nothing: pairs of the monotonic clock's seconds.
    @ivar error: how its clients failed otherwise.
    """

    def __init__(self, name: str, directory: Path, recorder: Recorder, port: int) -> None:
        self.name = name
        self.directory = directory
        self.port = port
        self.cgroup = TemporaryCgroup()
        self.events: list[Event] = []
        self.idles: list[tuple[float, float]] = []
        self.error = ""
        self._recorder = recorder
        self._lines: dict[str, queue.SimpleQueue[tuple[float, str]]] = {}
        self._last: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The program."""
        assert self._process is not None
        return self._process

    def spawn(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None, says: bool = False
    ) -> None:
        """
        Run the program.

        @param environment: what is added to ours.
        @param says: whether its lines are events; they are stamped as they come.
        """
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        self._process = self.cgroup.spawn(
            ["env", "-C", str(self.directory), *variables, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if says else subprocess.DEVNULL,
        )
        if says:
            assert self._process.stdout is not None
            self.hear(os.dup(self._process.stdout.fileno()))

    def hear(self, fd: int, ends: str = "") -> None:
        """
        Have what can be read there recorded as lines.

        @param fd: taken.
        @param ends: what to think at the end of what is read at once: of packets, that of a line.
        """
        self._recorder.add(fd, self._heard, ends)

    def _heard(self, at: float, line: str) -> None:
        key, _, rest = line.replace("=", " ", 1).partition(" ")
        self._queue(key).put((at, rest))

    def _queue(self, key: str) -> queue.SimpleQueue[tuple[float, str]]:
        with self._lock:
            return self._lines.setdefault(key, queue.SimpleQueue())

    def tell(self, line: str) -> None:
        """Write a line to the program."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self, key: str, event: Event, since: float = 0.0) -> None:
        """
        Wait for the program's next line that begins with a word.

        @param event: gets its time, and the rest of it as the answer.
        @param since: leave out those before that time.
        @raise TimeoutError: there is none.
        """
        while True:
            try:
                at, rest = self._queue(key).get(timeout=event.patience())
            except queue.Empty:
                raise TimeoutError(f"no line {key!r}") from None
            self._last[key] = at, rest
            if at >= since:
                event.at, event.answer = at, rest
                return

    def latest(self, key: str) -> tuple[float, str]:
        """The last such line so far, of one at least; all that came are gone."""
        while key not in self._last or not self._queue(key).empty():
            self._last[key] = self._queue(key).get(timeout=PATIENCE)
        return self._last[key]

    @contextmanager
    def expecting(
        self, what: str, due: float, right: str = "", hidden: bool = False, early: float = 0.1
    ) -> Iterator[Event]:
        """
        Something that has to happen, and does when the block ends without an error.

        @param due: when, by the monotonic clock.
        @param right: what the answer has to be.
        @param hidden: whether nothing outside can show that time.
        @param early: by how many seconds it may be earlier.
        @raise Missed: it did not.
        """
        event = Event(what, due, right, hidden, early)
        self.events.append(event)
        try:
            yield event
        except (OSError, EOFError, http.client.HTTPException) as error:
            event.at = None
            event.why = f"{type(error).__name__}: {error}"
            raise Missed from None
        if event.at is None:
            event.at = time.monotonic()

    def chain(
        self, key: str, count: int, period: Callable[[int], float], hidden: bool = False
    ) -> None:
        """
        So many numbered lines, each of which has to come some time after the one before.

        @param period: how many seconds, for the line with a number.
        """
        before, text = self.latest(key)
        for number in range(int(text) + 1, int(text) + 1 + count):
            seconds = period(number)
            what, due = f"{key} after {seconds:g} s", before + seconds
            with self.expecting(what, due, str(number), hidden) as event:
                self.line(key, event)
            assert event.at is not None
            before = event.at

    def periodic(self, key: str, period: float, base: float, span: tuple[float, float]) -> None:
        """
        Numbered lines at a steady rate.

        @param base: when the one with the number 0 was, or would have been.
        @param span: from when to when they are looked for; that may be over already.
        """
        begin, end = span
        first = int((begin - base) / period) + 1
        # As many on both sides, of which one may have begun a moment earlier.
        for number in range(first, first + int((end - begin) / period)):
            due = base + number * period
            with self.expecting(f"{key} each {period:g} s", due, str(number)) as event:
                self.line(key, event, due - period / 2)

    def idle(self, seconds: float) -> None:
        """Do nothing for a while."""
        with self.idling():
            time.sleep(seconds)

    @contextmanager
    def idling(self) -> Iterator[None]:
        """Only the program's own times are seen in this block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.idles.append((begun + SETTLING, time.monotonic()))


class Program:
    """
    One of the programs, and what its clients do.

    @cvar name: also of its container.
    @cvar tried: for the table in the docs.
    @cvar needed: what has to be installed.
    """

    name: str
    tried: str
    needed: tuple[str, ...] = ()

    def __init__(self, directory: Path) -> None:
        """@param directory: for what both sides have in common."""
        self.directory = directory

    @classmethod
    def missing(cls) -> list[str]:
        """What is not installed."""
        return [each for each in cls.needed if find(each) is None]

    def prepare(self) -> None:
        """Make what both sides have in common."""

    def start(self, side: Side) -> None:
        """Spawn it."""
        raise NotImplementedError

    def ready(self, side: Side) -> bool:
        """Whether it serves."""
        return True

    def script(self, side: Side) -> None:
        """All that its clients do, about a minute."""
        raise NotImplementedError

    def run(self, side: Side) -> None:
        """Do it several times, whatever became of the time before."""
        try:
            for _ in range(ROUNDS):
                with suppress(Missed):
                    self.script(side)
            # What an event that never came says nothing of.
            if (code := side.process.poll()) is not None:
                side.error = f"it ended by itself, with {code}"
        except Exception as error:
            side.error = f"{type(error).__name__}: {error}"


class Served(Program):
    """What listens on its port when it is ready."""

    def ready(self, side: Side) -> bool:
        return answers(side.port)


def compiled(source: Path, directory: Path, *options: str) -> str:
    """A program of ours in C."""
    target = directory / source.stem
    argv = ["cc", "-O1", "-Wall", "-Werror", "-o", str(target), str(source), *options]
    subprocess.run(argv, check=True)
    return str(target)


def attempt(*acts: Callable[[], object]) -> None:
    """Do each, whatever becomes of the others."""
    missed = False
    for act in acts:
        try:
            act()
        except Missed:
            missed = True
    if missed:
        raise Missed


class Dormitory(LiveService):
    """The service, for many containers, with nothing set but where they are."""

    def start(self, sleepers: Sequence[Side]) -> None:
        """Run it until it watches them."""
        lines = [f'control = "seqpacket:{self.control}"']
        for side in sleepers:
            lines += [f"[containers.{side.name}]", f'freezer = "{side.cgroup.spec}"']
            lines += ['wake-on = "sockets"']
        file = self.directory / "chanproxy.toml"
        file.write_text("\n".join(lines) + "\n")
        self.service = self.run("--config", str(file))
        self.waitFor("the control socket", lambda: controlled(self.control))


@attrs.frozen
class Outcome:
    """
    What became of one program.

    @ivar described: what the manager said of it at the end.
    @ivar stall: the worst that this process itself came late meanwhile, in seconds.
    """

    alone: Side
    asleep: Side
    sleep: Sleep
    described: dict[str, Any]
    stall: float


def sideBySide(directory: Path, kinds: Sequence[type[Program]]) -> dict[str, Outcome]:
    """Run them all at the same time, each of them twice; nothing is left of them."""
    with ExitStack() as stack:
        recorder = Recorder()
        stack.callback(recorder.close)
        pairs: list[tuple[Program, Side, Side]] = []
        for kind in kinds:
            common = directory / kind.name
            common.mkdir()
            program = kind(common)
            program.prepare()
            sides = []
            for where in ("alone", "asleep"):
                (common / where).mkdir()
                side = Side(kind.name, common / where, recorder, freePort())
                stack.callback(side.cgroup.close)
                sides.append(side)
            pairs.append((program, sides[0], sides[1]))
        # Before the cgroups, which it looks at, are gone.
        stack.callback(recorder.close)
        for program, *both in pairs:
            for side in both:
                program.start(side)
        for program, *both in pairs:
            for side in both:
                _waitReady(program, side)
        return _watched(directory, pairs, recorder)


def _waitReady(program: Program, side: Side) -> None:
    deadline = time.monotonic() + 3 * PATIENCE
    while not program.ready(side):
        assert side.process.poll() is None, f"{side.name} ended by {side.process.returncode}"
        assert time.monotonic() < deadline, f"{side.name} is not ready"
        time.sleep(0.05)


def _watched(
    directory: Path, pairs: Sequence[tuple[Program, Side, Side]], recorder: Recorder
) -> dict[str, Outcome]:
    sleepers = [asleep for _, _, asleep in pairs]
    with Dormitory(directory) as service:
        service.start(sleepers)
        sleeps = {side.name: recorder.watch(side.cgroup.path) for side in sleepers}
        threads = [
            threading.Thread(target=program.run, args=(side,))
            for program, *both in pairs
            for side in both
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        described = {side.name: describe(service.control, side.name) for side in sleepers}
        recorder.close()
        service.end()
    return {
        alone.name: Outcome(
            alone, asleep, sleeps[alone.name], described[alone.name], recorder.stall
        )
        for _, alone, asleep in pairs
    }
