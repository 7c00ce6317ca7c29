"""Observing: what of a thread's comings back is a habit, made up and on real threads."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from chanproxy.adopt.deadlines import IGNORE
from chanproxy.adopt.habits import MIXED as MIXED_RETURNS
from chanproxy.adopt.habits import WORK, Seen, Timing
from chanproxy.adopt.threads import Glance, Position, clockOf, position, timesRun
from tests.shared.frozen import Subject, needsCgroup, until, waits

pytestmark = pytest.mark.punctual

MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND

bounded = settings(database=None, max_examples=60)

LITTLE = MILLISECOND // 20
"""Nanoseconds that a thread runs with next to nothing to do."""


@frozen
class Return:
    """
    A thread comes back, and waits again.

    @ivar at: nanoseconds.
    @ivar timing: what it waits for from then on.
    @ivar ran: nanoseconds that it has run for that.
    """

    at: int
    timing: Timing | None
    ran: int = LITTLE


def relative(length: float, argument: int = 3, call: str = "epoll_wait") -> Timing:
    """A wait for so many seconds."""
    return Timing(call, argument, round(length * SECOND), None)


def absolute(end: int, argument: int = 0x1000) -> Timing:
    """A wait for an instant, nanoseconds."""
    return Timing("futex", argument, None, end)


class Watched:
    """
    What is known of a thread that comes back as it is told, looked at now and then.

    @ivar periods: what was known of its habit after each look.
    """

    def __init__(self) -> None:
        self.seen = Seen((0, 0), 0, None, 0)
        self.periods: list[int] = []
        self._returns: list[Return] = []
        self._known = self._looked = self._switches = self._ran = 0

    def look(self, at: int) -> None:
        """As the observer does."""
        count = self._known
        while count < len(self._returns) and self._returns[count].at <= at:
            self._ran += self._returns[count].ran
            count += 1
        if count > self._known:
            timing = self._returns[count - 1].timing
            self.seen.looked, self.seen.ran = at, (self._ran, count)
            if timing is None or not self.seen.isStill(timing):
                self.seen.before = self._looked if self._known else None
                self.seen.since = at + LITTLE
                self.seen.returned(timing, self._switches + count)
            self._known = count
        self._looked = at
        self.periods.append(self.seen.period)

    def run(
        self, returns: Sequence[Return], interval: float = 0.125, freezes: Sequence[float] = ()
    ) -> Watched:
        """
        From the first to a moment after the last, with looks so many seconds apart.

        @param freezes: seconds; it is looked at, and frozen for a moment.
        """
        self._returns += returns
        at = max(self._looked, self._returns[0].at)
        left = sorted(round(freeze * SECOND) for freeze in freezes)
        while at <= self._returns[-1].at + interval * SECOND:
            at += round(interval * SECOND)
            while left and left[0] < at:
                self.look(left.pop(0))
                self.froze()
            self.look(at)
        return self

    def froze(self) -> None:
        """It was frozen and thawed, which moves its counters."""
        self._switches += 1
        self.seen.stopped()


def ticks(length: float, count: int, begin: float = 1.0, ran: int = LITTLE) -> list[Return]:
    """A loop that asks for the same again and again."""
    every = [round((begin + length * index) * SECOND) for index in range(count)]
    return [Return(at, relative(length), ran) for at in every]


class TestHabits:
    """Steady ticks, and only those."""

    @bounded
    @given(st.floats(0.002, 8.0), st.floats(0.01, 0.2))
    def test_steady(self, length: float, interval: float) -> None:
        """However long, and however often it is looked at: a habit, of its own length."""
        watched = Watched().run(ticks(length, max(8, int(4 / length))), interval)
        assert watched.seen.period == round(length * SECOND)
        assert watched.seen.isHabit(relative(length))
        assert not watched.seen.isHabit(relative(length, argument=4))
        assert not watched.seen.isHabit(relative(length * 2 + 0.1))
        # What somebody may wait for is none: not before it has come back three times.
        assert watched.periods[0] == 0

    @bounded
    @given(st.floats(0.01, 4.0))
    def test_absolute(self, length: float) -> None:
        """For an instant each time."""
        every = [
            SECOND + round(length * SECOND * index) for index in range(max(8, int(4 / length)))
        ]
        watched = Watched().run([Return(at, absolute(at + round(length * SECOND))) for at in every])
        assert watched.seen.period == pytest.approx(length * SECOND, rel=0.5)
        assert watched.seen.isHabit(absolute(every[-1] + round(length * SECOND)))
        assert not watched.seen.isHabit(absolute(every[-1] + round(10 * length * SECOND + SECOND)))

    @bounded
    @given(st.floats(0.3, 8.0))
    def test_threeTimes(self, length: float) -> None:
        """Once or twice is no habit."""
        assert Watched().run(ticks(length, 3)).seen.period == 0
        assert Watched().run(ticks(length, 6)).seen.period == round(length * SECOND)

    def test_firstLook(self) -> None:
        """Since when it waits is not known at the first look: that counts for nothing."""
        seen = Seen((0, 0), 0, None, SECOND)
        seen.returned(relative(1), 1)
        assert (seen.begun, seen.period) == (SECOND, 0)
        seen.before = SECOND // 2
        assert seen.begun == SECOND // 2


class TestNone:
    """What looks like a habit, and is none."""

    @bounded
    @given(
        st.lists(st.tuples(st.floats(0.4, 5.0), st.floats(0.3, 3.0)), min_size=6, max_size=12),
    )
    def test_requestAndTimer(self, cycles: list[tuple[float, float]]) -> None:
        """A request comes, and a timer is set for its answer; in between it waits for ever."""
        at, returns = 1.0, []
        for quiet, timer in cycles:
            returns.append(Return(round(at * SECOND), relative(timer)))
            returns.append(Return(round((at + timer) * SECOND), None))
            at += timer + quiet
        assert set(Watched().run(returns).periods) == {0}

    @bounded
    @given(st.floats(0.4, 2.0), st.floats(0.5, 4.0), st.integers(4, 12))
    def test_timerBesideATick(self, timer: float, tick: float, count: int) -> None:
        """The same timer for each request, in a loop that has a tick as well."""
        if 0.6 < timer / tick < 1.7:
            tick *= 4
        at, returns = 1.0, []
        for _ in range(count):
            returns.append(Return(round(at * SECOND), relative(timer)))
            returns.append(Return(round((at + timer) * SECOND), relative(tick)))
            # The next request comes before the tick.
            at += timer + tick * 0.3
        assert set(Watched().run(returns).periods) == {0}

    @bounded
    @given(st.floats(0.3, 3.0))
    def test_work(self, length: float) -> None:
        """What it does each time is more than next to nothing."""
        returns = ticks(length, 12, ran=2 * WORK)
        assert set(Watched().run(returns).periods) == {0}

    def test_beginsToWork(self) -> None:
        """A habit in which there is work by and by is none any more."""
        watched = Watched().run(ticks(0.5, 8))
        assert watched.seen.period
        watched.run(ticks(0.5, 12, 5.0, 10 * WORK))
        assert watched.seen.period == 0

    @bounded
    @given(st.lists(st.sampled_from([0.3, 1.0, 2.5, 8.0]), min_size=4, max_size=MIXED_RETURNS))
    def test_severalLengths(self, lengths: list[float]) -> None:
        """Never the same twice: several timers of one loop, for a while."""
        different = [
            one for one, other in zip(lengths, [*lengths[1:], 0.0], strict=True) if one != other
        ]
        begins = list(accumulate(different, initial=1.0))
        returns = [
            Return(round(at * SECOND), relative(length))
            for at, length in zip(begins, different, strict=False)
        ]
        assert set(Watched().run(returns).periods) == {0}

    def test_disturbed(self) -> None:
        """The same time again and again, but something else comes before it is over."""
        returns = [Return(each.at // 3, each.timing) for each in ticks(3.0, 12)]
        assert set(Watched().run(returns).periods) == {0}

    def test_anotherCall(self) -> None:
        """Another call, or for something else."""
        for other in (relative(0.5, 4), relative(0.5, 3, "poll"), None):
            watched = Watched().run(ticks(0.5, 8))
            assert watched.seen.period
            watched.run([Return(round(5.1 * SECOND), other)])
            assert watched.seen.period == 0


class TestFreezes:
    """What a freeze does to it."""

    def test_survives(self) -> None:
        """A habit stays one through freezes, and ends when another time is asked for."""
        watched = Watched().run(ticks(0.5, 8))
        for begin in (10.0, 30.0):
            watched.froze()
            watched.run(ticks(0.5, 2, begin))
            assert watched.seen.period == SECOND // 2
            assert watched.seen.isHabit(relative(0.5))
        watched.froze()
        watched.run([Return(50 * SECOND, relative(2.0))])
        assert watched.seen.period == 0

    def test_beginsAnew(self) -> None:
        """Returns before a wake for something else and after it do not make one together."""
        watched = Watched()
        for begin in (1.0, 5.0, 9.0, 13.0):
            watched.run(ticks(1.0, 2, begin))
            watched.froze()
            watched.seen.disturbed()
        assert set(watched.periods) == {0}

    def test_severalTicks(self) -> None:
        """One thread with several ticks comes back often enough to be sure of it."""
        lengths = [0.3, 0.3, 0.3, 0.1, 0.2, 0.3, 0.3, 0.2] * 4
        begins = accumulate(lengths, initial=1.0)
        returns = [
            Return(round(at * SECOND), relative(length))
            for at, length in zip(begins, lengths, strict=False)
        ]
        watched = Watched().run(returns)
        assert watched.seen.period
        assert watched.seen.isHabit(watched.seen.timing or relative(0))
        assert not watched.seen.isHabit(relative(1.0))

    def test_goesOn(self) -> None:
        """What is left of a time is that time: the habit stays, and with it its length."""
        watched = Watched().run(ticks(0.5, 8))
        watched.seen.written(200 * MILLISECOND)
        watched.froze()
        # The kernel shows it by microseconds, rounded.
        rest = Timing("epoll_wait", 3, 200 * MILLISECOND + 900, None)
        watched.run([Return(10 * SECOND, rest)])
        assert watched.seen.period == SECOND // 2
        assert watched.seen.timing == relative(0.5)
        # Only once: the same is another time when it was not written by us.
        watched.run([Return(20 * SECOND, rest)])
        assert watched.seen.timing == rest
        assert watched.seen.period == 0

    @bounded
    @given(st.floats(0.05, 0.95), st.floats(0.5, 8.0))
    def test_asksForTheRest(self, share: float, length: float) -> None:
        """Interrupted, it asks for what is left of the same time, and then for the whole again."""
        last = 1 + 5 * length
        froze = last + length * share
        rest = Return(round(froze * SECOND) + LITTLE, relative(length * (1 - share)))
        more = ticks(length, 2, last + length)
        watched = Watched().run([*ticks(length, 6), rest, *more], freezes=[froze])
        found = watched.periods.index(round(length * SECOND))
        assert set(watched.periods[found:]) == {round(length * SECOND)}
        assert not watched.seen.isHabit(relative(length / 3))

    def test_restIsAHabit(self) -> None:
        """What is left counts as the whole; the same time in another call does not."""
        rest = Return(round(6.8 * SECOND), relative(0.2))
        watched = Watched().run([*ticks(1.0, 6), rest], freezes=[6.75])
        assert watched.seen.period == SECOND
        assert watched.seen.timing == relative(0.2)
        assert watched.seen.isHabit(relative(0.2))
        assert not watched.seen.isHabit(relative(0.21))
        assert not watched.seen.isHabit(relative(0.2, 4))

    @bounded
    @given(st.floats(0.5, 4.0), st.floats(0.1, 0.9), st.integers(3, 20), st.booleans())
    def test_fixedRate(self, step: float, share: float, slept: int, instants: bool) -> None:
        """It has slept through some of its instants, and asks for what is left until the next."""
        begins = [1 + step * index for index in range(8)]

        def asked(at: float, until: float) -> Timing:
            return absolute(round(until * SECOND)) if instants else relative(until - at)

        watched = Watched().run(
            [Return(round(at * SECOND), asked(at, at + step)) for at in begins], step / 50
        )
        period = watched.seen.period
        assert period == pytest.approx(step * SECOND, rel=0.1)
        for begin in (begins[-1], begins[-1] + step * (slept + 1)):
            watched.froze()
            woken = begin + step * (slept + share)
            rest = asked(woken, begin + step * (slept + 1))
            # It makes good for all of them.
            # When a wait for an instant began is known by a fiftieth of its step.
            work = WORK // 2 if step * 1.02 < 2 else LITTLE
            watched.run([Return(round(woken * SECOND), rest, work * slept)], step / 50)
            assert watched.seen.period
            assert watched.seen.isHabit(rest)

    @bounded
    @given(st.floats(0.3, 0.45), st.integers(3, 20))
    def test_notItsRate(self, off: float, slept: int) -> None:
        """What is over between two of its instants is another time."""
        for instants in (False, True):
            ends = [2 + index for index in range(8)]
            returns = [
                Return((end - 1) * SECOND, absolute(end * SECOND) if instants else relative(1.0))
                for end in ends
            ]
            watched = Watched().run(returns)
            watched.froze()
            woken, end = ends[-1] + slept, ends[-1] + slept + off
            other = absolute(round(end * SECOND)) if instants else relative(off)
            watched.run([Return(woken * SECOND, other)])
            assert watched.seen.period == 0

    @bounded
    @given(st.floats(0.05, 0.45), st.floats(2.0, 8.0))
    def test_asksForLess(self, share: float, length: float) -> None:
        """Interrupted, it asks for a time that is over much before, or after: something else."""
        froze = 1 + length * (5 + share)
        for other in (length * (1 - share) - 0.6, length * 1.5, length * 0.1):
            rest = Return(round(froze * SECOND) + LITTLE, relative(other))
            watched = Watched().run([*ticks(length, 6), rest], freezes=[froze])
            usual = 0.6 * length < other < 1.4 * length
            assert usual or watched.seen.period == 0

    def test_sameInstant(self) -> None:
        """A wait for an instant that is begun anew, for the same, began when it first did."""
        watched = Watched()
        ends = [SECOND * (index + 1) for index in range(1, 8)]
        watched.run([Return(end - SECOND, absolute(end)) for end in ends])
        assert watched.seen.period == pytest.approx(SECOND, rel=0.3)
        period, begun = watched.seen.period, watched.seen.begun
        for part in (3, 6, 9):
            watched.froze()
            again = absolute(ends[-1] + 50_000)
            watched.run([Return(ends[-2] + part * SECOND // 10, again)])
            assert (watched.seen.period, watched.seen.begun) == (period, begun)
            assert watched.seen.isHabit(again)

    def test_sleptUntil(self) -> None:
        """So often in a row it slept until nearly the same time: that is a habit, too."""
        seen = Seen((0, 0), 0, None, 0)
        for length in (0.9, 1.0):
            seen.timing = relative(length)
            seen.sleptUntil()
            assert seen.period == 0
        # Something else wakes it in between.
        seen.disturbed()
        for length in (1.0, 0.9, 3.0, 1.1, 0.9):
            seen.timing = relative(length)
            seen.sleptUntil()
            assert seen.period == 0
        seen.timing = relative(1.0)
        seen.sleptUntil()
        assert seen.period == SECOND
        assert seen.isHabit(relative(1.0))
        seen.disturbed()
        assert seen.isHabit(relative(1.0))


EPOLL = "import select; e = select.epoll()\nwhile True: e.poll(0.05)"
FUTEX = "import threading; e = threading.Event()\nwhile True: e.wait(0.05)"
SELECT = "import os, select; r = os.pipe()[0]\nwhile True: select.select([r], [], [], 0.05)"
MIXED = """
import select; e = select.epoll()
while True:
    for pause in (0.05, 0.15, 0.4): e.poll(pause)
"""
WORKING = """
import select, time; e = select.epoll()
while True:
    e.poll(0.05); end = time.thread_time() + 0.005
    while time.thread_time() < end: pass
"""


class Looking:
    """Rounds of looks at the first thread of a process that runs."""

    def __init__(self, subject: Subject, timeouts: float = IGNORE) -> None:
        self.pid = subject.pid
        self.inspector = subject.inspector(timeouts)
        self.observer = self.inspector._times.observer
        self._memory = Glance(subject.pid)

    def look(self) -> Seen:
        """One round."""
        now = time.monotonic_ns()
        clock = clockOf(self.pid)
        seen, _ = self.observer.look(self.pid, self.pid, self._memory, clock, now)
        self.observer.roundDone(now)
        return seen

    def periods(self, seconds: float) -> Iterator[int]:
        """What is known of its habit, again and again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield self.look().period
            time.sleep(0.02)

    def end(self, subject: Subject) -> float:
        """It is frozen: when its wait is over, by CLOCK_MONOTONIC, seconds."""
        within = subject.freeze().look(self.inspector).within()
        assert within is not None
        return time.monotonic() + within

    def __enter__(self) -> Looking:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()


@contextlib.contextmanager
def silent(kind: str) -> Iterator[tuple[Subject, Looking]]:
    """One that waits for twenty seconds, or for what never comes."""
    ours, its = socket.socketpair()
    with (
        ours,
        its,
        waits(kind, its.fileno(), 20_000) as subject,
        Looking(subject, 10.0) as looking,
    ):
        assert subject.line() == "ready"
        yield subject, looking


class Due:
    """The end of a wait of twenty seconds, which has begun by now, and some time before that."""

    def __init__(self, began: float) -> None:
        """@param began: when it had not begun yet."""
        self._least, self._most = began + 20, time.monotonic() + 20

    def near(self, end: float) -> bool:
        """Whether it may be that."""
        return self._least - 0.2 <= end <= self._most + 0.2


class TestThreads:
    """Real ones."""

    pytestmark = needsCgroup

    @pytest.mark.parametrize("code", [EPOLL, FUTEX, SELECT])
    def test_tick(self, code: str) -> None:
        """Each way to wait again and again becomes a habit, and is one again after a freeze."""
        with Subject([sys.executable, "-c", code]) as subject, Looking(subject) as looking:
            until(lambda: looking.look().period)
            assert looking.look().period == pytest.approx(50 * MILLISECOND, rel=0.5)
            for _ in range(3):
                subject.freeze().look(looking.inspector)
                subject.thaw()
                looking.observer.resumed(None, disturbed=True)
                # It may have turned between the look and the freeze, and then begins anew.
                until(lambda: looking.look().period)
            # A machine that has others to serve may make it late, and then it begins anew.
            until(lambda: all(looking.periods(0.5)))

    @pytest.mark.parametrize("code", [MIXED, WORKING])
    def test_none(self, code: str) -> None:
        """Several times in turn, or work in between."""
        with Subject([sys.executable, "-c", code]) as subject, Looking(subject) as looking:
            until(lambda: looking.look().timing)
            assert not any(looking.periods(1.5))

    def test_still(self) -> None:
        """A thread that only waits is asked for its counters, and known to wait since then."""
        with waits("sleep", number=60_000) as subject, Looking(subject) as looking:
            assert subject.line() == "ready"
            subject.waitFor("clock_nanosleep")
            first = looking.look()
            # It may have waited since it began to live.
            assert first.before is not None
            assert 0 <= first.since - first.before < 10 * SECOND
            assert first.timing is not None
            assert first.timing.length == 60 * SECOND
            since = first.since
            assert looking.look() is first
            assert first.since == since

    def test_beganBefore(self) -> None:
        """A wait whose end has to be told by us counts from when it began, not from our look."""
        code = "import select; e = select.epoll(); print('ready', flush=True); e.poll(60)"
        with Subject([sys.executable, "-c", code]) as subject, Looking(subject) as looking:
            assert subject.line() == "ready"
            subject.waitFor("epoll_wait")
            began = time.monotonic_ns()
            time.sleep(0.3)
            assert looking.look().since < began + SECOND // 10

    @pytest.mark.parametrize("kind", ["sleep", "sleepagain"])
    def test_overwritten(self, kind: str) -> None:
        """The kernel may write what is left to where the time stands: it is over when it was."""
        began = time.monotonic()
        with waits(kind, number=20_000) as subject, Looking(subject, 10.0) as looking:
            assert subject.line() == "ready"
            subject.waitFor("clock_nanosleep")
            due = Due(began)
            looking.look()
            for _ in range(3):
                time.sleep(0.4)
                assert due.near(looking.end(subject))
                subject.thaw()
                looking.observer.resumed(None, disturbed=False)
                until(lambda: not looking.look().held)

    @pytest.mark.parametrize(
        ("kind", "seen"),
        [("poll", True), ("poll", False), ("sleep", True), ("sleep", False), ("futex", True)],
    )
    def test_frozenUnseen(self, kind: str, seen: bool) -> None:
        """What was frozen, and not looked into, counts from when it began all the same."""
        began = time.monotonic()
        with silent(kind) as (subject, looking):
            if not seen:
                looking.observer.roundDone(time.monotonic_ns())
            subject.waitFor({"sleep": "clock_nanosleep"}.get(kind, kind))
            due = Due(began)
            if seen:
                looking.look()
            for _ in range(3):
                time.sleep(0.4)
                subject.freeze().thaw()
                looking.observer.resumed(None, disturbed=False)
                until(lambda: not looking.look().held)
            assert due.near(looking.end(subject))

    @pytest.mark.parametrize("between", [None, Position(-1)])
    @pytest.mark.parametrize("kind", ["poll", "futex"])
    def test_onItsWay(
        self, kind: str, between: Position | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So does what is looked at after the thaw and before it is in its call again."""
        shown: list[int] = []
        due: list[int] = []

        def positionThen(pid: int, tid: int) -> Position | None:
            if not due:
                return position(pid, tid)
            shown.append(due.pop())
            return between

        def timesRunThen(pid: int, tid: int) -> tuple[int, int]:
            ran, times = timesRun(pid, tid)
            return ran, times + len(shown)

        monkeypatch.setattr("chanproxy.adopt.observer.position", positionThen)
        monkeypatch.setattr("chanproxy.adopt.observer.timesRun", timesRunThen)
        began = time.monotonic()
        with silent(kind) as (subject, looking):
            subject.waitFor(kind)
            end = Due(began)
            looking.look()
            for count in range(1, 4):
                time.sleep(0.4)
                subject.freeze().thaw()
                looking.observer.resumed(None, disturbed=False)
                due.append(count)
                until(lambda: not looking.look().held and not due)
                looking.look()
            assert shown == [1, 2, 3]
            assert end.near(looking.end(subject))

    def test_forgotten(self) -> None:
        """What is gone is not remembered."""
        with waits("pause") as subject, Looking(subject) as looking:
            looking.look()
            looking.observer.keepThreads(subject.pid, {subject.pid})
            looking.observer.keepOnly({subject.pid})
            assert looking.observer.of(subject.pid, subject.pid) is not None
            looking.observer.keepThreads(subject.pid, set())
            assert looking.observer.of(subject.pid, subject.pid) is None
            looking.look()
            looking.observer.keepOnly(set())
            assert looking.observer.of(subject.pid, subject.pid) is None

    def test_resumedFor(self) -> None:
        """Only the thread for whose time it slept learns that."""
        with waits("sleep", number=60_000) as subject, Looking(subject) as looking:
            assert subject.line() == "ready"
            subject.waitFor("clock_nanosleep")
            seen = looking.look()
            for _ in range(2):
                looking.observer.resumed((subject.pid, subject.pid), disturbed=False)
                looking.observer.resumed((subject.pid, subject.pid + 1), disturbed=False)
            assert seen.period == 0
            looking.observer.resumed((subject.pid, subject.pid), disturbed=False)
            assert seen.period == 60 * SECOND
