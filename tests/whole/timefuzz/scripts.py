"""
Random scripts for the fuzzer of time: what a program does, and what happens to it from outside.

The same seed gives the same script.  The language is that of C{program.c}, and three
kinds of lines for who runs it::

    lasts MS                                  all that ends has ended by then, without chanproxy
    signal PROCESS USR1|TERM MS               its number in the script, and when
    visit NAME tcp|unix MS (PAUSE DELAY LATER)...   connect to a server, and ask it so often

Knows nothing of how a script is run.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from attrs import frozen

RETRIED = (
    *("poll", "poll-nothing", "ppoll", "select", "select-nothing", "pselect6"),
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "nanosleep", "sleep", "futex"),
    *("recv-rcvtimeo", "accept-rcvtimeo", "sigtimedwait"),
)
"""Waits for a relative time, which some programs begin anew when they are interrupted."""

ABSOLUTE = (
    *("sleep-real", "sleep-until", "sleep-until-real", "futex-mono", "futex-real"),
    *("cond-mono", "cond-real", "sem-mono", "sem-real", "mq_timedreceive"),
)

TOLD = (
    *("timerfd-epoll", "timerfd-read", "timerfd-poll", "timer-sigwait", "timer-handler"),
    *("timer-thread", "timer-thread-sigwait", "timer-thread-ppoll", "child-exit", "child-pipe"),
)
"""Waits for ever, until something else has seen the time."""

ALARMS = ("itimer", "alarm")
"""There is one for a process."""

LOOPS = ("epoll_wait", "epoll_wait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6")

LASTS = 28000
"""Milliseconds; see the language."""

ROOM = LASTS - 1500


@frozen
class Visit:
    """
    One connection from outside.

    @ivar at: milliseconds after the start.
    @ivar asks: of each request the pause before it, after how long to answer, and how long after
        that to do something more, or 0; milliseconds.
    """

    server: str
    kind: str
    at: int
    asks: tuple[tuple[int, int, int], ...]


@frozen
class Sent:
    """One signal from outside; C{at} is in milliseconds after the start."""

    process: int
    name: str
    at: int


@frozen
class Script:
    """What of a script is for who runs it."""

    text: str
    lasts: int
    processes: int
    servers: int
    visits: tuple[Visit, ...]
    signals: tuple[Sent, ...]

    @classmethod
    def read(cls, text: str) -> Script:
        """@raise ValueError: a line for us is not understood."""
        visits, signals, lasts, processes, servers = [], [], LASTS, 0, 0
        for words in map(str.split, text.splitlines()):
            match words:
                case ["lasts", lasting]:
                    lasts = int(lasting)
                case ["process"]:
                    processes += 1
                case ["serve" | "listen", *_]:
                    servers += 1
                case ["signal", process, name, at]:
                    signals.append(Sent(int(process), name, int(at)))
                case ["visit", server, kind, at, *rest]:
                    numbers = list(map(int, rest))
                    asks = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
                    visits.append(Visit(server, kind, int(at), tuple(asks)))
        return cls(text, lasts, processes, servers, tuple(visits), tuple(signals))


class Writer:
    """One script in the making."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines = [f"# seed {seed}"]
        self.outside: list[str] = []
        self.actors = 0
        self.alarmed = False

    def chance(self, share: float) -> bool:
        """True so often."""
        return self.random.random() < share

    def name(self) -> str:
        """A new one, for an actor."""
        self.actors += 1
        return "abcdefghijklmnop"[self.actors - 1]

    def span(self, most: int) -> int:
        """Milliseconds; short ones as often as long ones."""
        low, high = self.random.choice(((150, 1000), (1000, 4000), (4000, 11000), (9000, 20000)))
        return self.random.randint(low, max(low, min(high, most)))

    def spans(self, most: int, count: int) -> list[int]:
        """Several in a row, none like those before it: they are no tick."""
        found: list[int] = []
        for _ in range(count * 3):
            left = most - sum(found)
            if len(found) == count or left < 150:
                break
            span = self.span(left)
            if span <= left and all(not 0.7 < span / other < 1.4 for other in found[-2:]):
                found.append(span)
        return found or [self.random.randint(150, most)]

    def tick(self) -> int:
        """The length of a steady tick."""
        return int(50 * 40 ** self.random.random())

    def whole(self, share: float = 0.25) -> str:
        """Whether to begin anew."""
        return " whole" if self.chance(share) else ""

    def wait(self, span: int) -> str:
        """One of a thread that waits again and again."""
        kinds: Sequence[str] = self.random.choice((RETRIED, RETRIED, ABSOLUTE, TOLD))
        kind = self.random.choice(kinds)
        return f" wait {kind} {span}{self.whole() if kind in RETRIED else ''}"

    def steps(self, busy: bool) -> None:
        """A thread that waits again and again."""
        self.lines.append(f"steps {self.name()}")
        alarms = not self.alarmed and self.chance(0.15)
        self.alarmed = self.alarmed or alarms
        lines = []
        for span in self.spans(ROOM - 3000 if busy else ROOM, self.random.randint(1, 7)):
            if alarms and self.chance(0.6):
                kind = self.random.choice(ALARMS)
                rounded = max(1, span // 1000) * 1000 if kind == "alarm" else span
                lines.append(f" wait {kind} {rounded}")
            else:
                lines.append(self.wait(span))
        if busy:
            at = self.random.randint(0, len(lines))
            lines.insert(at, f" wait busy {self.random.randint(500, 3000)}")
        self.lines += lines

    def onlyTick(self) -> None:
        """A thread that does nothing else."""
        kind = self.random.choice(RETRIED + ABSOLUTE)
        whole = self.whole() if kind in RETRIED else ""
        self.lines.append(f"tick {self.name()} {kind} {self.tick()}{whole}")

    def visits(self, server: str, kind: str, apart: bool, latest: int, jobs: bool) -> None:
        """Connections to a server; one after the other if they are C{apart}."""
        at = self.random.randint(300, 6000)
        for _ in range(self.random.randint(1, 3)):
            asks, took = [], 0
            for _ in range(self.random.choice((1, 1, 2, 3))):
                pause = self.random.choice((0, self.random.randint(0, 3000)))
                delay = self.random.choice((0, *(self.random.randint(50, 4000),) * 2))
                later = self.span(9000) if jobs and self.chance(0.3) else 0
                asks.append(f"{pause} {delay} {min(later, 9000)}")
                took += pause + delay
            if at + took > latest:
                break
            self.outside.append(f"visit {server} {kind} {at} {' '.join(asks)}")
            at += self.random.randint(500, 9000) + (took + 1500 if apart else 0)

    def serve(self) -> None:
        """A server that blocks."""
        name, kind = self.name(), self.random.choice(("tcp", "unix"))
        how = self.random.choice(("thread", "fork", "inline"))
        by = self.random.choice(RETRIED + ABSOLUTE + TOLD[:3])
        self.lines.append(f"serve {name} {kind} {how} {by}")
        self.visits(name, kind, how == "inline", ROOM, jobs=False)

    def loop(self, process: int) -> None:
        """An event loop."""
        name = self.name()
        self.lines.append(f"loop {name} {self.random.choice(LOOPS)}{self.whole(0.15)}")
        ticks = self.random.choice((0, 1, 1, 2))
        self.lines += [f" every {self.tick()}" for _ in range(ticks)]
        for _ in range(self.random.randint(0 if ticks else 1, 4)):
            count = self.random.choice((1, 1, 2, 3))
            spans = self.spans(ROOM if count == 1 or not ticks else 12000, count)
            self.lines.append(f" after {' '.join(map(str, spans))}")
        if self.chance(0.2):
            self.lines.append(f" timerfd {self.span(ROOM)}")
        if self.chance(0.5):
            kind = self.random.choice(("tcp", "tcp", "unix"))
            self.lines.append(f" listen {kind}")
            hidden = ticks and kind == "unix"
            self.visits(name, kind, False, 12000 if hidden else ROOM, jobs=True)
        if self.chance(0.25):
            self.lines.append(" signalfd")
            self.signals(process, "TERM")

    def signals(self, process: int, name: str) -> None:
        """Some from outside, never two of them waiting at a time."""
        at = self.random.randint(500, 12000)
        for _ in range(self.random.randint(1, 3)):
            if at < ROOM:
                self.outside.append(f"signal {process} {name} {at}")
            at += self.random.randint(3000, 12000)

    def process(self, number: int, busy: bool) -> None:
        """All actors of one process."""
        self.lines.append("process")
        self.alarmed = False
        kinds = [
            self.random.choices(("steps", "loop", "serve", "tick"), (9, 7, 3, 3))[0]
            for _ in range(self.random.choice((1, 1, 2, 2, 3, 4)))
        ]
        if kinds == ["tick"]:
            kinds.append("steps")
        if kinds.count("loop") > 1:
            # Two would take each other's signals.
            kinds = [kind for kind in kinds if kind != "loop"] + ["loop"]
        for kind in kinds:
            match kind:
                case "steps":
                    self.steps(busy)
                    busy = False
                case "loop":
                    self.loop(number)
                case "serve":
                    self.serve()
                case "tick":
                    self.onlyTick()
        if self.chance(0.3) and set(kinds) != {"steps"}:
            self.signals(number, "USR1")

    def text(self) -> str:
        """All of it."""
        busy = self.chance(0.12)
        for number in range(self.random.choice((1, 1, 1, 1, 2, 3))):
            self.process(number, busy)
            busy = False
        return "\n".join([*self.lines, "# outside", *self.outside, f"lasts {LASTS}", ""])


def script(seed: int) -> str:
    """The text for a seed."""
    return Writer(seed).text()


def scripts(seeds: Iterable[int]) -> dict[str, Script]:
    """By names that say the seed."""
    return {f"seed{seed}": Script.read(script(seed)) for seed in seeds}
