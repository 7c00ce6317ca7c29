"""
Observer: what is seen of a container's threads while they run: since when each of them waits, and
which of them come back by themselves, again and again, with nothing to do.

Looks at counters of the kernel's, and at a thread only if it has run since the last look.  Knows
nothing of freezing, and not what any of this is good for.
"""

from __future__ import annotations

import time

from attrs import define, frozen

from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.decode import Clock, NotWaiting, Wait, decode, mayWait
from chanproxy.adopt.processors import Processor
from chanproxy.adopt.restarted import Restarted
from chanproxy.adopt.socketlimits import RECEIVING, limitIn
from chanproxy.adopt.threads import (
    Glance,
    Position,
    isInFreezer,
    position,
    switchesOf,
    timesRun,
)

RETURNS = 3
"""As often a thread has to come back in a row before that is called a habit."""

NEAR = 0.35
"""How much of its usual length the time of a habit may differ by."""

WORK = 2_000_000
"""Nanoseconds that a thread may run at a time and still have next to nothing to do."""

_WINDOW = 16
"""
Looks after which older ones are forgotten.  Not returns: of a fast tick there are many between two
looks, and how long they took is known only as exactly as the looks are apart.
"""

_NEVER = (-1, -1)

_GRAIN = 5_000_000
"""Nanoseconds by which a time may be longer than asked for: kernels and timers round up."""


_ROUNDED = 2000
"""Nanoseconds by which what is left may differ: select(2) counts microseconds."""

_SAME = 1_000_000
"""Nanoseconds by which one instant may differ when it is looked at by two clocks, twice."""


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
    """A moment in a row of returns: when, by bounds, the counters then, and which look it was."""

    before: int
    since: int
    switches: int
    ran: int
    look: int


@frozen
class _Ends:
    """How long a wait is, and when it is over, by bounds."""

    length: int
    first: int
    last: int


@define
class Seen:
    """
    What is known of one thread.

    @ivar held: it has been thawed, and has not run since.
    @ivar switches: how often it had waited then; -1: it was not asked for.
    @ivar calm: C{ran} when it was last found to wait in a way that a freeze does no harm to.
    @ivar onlyTime: whether it waited for nothing but time then.
    @ivar descriptors: what it waited on then.

    @ivar ran: its counters, see L{timesRun}.
    @ivar looked: nanoseconds (C{CLOCK_MONOTONIC}) of the last look at them.
    @ivar before: nanoseconds; it has begun what it waits for now after that.  None: not known.
    @ivar since: nanoseconds; and before that.
    @ivar timing: what it was last seen to wait for, if that ends by itself.
    @ivar period: nanoseconds after which it comes back as a habit; 0 for none.
    """

    ran: tuple[int, int]
    looked: int
    before: int | None
    since: int
    timing: Timing | None = None
    period: int = 0
    held: bool = False
    switches: int = -1
    calm: tuple[int, int] | None = None
    onlyTime: bool = False
    descriptors: tuple[int, ...] = ()
    _looks: int = 0
    _first: _Mark | None = None
    _middle: _Mark | None = None
    _slept: tuple[Timing, int] | None = None
    _rest: int | None = None
    _ends: _Ends | None = None
    _partly: bool = False

    @property
    def begun(self) -> int:
        """When it has begun what it waits for now, at the earliest that is known."""
        return self.since if self.before is None else self.before

    def isHabit(self, timing: Timing) -> bool:
        """Whether a time is the one after which the thread comes back as a habit."""
        if not self.period or self.timing is None or not self.timing.isLike(timing):
            return False
        if self._partly and timing.length == self.timing.length:
            return True
        return self._isNear(timing, self.period, self.period)

    def _endsOf(self, timing: Timing | None) -> _Ends | None:
        """None for a wait that does not count from its beginning."""
        if timing is None or timing.length is None:
            return None
        return _Ends(timing.length, self.begun + timing.length, self.since + timing.length)

    def isStill(self, timing: Timing) -> bool:
        """Whether it is the same wait as before, which a freeze or a loop has begun anew."""
        rest, self._rest = self._rest, None
        last = self.timing
        if last is None or not timing.isLike(last):
            return False
        return timing.isRest(rest) or timing.isSame(last)

    def _isNear(self, timing: Timing, least: float, most: float) -> bool:
        """Whether a time is about as long as a period that is known by bounds."""
        if timing.length is not None:
            shortest = longest = timing.length
        else:
            assert timing.end is not None
            shortest = timing.end - self.since
            longest = timing.end - self.begun
        low, high = least * (1 - NEAR) - _GRAIN, most * (1 + NEAR) + _GRAIN
        return longest >= low and shortest <= high

    def stopped(self) -> None:
        """Its counters were moved by a freeze; a habit stays one."""
        self._first = self._middle = None

    def goesOn(self, rest: int) -> None:
        """It waits again for what was left of its time, nanoseconds: that is no other wait."""
        self._rest = rest

    def sleptFor(self, timing: Timing | None) -> None:
        """
        The container slept until the end of what it waits for; None: until something else.

        So many times in a row, that is a habit, too.
        """
        if timing is None or timing.length is None:
            self._slept = None
            return
        before = self._slept
        count = 1
        if before is not None and before[0].isLike(timing) and before[0].length is not None:
            count += before[1] if _near(timing.length, before[0].length) else 0
        self._slept = (timing, count)
        if count >= RETURNS:
            self.period = timing.length

    def returned(self, timing: Timing | None, switches: int) -> None:
        """It has run, and waits again."""
        last, self.timing = self.timing, timing
        ends, self._ends = self._ends, self._endsOf(timing)
        self._partly = False
        if timing is None or self.before is None or last is None or not timing.isLike(last):
            self.period = 0
            self.stopped()
        if timing is None or self.before is None:
            return
        self._looks += 1
        mark = _Mark(self.before, self.since, switches, self.ran[0], self._looks)
        if self.period and self._asksForRest(ends):
            self.stopped()
            return
        if self.period and not self.isHabit(timing):
            self.stopped()
            self.period = 0
        if self._first is None:
            self._first = mark
            return
        count = mark.switches - self._first.switches
        if count <= 0:
            return
        least = max(mark.before - self._first.since, 0) / count
        most = (mark.since - self._first.before) / count
        if not self._isNear(timing, least, most):
            # Another thing than time has brought it back meanwhile, or it asks for another time.
            self.period = 0
            self._first, self._middle = mark, None
            return
        idle = (mark.ran - self._first.ran) / count <= WORK
        # Both bounds have to agree, so a short period takes more returns.
        sure = count >= RETURNS and most <= least * (1 + 2 * NEAR)
        if sure and idle and self._isNear(timing, most, least):
            self.period = timing.length or round((least + most) / 2)
        elif not idle:
            self.period = 0
        looks = mark.look - self._first.look
        if looks >= _WINDOW and self._middle is not None:
            self._first, self._middle = self._middle, mark
        elif self._middle is None and looks >= _WINDOW // 2:
            self._middle = mark

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
        self._partly = first <= last + _GRAIN
        if self._partly:
            self._ends = _Ends(now.length, min(first, last), max(first, last))
        return self._partly


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= other * NEAR + _GRAIN


class Observer:
    """One container's threads."""

    def __init__(self, processor: Processor, restarted: Restarted) -> None:
        self._processor = processor
        self._restarted = restarted
        self._seen: dict[int, dict[int, Seen]] = {}
        self._looked = 0

    def of(self, pid: int, tid: int) -> Seen | None:
        """What is known of a thread."""
        return self._seen.get(pid, {}).get(tid)

    def keepOnly(self, pids: set[int]) -> None:
        """Forget processes that are gone."""
        for pid in [pid for pid in self._seen if pid not in pids]:
            del self._seen[pid]

    def keepThreads(self, pid: int, tids: set[int]) -> None:
        """Forget threads that are gone."""
        seen = self._seen.get(pid, {})
        for tid in [tid for tid in seen if tid not in tids]:
            del seen[tid]

    def resumed(self, by: tuple[int, int] | None) -> None:
        """
        The container runs again, after a freeze.

        @param by: the process and thread for whose time that was; None: it was for something else.
        """
        self._looked = time.monotonic_ns()
        for pid, threads in self._seen.items():
            for tid, seen in threads.items():
                seen.stopped()
                if by is None or by == (pid, tid):
                    seen.sleptFor(None if by is None else seen.timing)

    def look(self, pid: int, tid: int, memory: Glance, clock: Clock, now: int) -> Seen:
        """
        Look at a thread.

        @param memory: the process's.
        @param clock: the process's.
        @param now: nanoseconds (C{CLOCK_MONOTONIC}) when this round of looks began.
        @return: what is known of it now.
        @raise Gone: there is no such thread.
        @raise OSError: we may not look into it.
        """
        threads = self._seen.setdefault(pid, {})
        seen = threads.get(tid)
        ran = timesRun(pid, tid)
        if seen is not None and seen.ran == ran:
            return seen
        if isInFreezer(pid, tid):
            # What it waits for begins only when it runs.
            seen = seen or Seen(_NEVER, now, None, now)
            seen.held = True
            return seen
        # It may have run until it was looked at, which is later than the round began.
        since = time.monotonic_ns()
        begun = None if seen is None else (seen.before, seen.since)
        if seen is None:
            seen = threads[tid] = Seen(ran, now, self._looked or None, since)
        else:
            seen.before = max(seen.looked, self._looked)
            seen.ran, seen.looked, seen.since, seen.held = ran, now, since, False
        where = position(pid, tid)
        if where is None:
            # One that runs at this moment shows what it waits for the next time.
            return seen
        timing = self._timingOf(where, memory, clock)
        still = timing is not None and seen.isStill(timing)
        if begun is not None and (still or self._goesOn(pid, tid, where, seen)):
            seen.before, seen.since = begun
            return seen
        seen.switches = switchesOf(pid, tid) if timing is not None else -1
        seen.returned(timing, seen.switches)
        return seen

    def _goesOn(self, pid: int, tid: int, where: Position, seen: Seen) -> bool:
        """Whether it is in the same call as before, which the kernel has restarted."""
        if self._processor.name(where.number) != RESTART or seen.timing is None:
            return False
        known = self._restarted.of(pid, tid, where.arguments)
        return known is not None and known.name == seen.timing.call

    def roundDone(self, now: int) -> None:
        """Each thread has been looked at in the round that began then."""
        self._looked = now

    def _timingOf(self, where: Position, memory: Glance, clock: Clock) -> Timing | None:
        name = self._processor.name(where.number)
        if where.number < 0 or not mayWait(name):
            return None
        try:
            wait = decode(name, where.arguments, memory.read, clock)
            if name in RECEIVING:
                limit = limitIn(memory.pidfd, wait.descriptors[0][0], name)
                wait = wait if limit is None else wait.limited(limit)
        except (NotWaiting, OSError):
            return None
        return Timing.of(wait, where.arguments[0], time.monotonic_ns())
