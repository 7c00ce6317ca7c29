"""The history: figures and reasons as they are added up, and when they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from chanproxy.wake.history.figures import (
    KEPT,
    MEASURED,
    NAMES,
    SECOND,
    WOKE,
    Batch,
    Because,
    Figures,
    HourOf,
    Tally,
    bucketLimit,
    bucketOf,
    quantile,
)
from chanproxy.wake.history.keeper import AT_THE_END, SELDOM, SOON, Keeper
from chanproxy.wake.history.place import Unusable
from chanproxy.wake.history.reasons import MOST, OTHERS, Known, general, generalAll
from chanproxy.wake.history.store import Store

HERE = HourOf(500_000, "it", False)


def test_addsAll() -> None:
    """No figure is left out."""
    one = Figures(*range(1, len(NAMES) + 1))
    one.add(Figures(*range(10, 10 + len(NAMES))))
    assert attrs.astuple(one) == tuple(11 + 2 * number for number in range(len(NAMES)))


def test_share() -> None:
    """Of the time that is known; of none there is no share."""
    assert Figures().share is None
    assert Figures(asleep=3, awake=1).share == 0.75


def test_spared() -> None:
    """What it used when idle, for as long as it slept, less what it used all the same."""
    idle = Figures(asleep=100 * SECOND, idleTime=MEASURED, idleCpu=MEASURED // 50)
    assert idle.spared(False) == 2 * SECOND
    breathing = attrs.evolve(idle, asleepCpu=SECOND // 2)
    assert breathing.spared(False) == 3 * SECOND // 2


def test_sparedIsNotPromised() -> None:
    """What was hardly seen idle is not estimated; and there is no less than nothing."""
    seen = Figures(asleep=100 * SECOND, idleTime=MEASURED - 1, idleCpu=SECOND)
    assert seen.spared(False) is None
    wasteful = Figures(asleep=SECOND, idleTime=MEASURED, idleCpu=0, asleepCpu=SECOND)
    assert wasteful.spared(False) == 0


def test_sparedInADryRun() -> None:
    """There it is what it did use."""
    assert Figures(asleep=100 * SECOND, asleepCpu=7).spared(True) == 7


@given(st.integers(0, 10**12))
def test_buckets(latency: int) -> None:
    """Each reaches a fifth further than the one before, and everything is in one."""
    bucket = bucketOf(latency)
    assert latency / SECOND <= bucketLimit(bucket) * (1 + 1e-9)
    assert bucket == 0 or bucketLimit(bucket - 1) < latency / SECOND * (1 + 1e-9)
    assert bucketLimit(bucket + 1) < 1.2 * bucketLimit(bucket)


def test_quantiles() -> None:
    """The value that so many do not exceed."""
    assert quantile({}, 0.5) is None
    buckets = {bucketOf(200_000): 98, bucketOf(4_000_000): 2}
    assert quantile(buckets, 0.5) == bucketLimit(bucketOf(200_000))
    assert quantile(buckets, 0.98) == bucketLimit(bucketOf(200_000))
    assert quantile(buckets, 0.99) == bucketLimit(bucketOf(4_000_000))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("it/lsp#3", "lsp"),
        ("hold/4711", "hold"),
        ("doorbell", "doorbell"),
        ("it/redis-server[12] tcp 0.0.0.0:80 from 127.0.0.1:5123", "redis-server tcp 0.0.0.0:80"),
        ("it/a[12] tcp [::]:80 from [2001:db8::1]:5123", "a tcp [::]:80"),
        ("it/a[12] tcp 10.0.0.2:5000 to 10.0.0.1:5432", "a tcp to 10.0.0.1:5432"),
        ("it/a[12] unix /run/x.sock from redis-cli[9]", "a unix /run/x.sock from redis-cli"),
        ("it/node[12] epoll_wait timeout", "node epoll_wait timeout"),
        ("SIGTERM is pending for thread 5 of node[4]", "SIGTERM is pending for thread of node"),
        ("node[4] ended", "node ended"),
        ("it uses 31% of a processor, and busy-cpu = 0.05", "it uses N% of a processor"),
        (
            "node[4] runs 310 times a second, and busy-switches = 50",
            "node runs N times a second",
        ),
        ("it/a[1] epoll_wait timeout is over in 2.5e+03 s", "a epoll_wait timeout is over in N s"),
        (
            "busy: it/a[1] tcp 0.0.0.0:80 has not answered 1.2.3.4:50 for 2.5 s",
            "busy: a tcp 0.0.0.0:80 has not answered somebody for N s",
        ),
        ("line\nbreak \udcff", "line\\nbreak \\xff"),
        ("x" * 1000, "x" * 120 + "..."),
    ],
)
def test_general(reason: str, said: str) -> None:
    """What differs each time is left out: numbers, and who the peers are."""
    assert general(reason, "it") == said


def test_together() -> None:
    """Equal ones are one; of many there are three, and dots."""
    assert generalAll(("it/a#2", "it/a#1"), "it") == "a"
    assert generalAll(tuple("dcba"), "it") == "a, b, c, ..."
    assert generalAll((), "it") == "nothing that is known"


def test_manyReasons() -> None:
    """In an hour there are so many, then others; in the next one they may come again."""
    known = Known()
    names = [f"reason {number}" for number in range(2 * MOST)]
    admitted = [known.admit(1, name) for name in names]
    assert admitted == names[:MOST] + [OTHERS] * MOST
    assert known.admit(1, names[0]) == names[0]
    assert known.admit(2, names[-1]) == names[-1]


def test_tallyIsBounded() -> None:
    """What is known already is still added to; what finds no room is counted."""
    tally = Tally(most=3)
    tally.add(HERE, Figures(asleep=1))
    tally.addReason(Because(HERE, WOKE, "a"), 1, 5)
    tally.addLatency(HERE, 3)
    tally.add(attrs.evolve(HERE, container="other"), Figures(asleep=1))
    tally.addReason(Because(HERE, KEPT, "a"), 0, 5)
    tally.addLatency(HERE, 4)
    assert (len(tally), tally.lost) == (3, 3)
    tally.add(HERE, Figures(asleep=1))
    tally.addReason(Because(HERE, WOKE, "a"), 1, 5)
    tally.addLatency(HERE, 3)
    batch = tally.take()
    assert batch.hours == {HERE: Figures(asleep=2)}
    assert [(effect.count, effect.time) for effect in batch.reasons.values()] == [(2, 10)]
    assert batch.latencies == {(HERE, 3): 2}
    assert (len(tally), tally.lost) == (0, 3)


def test_givenBack() -> None:
    """What could not be written is there again, with what came meanwhile."""
    tally = Tally()
    tally.add(HERE, Figures(asleep=1))
    taken = tally.take()
    tally.add(HERE, Figures(asleep=2, sleeps=1))
    tally.addLatency(HERE, 1)
    tally.giveBack(taken)
    batch = tally.take()
    assert batch.hours == {HERE: Figures(asleep=3, sleeps=1)}
    assert batch.latencies == {(HERE, 1): 1}


def test_takenIsApart() -> None:
    """What is being written does not change under the writer's hands."""
    tally = Tally()
    mine = Figures(asleep=1)
    tally.add(HERE, mine)
    mine.asleep = 7
    taken = tally.take()
    tally.add(HERE, Figures(asleep=2))
    assert taken.hours == {HERE: Figures(asleep=1)}


class FakeStore(Store):
    """Takes note of batches, or fails."""

    def __init__(self) -> None:
        super().__init__("/nowhere/history.sqlite", 30, 1 << 20)
        self.written: list[tuple[Batch, float]] = []
        self.fails: Exception | None = None
        self.says: list[str] = []
        self.closed = False

    def write(self, batch: Batch, until: float) -> list[str]:
        if self.fails is not None:
            raise self.fails
        self.written.append((batch, until))
        return self.says

    def close(self) -> None:
        self.closed = True


class Turns(Clock):
    """
    A clock.

    @ivar turns: the delays of all calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float] = []

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        self.turns.append(delay)
        return super().callLater(delay, callable, *args, **kw)


class KeeperTests(SynchronousTestCase):
    """When something is written, by a clock that stands still and a thread that waits."""

    def setUp(self) -> None:
        self.clock = Turns()
        self.tally = Tally()
        self.store = FakeStore()
        self.gathered = 0
        # What the thread has to do, if it does not do it at once.
        self.waiting: list[Callable[[], None]] | None = None
        self.keeper = Keeper(
            self.clock, self.store, self.tally, self.gather, self.inThread, self.clock.seconds
        )

    def gather(self) -> Iterator[None]:
        self.gathered += 1
        yield None

    def inThread(self, work: Callable[[], list[str]]) -> Deferred[list[str]]:
        done: Deferred[list[str]] = Deferred()

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                done.errback(error)
            else:
                done.callback(result)

        if self.waiting is None:
            run()
        else:
            self.waiting.append(run)
        return done

    def sleepEnds(self) -> None:
        """Something that is worth to be written soon."""
        self.tally.add(HERE, Figures(sleeps=1))
        self.tally.happened()

    def sleeps(self) -> list[int]:
        """What was written."""
        return [batch.hours.get(HERE, Figures()).sleeps for batch, _ in self.store.written]

    def test_atOnce(self) -> None:
        """A start shows at once whether it can be written."""
        self.keeper.start()
        assert self.sleeps() == [0]
        assert self.store.written[0][1] == 0.0

    def test_seldom(self) -> None:
        """When nothing happens, once a minute, with what has passed."""
        self.keeper.start()
        self.clock.advance(SELDOM - 1)
        assert (len(self.store.written), self.gathered) == (1, 0)
        self.clock.advance(1)
        assert (len(self.store.written), self.gathered) == (2, 1)
        assert self.store.written[1][1] == SELDOM

    def test_soon(self) -> None:
        """Ten seconds after the first thing that happened, whatever follows."""
        self.keeper.start()
        self.clock.advance(3)
        self.sleepEnds()
        self.clock.advance(SOON - 1)
        self.sleepEnds()
        assert self.sleeps() == [0]
        self.clock.advance(1)
        assert self.sleeps() == [0, 2]
        self.clock.advance(SELDOM - 1)
        assert len(self.store.written) == 2

    def test_neverLater(self) -> None:
        """What happens right before the minute is over is written with that."""
        self.keeper.start()
        self.clock.advance(SELDOM - 1)
        self.sleepEnds()
        self.clock.advance(1)
        assert self.sleeps() == [0, 1]

    def test_whileItIsWritten(self) -> None:
        """Only one batch is on its way; what comes meanwhile is written soon after that."""
        self.waiting = []
        self.keeper.start()
        self.sleepEnds()
        self.clock.advance(10 * SELDOM)
        assert len(self.waiting) == 1
        self.waiting.pop()()
        self.clock.advance(SOON)
        self.waiting.pop()()
        assert self.sleeps() == [0, 1]

    def test_fails(self) -> None:
        """It is said once for each reason, nothing is lost, and it is said when it works again."""
        with capturedLogs() as events:
            self.store.fails = Unusable("/x: the disk is full\n")
            self.keeper.start()
            self.sleepEnds()
            for _ in range(3):
                self.clock.advance(SELDOM)
            self.store.fails = Unusable("/x: no right")
            self.clock.advance(SELDOM)
            self.store.fails = None
            self.clock.advance(SELDOM)
        lines = [formatEvent(event) for event in events]
        more = ". All else goes on, and this is tried again now and then"
        assert lines == [
            f"history: /x: the disk is full\\n{more}",
            f"history: /x: no right{more}",
            "history: /nowhere/history.sqlite is written again",
        ]
        assert self.sleeps() == [1]

    def test_bug(self) -> None:
        """An error that nobody has thought of is logged with its traceback, and nothing is lost."""
        self.store.fails = ZeroDivisionError()
        self.keeper.start()
        self.sleepEnds()
        errors = self.flushLoggedErrors(ZeroDivisionError)  # type: ignore[no-untyped-call]
        assert len(errors) == 1
        self.store.fails = None
        self.clock.advance(SELDOM)
        assert self.sleeps() == [1]

    def test_says(self) -> None:
        """What was done beside the writing is in the log, and what was lost before."""
        with capturedLogs() as events:
            self.store.says = ["x was damaged"]
            self.tally.lost = 3
            self.keeper.start()
        assert [formatEvent(event) for event in events] == [
            "history: x was damaged",
            "history: meanwhile there was no room for 3 figures",
        ]

    def test_stop(self) -> None:
        """The rest is written, the file is let go, and no call is left."""
        self.keeper.start()
        self.sleepEnds()
        self.successResultOf(self.keeper.stop())
        assert (self.sleeps(), self.gathered) == ([0, 1], 1)
        assert self.store.closed
        assert self.clock.getDelayedCalls() == []
        self.successResultOf(self.keeper.stop())
        self.sleepEnds()
        assert self.clock.getDelayedCalls() == []

    def test_stopWhileItIsWritten(self) -> None:
        """What is on its way comes first."""
        self.waiting = []
        self.keeper.start()
        stopped = self.keeper.stop()
        self.sleepEnds()
        assert len(self.waiting) == 1
        while self.waiting:
            self.assertNoResult(stopped)  # type: ignore[no-untyped-call]
            self.waiting.pop()()
        self.successResultOf(stopped)
        assert self.sleeps() == [0, 1]

    def test_stopDoesNotWait(self) -> None:
        """A disk that does not answer holds nobody up for longer than that."""
        self.waiting = []
        self.keeper.start()
        stopped = self.keeper.stop()
        self.clock.advance(AT_THE_END - 1)
        self.assertNoResult(stopped)  # type: ignore[no-untyped-call]
        with capturedLogs() as events:
            self.clock.advance(1)
        self.successResultOf(stopped)
        assert "the last moments are lost" in formatEvent(events[0])
        # However late it comes.
        while self.waiting:
            self.waiting.pop()()

    def test_neverStarted(self) -> None:
        """Who has not begun writes nothing."""
        self.successResultOf(self.keeper.stop())
        assert self.store.written == []

    def test_manyContainers(self) -> None:
        """To ask thousands takes more than one turn, and what they say is written together."""
        turns: list[int] = []

        def gather() -> Iterator[None]:
            for _ in range(2000):
                # Something that takes a time.
                assert sum(range(500))
                turns.append(len(self.clock.turns))
                yield None

        keeper = Keeper(
            self.clock, self.store, self.tally, gather, self.inThread, self.clock.seconds
        )
        keeper.start()
        self.clock.advance(SELDOM)
        assert len(turns) == 2000
        assert len(set(turns)) > 1
        assert len(self.store.written) == 2
        self.successResultOf(keeper.stop())
