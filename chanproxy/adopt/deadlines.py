"""
Which of the times that a container waits for wake it.

Most programs that wait for events also wait for a time, and many of these times are housekeeping: a
look every 100 ms whether there is anything to do.  Knows threads and processes by their numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from attrs import evolve, frozen

from chanproxy.kernel.processes import parentOf
from chanproxy.words import Wrong, brief, secondsMeant

_SECOND = 1_000_000_000

ALL, IGNORE = 0.0, float("inf")
"""What C{timeouts = "all"} and C{timeouts = "ignore"} are in seconds."""


@frozen
class Timed:
    """
    A thread that waits for a time.

    @ivar label: in words, for people.
    @ivar at: nanoseconds (C{CLOCK_MONOTONIC}) when its wait ends by itself, at the earliest.
    @ivar length: nanoseconds that the whole wait takes.
    @ivar alone: its process has no other way on than such times; see L{lookAfterOthers}.
    @ivar period: nanoseconds after which the thread comes back as a habit, and this is such a time;
        0: it is none.
    """

    pid: int
    tid: int
    label: str
    at: int
    length: int
    alone: bool
    period: int = 0

    @property
    def habit(self) -> str:
        """How often it comes back, in words for people."""
        return f"{self.label}, every {self.period / _SECOND:.3g} s"


def lookAfterOthers(timed: list[Timed], pids: Collection[int]) -> list[Timed]:
    """
    Tell apart who waits for nothing but a time since it looks after its children.

    As Apache's first process does: the way on is its children's.  Only where each of these, too,
    waits for nothing but a time is there none.

    @param timed: C{alone} says of each whether its process waits for nothing but times.
    @param pids: all processes.
    """
    alone = {each.pid for each in timed if each.alone}
    if not alone:
        return timed
    after: set[int] = set()
    for pid in set(pids) - alone:
        # Who cannot be asked for its parent has ended, or is hidden.
        with suppress(OSError):
            after.add(parentOf(pid))
    return [evolve(each, alone=each.alone and each.pid not in after) for each in timed]


class NotYet(Exception):
    """
    A time that somebody waits for is near; the text says whose, and when.

    @ivar again: seconds after which it is over.
    """

    def __init__(self, text: str, again: float) -> None:
        super().__init__(text)
        self.again = again


WORTH = _SECOND
"""Nanoseconds: for a time that is nearer than this the container stays awake."""

BRIEF = _SECOND // 10
"""The same for one that was asleep, and merely breathes."""


class Deadlines:
    """
    The rule for one container.

    A time as long as the threshold wakes it, and so does any time of a process that waits for
    nothing else, and looks after nobody: it has no other way on.  A shorter one is housekeeping
    only if the thread was seen to come back after it as a habit; otherwise somebody may wait for
    it, and it wakes as well.

    @ivar threshold: seconds; L{ALL} or L{IGNORE}.
    @ivar worth: L{WORTH} or L{BRIEF}.
    @ivar passedOver: what was housekeeping at the last look, in words.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.worth = WORTH
        self.passedOver: tuple[str, ...] = ()

    def wakes(self, each: Timed) -> bool:
        """Whether a time wakes the container."""
        if self.threshold == IGNORE:
            return False
        # Of a habit that was interrupted, the length is what is left.
        length = max(each.length, each.period)
        return each.alone or not each.period or length >= self.threshold * _SECOND

    def earliest(self, timed: Iterable[Timed], now: int) -> Timed | None:
        """
        The one that wakes first.

        @param timed: every thread that waits for a time.
        @param now: nanoseconds (C{CLOCK_MONOTONIC}).
        @raise NotYet: stay awake for now.
        """
        first: Timed | None = None
        passed = []
        for each in timed:
            if not self.wakes(each):
                if each.period:
                    passed.append(each.habit)
            elif first is None or each.at < first.at:
                first = each
        self.passedOver = tuple(sorted(passed))
        if first is not None and first.at - now < self.worth:
            left = max(first.at - now, 0) / _SECOND
            raise NotYet(f"{first.label} is over in {left:.3g} s", left)
        return first


def parseTimeouts(text: str) -> float:
    """
    Read C{10s}, C{all} or C{ignore}.

    @return: seconds, L{ALL} or L{IGNORE}.
    @raise Wrong: it is none of these; the text is a clause, with what was meant.
    """
    words: Mapping[str, float] = {"all": ALL, "ignore": IGNORE}
    if text in words:
        return words[text]
    number = text.removesuffix("s")
    try:
        seconds = float(number)
    except ValueError:
        seconds = -1.0
    if not text.endswith("s") or not 0 < seconds <= 86400:
        raise Wrong(
            f"{brief(text)} is neither 'all' nor 'ignore' nor a number of seconds as '10s', of "
            "86400 at most",
            *_meant(text),
        )
    return seconds


def _meant(text: str) -> Iterator[str]:
    """What was meant by something else, if that is known."""
    seconds = secondsMeant(text)
    if text.lower() in ("all", "ignore"):
        yield text.lower()
    elif text.lower() in ("none", "never", "no", "off", "false"):
        yield "ignore"
    elif seconds is not None and 0 < seconds <= 86400:
        yield f"{seconds:.15g}s"
