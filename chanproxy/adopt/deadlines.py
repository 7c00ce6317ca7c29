"""
Which of the times that a container waits for wake it.

Most programs that wait for events also wait for a time, and most of these times are housekeeping: a
look every 100 ms whether there is anything to do.  Knows threads by their numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, frozen

_SECOND = 1_000_000_000

ALL, IGNORE = 0.0, float("inf")
"""What C{timeouts = "all"} and C{timeouts = "ignore"} are in seconds."""


@frozen
class Timed:
    """
    A thread that waits for a time.

    @ivar label: in words, for people.
    @ivar at: nanoseconds (C{CLOCK_MONOTONIC}) when its wait ends by itself.
    @ivar alone: its process waits for nothing but time.
    """

    pid: int
    tid: int
    label: str
    at: int
    alone: bool


class NotYet(Exception):
    """A time that may matter is near; the text says whose, and when."""


WORTH = _SECOND
"""Nanoseconds: for a time that is nearer than this the container stays awake."""

_SAME = _SECOND // 20
"""Nanoseconds by which a time may differ when it is asked for again, rounded, and is the same."""


@define
class _Known:
    """
    What was seen of a thread's times.

    @ivar seen: when it was last looked at, or ran again after that.
    @ivar long: when the last long one is over.
    @ivar unsure: when the last one is over that may be the rest of a long one.
    """

    seen: int | None = None
    long: int | None = None
    unsure: int | None = None


class Deadlines:
    """
    The rule for one container.

    A time as long as the threshold wakes, also when it is nearer by the next look.  So does any
    time of a process that waits for nothing else: it has no other way on.  A shorter one beside
    other waits is housekeeping, if it was set since the last look, and that is less than the
    threshold before it is over; otherwise it may be the rest of a long one, and wakes as well.
    """

    def __init__(self, threshold: float) -> None:
        """@param threshold: seconds; L{ALL} or L{IGNORE}."""
        self._threshold = threshold
        self._known: dict[tuple[int, int], _Known] = {}

    def earliest(self, timed: Iterable[Timed], now: int) -> Timed | None:
        """
        The one that wakes first.

        @param timed: every thread that waits for a time.
        @param now: nanoseconds (C{CLOCK_MONOTONIC}).
        @raise NotYet: stay awake for now.
        """
        if self._threshold == IGNORE:
            return None
        waking: list[Timed] = []
        before, self._known = self._known, {}
        soon: Timed | None = None
        for each in timed:
            key = (each.pid, each.tid)
            known = self._known[key] = before.get(key) or _Known()
            if each.alone or self._isLong(each, known, now):
                waking.append(each)
            elif self._mayBeLong(each, known, now):
                if each.at - now >= WORTH:
                    waking.append(each)
                elif soon is None or each.at < soon.at:
                    soon = each
            known.seen = now
        if soon is not None:
            left = max((soon.at - now) / _SECOND, 0)
            raise NotYet(f"{soon.label} is over in {left:.3g} s")
        return min(waking, key=lambda each: each.at, default=None)

    def resumed(self, now: int) -> None:
        """The container runs again, as it was at the last look: it set no time while it slept."""
        for known in self._known.values():
            known.seen = now

    def _isLong(self, each: Timed, known: _Known, now: int) -> bool:
        if each.at - now >= self._threshold * _SECOND:
            known.long = each.at
            return True
        return known.long is not None and abs(each.at - known.long) <= _SAME

    def _mayBeLong(self, each: Timed, known: _Known, now: int) -> bool:
        if known.seen is None or each.at - known.seen >= self._threshold * _SECOND:
            known.unsure = each.at
        return known.unsure is not None and now < known.unsure


def parseTimeouts(text: str) -> float:
    """
    Read C{10s}, C{all} or C{ignore}.

    @return: seconds, L{ALL} or L{IGNORE}.
    @raise ValueError: it is none of these; the text is a clause.
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
        raise ValueError(f"{text!r} is neither all nor ignore nor a time as 10s, a day at most")
    return seconds
