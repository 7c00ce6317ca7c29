"""
Habits: what is known of one thread that waits, comes back and waits again; and whether it comes
back by itself, again and again, with nothing to do.

Takes what was seen; looks at nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import define, field, frozen

from chanproxy.adopt.calls import GOING_ON
from chanproxy.adopt.waits import Wait

RETURNS = 3
"""As often a thread has to come back by itself in a row before that is called a habit."""

MIXED = 10
"""The same, when the times are not all of nearly the same length: several ticks of one thread."""

NEAR = 0.35
"""How much longer or shorter than its other times one of a habit may be."""

WORK = 2_000_000
"""Nanoseconds that a thread may run at a time and still have next to nothing to do."""

LONG, LITTLE = 2_000_000_000, 250_000
"""
The same for one that comes back after so many nanoseconds or more, and is cheap to wait for.

A server that looks whether there is something to do takes 40 to 80 microseconds for that, also with
a freeze in between; an interpreter that has a timer to call, 300 and more.
"""

_KEPT = 16
"""Times that are remembered of a habit."""

_LEAST = 0.35
"""
Share of its usual time that each of several waits must have taken, if they went by between two
looks: whoever waits for a request and then for a time waits much shorter for one of them.
"""

NEVER = (-1, -1)
"""The counters of a thread that has not been seen to run."""

_GRAIN = 5_000_000
"""Nanoseconds by which a time may be longer than asked for: kernels and timers round up."""

_LATE = 50_000_000
"""Nanoseconds that a thread may take to run when its time has come."""

_SAME = 1_000_000
"""Nanoseconds by which two instants may differ, and are the same."""

_FREE = 8
"""
Part of its step by which the end of a wait has to be known to tell whether that is one of the
instants of a tick at a fixed rate: of other times, one in four is taken for such at most.
"""

_ROUNDED = 2000
"""Nanoseconds by which what is left may differ: select(2) counts microseconds."""


@frozen
class Timing:
    """
    A wait that ends by itself.

    @ivar call: its name.
    @ivar argument: the first, mostly what else is waited for.
    @ivar length: nanoseconds, when the call counts from its beginning.
    @ivar end: nanoseconds (C{CLOCK_MONOTONIC}), when it is for an instant.
    @ivar expired: see L{Wait}.
    """

    call: str
    argument: int
    length: int | None
    end: int | None
    expired: int | None = None

    @classmethod
    def of(cls, wait: Wait, argument: int, now: int) -> Timing | None:
        """None for one that does not end by itself."""
        if wait.within is None:
            return None
        if wait.relative:
            return cls(wait.call, argument, wait.within, None, wait.expired)
        return cls(wait.call, argument, None, now + wait.within)

    def isLike(self, other: Timing) -> bool:
        """Whether it is the same call for the same thing, whatever the time."""
        same = self.call == other.call and self.argument == other.argument
        return same and (self.length is None) == (other.length is None)

    def mayBe(self, arguments: Sequence[int]) -> bool:
        """Whether a call that the kernel has restarted, with these arguments, may be this one."""
        return self.call in GOING_ON and self.argument == arguments[0]

    def isSame(self, other: Timing) -> bool:
        """Whether it is for the same instant: the same wait, or what a loop makes of it."""
        if self.end is None or other.end is None or not self.isLike(other):
            return False
        return abs(self.end - other.end) <= _SAME

    def isRest(self, rest: int | None) -> bool:
        """Whether it is what was left of another one, nanoseconds."""
        if rest is None or self.length is None:
            return False
        return abs(self.length - rest) <= _ROUNDED


@frozen
class _Mark:
    """
    When a thread began to wait: after C{before}, and before C{since}; and its counters then.
    """

    before: int
    since: int
    switches: int
    ran: int


@frozen
class _Ends:
    """How long a wait is, and when it is over, by bounds."""

    length: int
    first: int
    last: int


@frozen
class Waited:
    """What a thread waited for, and since when; see L{Seen}."""

    before: int | None
    since: int
    timing: Timing | None = None
    restarted: tuple[int, ...] | None = None

    @property
    def begun(self) -> int:
        """When it has begun that, at the earliest that is known."""
        return self.since if self.before is None else self.before


@define
class Seen:
    """
    What is known of one thread.

    @ivar ran: its counters, see L{chanproxy.adopt.threads.timesRun}.
    @ivar looked: nanoseconds (C{CLOCK_MONOTONIC}) of the last look at them.
    @ivar before: nanoseconds; it has begun what it waits for now after that.  None: not known.
    @ivar since: nanoseconds; and before that.
    @ivar timing: what it was last seen to wait for, if that ends by itself.
    @ivar period: nanoseconds after which it comes back as a habit, on average; 0 for none.
    @ivar held: it has been thawed, and has not run since.
    @ivar sighted: nanoseconds of the last round in which it was found waiting; 0: there was none.
    @ivar earlier: what it waited for then, if it was found in no call at each look since; None: it
        was.
    @ivar switches: how often it had waited then; -1: it was not asked for.
    @ivar restarted: the arguments of a call that the kernel has restarted, which was seen only so;
        None: it is in no such call.
    @ivar calm: C{ran} when it was last found to wait in a way that a freeze does no harm to.
    @ivar onlyTime: whether it waited for nothing but time then.
    @ivar descriptors: what it waited on then.
    """

    ran: tuple[int, int]
    looked: int
    before: int | None
    since: int
    timing: Timing | None = None
    period: int = 0
    held: bool = False
    sighted: int = 0
    earlier: Waited | None = None
    switches: int = -1
    restarted: tuple[int, ...] | None = None
    calm: tuple[int, int] | None = None
    onlyTime: bool = False
    descriptors: tuple[int, ...] = ()
    _mark: _Mark | None = None
    _returns: int = 0
    _lengths: deque[int] = field(factory=lambda: deque(maxlen=_KEPT))
    _ranBefore: int | None = None
    _rest: int | None = None
    _ends: _Ends | None = None
    _partly: bool = False
    _step: int = 0
    _work: int = WORK

    @property
    def begun(self) -> int:
        """When it has begun what it waits for now, at the earliest that is known."""
        return self.waited.begun

    @property
    def waited(self) -> Waited:
        """What it was last found to wait for."""
        return self.earlier or Waited(self.before, self.since, self.timing, self.restarted)

    def goesOn(self, waited: Waited) -> None:
        """It still waits for that."""
        self.before, self.since = waited.before, waited.since
        self.timing, self.restarted = waited.timing, waited.restarted

    def isHabit(self, timing: Timing) -> bool:
        """Whether a time is one of those after which the thread comes back as a habit."""
        if not self.period or self.timing is None or not self.timing.isLike(timing):
            return False
        if self._partly and self._isPart(timing):
            return True
        kept = self._usual()
        shortest, longest = min(kept), max(kept)
        if timing.length is not None:
            least = most = timing.length
        else:
            assert timing.end is not None
            least, most = timing.end - self.since, timing.end - self.begun
        low, high = shortest * (1 - NEAR) - _GRAIN, longest * (1 + NEAR) + _GRAIN
        return most >= low and least <= high

    def _isPart(self, timing: Timing) -> bool:
        last = self.timing
        if last is None or timing.length is None:
            return last is not None and timing.isSame(last)
        return timing.length == last.length

    def isStill(self, timing: Timing) -> bool:
        """Whether it is the same wait as before, which a freeze or a loop has begun anew."""
        rest, self._rest = self._rest, None
        last = self.timing
        if last is None or not timing.isLike(last):
            return False
        return timing.isRest(rest) or timing.isSame(last)

    def _endsOf(self, timing: Timing | None) -> _Ends | None:
        if timing is None:
            return None
        if timing.length is None:
            end = timing.end or 0
            return _Ends(0, end, end)
        return _Ends(timing.length, self.begun + timing.length, self.since + timing.length)

    def _asksForRest(self, before: _Ends | None) -> bool:
        """
        Whether what it asks for now is less, and over when what it asked for before would have
        been.

        Many loops do that when something interrupts them, and a freeze is such a thing.
        """
        now = self._ends
        if now is None or before is None or now.length > before.length - _GRAIN:
            return False
        # Some ask for whole milliseconds, rounded up.
        first, last = max(now.first, before.first), min(now.last, before.last)
        if first > last + _GRAIN:
            return False
        self._ends = _Ends(now.length, min(first, last), max(first, last))
        return True

    def _stepsFrom(self, before: _Ends | None) -> int:
        """
        How many steps of a tick at a fixed rate are from the end of its last wait to that of this.

        Whoever has slept through some of them asks for what is left until the next.

        @return: 0, when that is no instant of such a tick.
        """
        now = self._ends
        if now is None or before is None:
            return 0
        # What an instant is told for, is told exactly; otherwise, each time is a little shorter.
        step = max(self._usual(), default=0) if now.length else self._step
        if step <= 0 or now.last - self.since > step + _GRAIN:
            return 0
        slack = (now.last - now.first + before.last - before.first) // 2 + _GRAIN
        passed = (now.first + now.last - before.first - before.last) // 2
        count = (passed + step // 2) // step
        if count < 1:
            return 0
        slack += count * _SAME
        off = abs(passed - count * step)
        return count if off <= slack <= step // _FREE else 0

    def stopped(self) -> None:
        """Its counters were moved by a freeze; a habit stays one."""
        self._mark = None
        self._ranBefore = self.ran[0]

    def written(self, rest: int) -> None:
        """It waits again for what was left of its time, nanoseconds: that is no other wait."""
        self._rest = rest

    def sleptUntil(self) -> None:
        """The container slept until the end of what this thread waits for."""
        timing = self.timing
        if timing is not None:
            length = timing.length
            self._gain((timing.end or 0) - self.begun if length is None else length, 1)

    def disturbed(self) -> None:
        """Something else than time has woken the container: what was no habit yet is none."""
        if not self.period:
            self._lose()

    def _gain(self, length: int, returns: int) -> None:
        self._returns += returns
        self._lengths.append(length)
        kept = self._usual()
        self.period = sum(kept) // len(kept) if kept else 0

    def _usual(self) -> list[int]:
        """The lengths of a habit's times; none as long as it is no habit."""
        kept = list(self._lengths)
        latest = kept[-RETURNS:]
        if self._returns >= MIXED and len(kept) >= MIXED // 2:
            return kept
        same = len(latest) > 1 and max(latest) <= min(latest) * (1 + NEAR) + _GRAIN
        return latest if same and self._returns >= RETURNS else []

    def _lose(self) -> None:
        self.period = self._returns = 0
        self._lengths.clear()

    def returned(self, timing: Timing | None, switches: int) -> None:
        """It has run, and waits again."""
        last, self.timing = self.timing, timing
        mark, self._mark = self._mark, None
        ran = None if self._ranBefore is None else self.ran[0] - self._ranBefore
        self._ranBefore = None
        ends, self._ends = self._ends, self._endsOf(timing)
        self._partly = False
        work, self._work = self._work, self._workFor(timing)
        steps = self._stepsFrom(ends) if self.period and ran is not None else 0
        count = 1
        if timing is None or last is None or not timing.isLike(last):
            self._lose()
        elif self.period and self._asksForRest(ends):
            self._partly = True
            return
        elif ran is not None and ran > work * max(steps, 1):
            self._lose()
        elif mark is not None:
            count = switches - mark.switches
            if count <= 0:
                self._mark = mark
                return
            byTime = self._cameByTime(last, mark, count)
            if byTime is False or self.ran[0] - mark.ran > work * count:
                self._lose()
            elif byTime:
                both = None in (timing.end, last.end)
                length = last.length if both else ((timing.end or 0) - (last.end or 0)) // count
                self._gain(length or 0, count)
        if timing is not None and self.period and not self.isHabit(timing):
            if steps:
                self._partly = True
            else:
                self._lose()
        if ends is not None and self._ends is not None and not steps:
            self._step = (self._ends.last - ends.last) // count
        if timing is not None and self.before is not None:
            self._mark = _Mark(self.before, self.since, switches, self.ran[0])

    def _workFor(self, timing: Timing | None) -> int:
        """Nanoseconds that it may run when such a time has come, for a habit."""
        if timing is None:
            return WORK
        length = (timing.end or 0) - self.begun if timing.length is None else timing.length
        return LITTLE if length >= LONG else WORK

    def _cameByTime(self, last: Timing, mark: _Mark, count: int) -> bool | None:
        """
        Whether its time has brought it back, as far as the bounds tell.

        @return: None, if it may have been time or something else.
        """
        assert self.before is not None
        if last.end is not None:
            least = most = last.end
        else:
            assert last.length is not None
            least, most = mark.before + last.length, mark.since + last.length
        if self.since < least - _GRAIN:
            return False
        if count == 1:
            return self.before <= most + _LATE
        # Others went by since that one: they had this much time, all together.
        usual = sum(self._lengths) / len(self._lengths) if self._lengths else last.length or 0
        return self.since - least >= (count - 1) * usual * _LEAST or None
