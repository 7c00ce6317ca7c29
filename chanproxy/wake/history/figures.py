"""
What is kept of each hour: figures, the reasons, and how long wakes took; plain numbers.

They are added up, here until they are written and in the file after that, so that an hour takes as
much room however often a container wakes in it.  Knows no file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import attrs
from attrs import define, field, frozen

HOUR = 3600
"""Seconds."""

SECOND = 1_000_000_000
"""Nanoseconds."""

MEASURED = 5 * SECOND
"""How long a container has to have been seen awake and idle until it is estimated from that."""

MOST_WAITING = 100_000
"""Rows that wait to be written at the most: when no file takes them, some 30 MiB."""

WOKE, KEPT = "woke", "kept"
"""What a reason was for: it woke the container, or it kept that awake."""


@define
class Figures:
    """
    What became of a container, in an hour or longer; times are nanoseconds.

    The time in which the machine itself was suspended is in none of them.

    @ivar asleep: that it slept, breaths included.
    @ivar awake: that it did not.
    @ivar sleeps: how many sleeps ended.
    @ivar failures: how many freezes were begun and given up.
    @ivar breaths: how often it ran for a moment while it slept.
    @ivar breathTime: how long these took.
    @ivar asleepCpu: processor time that it used between falling asleep and the wake: in breaths, or
        in a dry run, in which nothing is stopped.
    @ivar awakeCpu: processor time that it used otherwise, as far as that is known.
    @ivar idleTime: that it was seen awake and idle, right before it fell asleep.
    @ivar idleCpu: processor time that it used then.
    @ivar ownCpu: its share of the service's own processor time.
    """

    asleep: int = 0
    awake: int = 0
    sleeps: int = 0
    failures: int = 0
    breaths: int = 0
    breathTime: int = 0
    asleepCpu: int = 0
    awakeCpu: int = 0
    idleTime: int = 0
    idleCpu: int = 0
    ownCpu: int = 0

    def add(self, more: Figures) -> None:
        """Add others to these."""
        # Each by itself: this is done some times for each sleep.
        self.asleep += more.asleep
        self.awake += more.awake
        self.sleeps += more.sleeps
        self.failures += more.failures
        self.breaths += more.breaths
        self.breathTime += more.breathTime
        self.asleepCpu += more.asleepCpu
        self.awakeCpu += more.awakeCpu
        self.idleTime += more.idleTime
        self.idleCpu += more.idleCpu
        self.ownCpu += more.ownCpu

    @property
    def share(self) -> float | None:
        """Which part of the time it slept; L{None} when nothing is known."""
        known = self.asleep + self.awake
        return self.asleep / known if known else None

    def spared(self, dry: bool) -> int | None:
        """
        Processor time that it did not use because it slept: an estimate.

        That is what it used when it was seen awake and idle, for each second, times the seconds
        asleep, less what it used while asleep all the same.

        @param dry: nothing was stopped: then it is what it used while it would have slept, which is
            measured.
        @return: nanoseconds; L{None} when it was seen idle for less than L{MEASURED}.
        """
        if dry:
            return self.asleepCpu
        if self.idleTime < MEASURED:
            return None
        return max(0, self.idleCpu * self.asleep // self.idleTime - self.asleepCpu)


NAMES = tuple(each.name for each in attrs.fields(Figures))
"""Of all figures."""


@frozen
class HourOf:
    """
    A container's hour.

    @ivar hour: since 1970, by the wall clock.
    @ivar dry: nothing was stopped.
    """

    hour: int
    container: str
    dry: bool


@frozen
class Because:
    """
    A reason in a container's hour.

    @ivar kind: L{WOKE} or L{KEPT}.
    """

    hour: HourOf
    kind: str
    reason: str


@define
class Effect:
    """
    What a reason did.

    @ivar count: wakes by it.
    @ivar time: nanoseconds awake after these, or that it kept the container awake.
    """

    count: int = 0
    time: int = 0


@define
class Batch:
    """
    What is to be written at a time.

    @ivar latencies: how many wakes were in each bucket of L{bucketOf}.
    """

    hours: dict[HourOf, Figures] = field(factory=dict)
    reasons: dict[Because, Effect] = field(factory=dict)
    latencies: dict[tuple[HourOf, int], int] = field(factory=dict)

    def __len__(self) -> int:
        """How many rows."""
        return len(self.hours) + len(self.reasons) + len(self.latencies)


class Tally:
    """
    What is not written yet.

    @ivar lost: how often something found no room, because too much waits.
    @ivar happened: called when there is something that is worth to be written soon.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        """@param most: rows."""
        self._batch = Batch()
        self._most = most
        self.lost = 0
        self.happened: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """How many rows wait."""
        return len(self._batch)

    def add(self, hour: HourOf, figures: Figures) -> None:
        """Add to an hour."""
        known = self._batch.hours.get(hour)
        if known is not None:
            known.add(figures)
        elif self._hasRoom():
            self._batch.hours[hour] = attrs.evolve(figures)

    def addReason(self, because: Because, count: int, time: int) -> None:
        """Likewise to a reason; C{time} is in nanoseconds."""
        known = self._batch.reasons.get(because)
        if known is None:
            if not self._hasRoom():
                return
            known = self._batch.reasons[because] = Effect()
        known.count += count
        known.time += time

    def addLatency(self, hour: HourOf, bucket: int, count: int = 1) -> None:
        """Likewise to a bucket."""
        known = self._batch.latencies.get((hour, bucket), 0)
        if known or self._hasRoom():
            self._batch.latencies[hour, bucket] = known + count

    def _hasRoom(self) -> bool:
        room = len(self._batch) < self._most
        self.lost += not room
        return room

    def take(self) -> Batch:
        """All that waits, which then waits no more."""
        taken, self._batch = self._batch, Batch()
        return taken

    def giveBack(self, batch: Batch) -> None:
        """What was taken could not be written."""
        # What is older comes first: where there is no room for both, the newer is lost.
        newer, self._batch = self._batch, batch
        for hour, figures in newer.hours.items():
            self.add(hour, figures)
        for because, effect in newer.reasons.items():
            self.addReason(because, effect.count, effect.time)
        for (hour, bucket), count in newer.latencies.items():
            self.addLatency(hour, bucket, count)


_PER_OCTAVE = 4


def bucketOf(latency: int) -> int:
    """The bucket of a time in nanoseconds; each reaches a fifth further than the one before."""
    return max(0, math.ceil(_PER_OCTAVE * math.log2(max(latency, 1) / 1000)))


def bucketLimit(bucket: int) -> float:
    """Up to how many seconds a bucket reaches."""
    return float(2 ** (bucket / _PER_OCTAVE) * 1e-6)


def quantile(buckets: Mapping[int, int], part: float) -> float | None:
    """
    A quantile of what is in buckets.

    @param part: 0.5 for the median.
    @return: seconds that it is at the most, and a fifth more than it is; L{None}: nothing is in.
    """
    wanted = part * sum(buckets.values())
    if not wanted:
        return None
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            return bucketLimit(bucket)
    return None


def together(all_: Iterable[Figures]) -> Figures:
    """The sum."""
    found = Figures()
    for each in all_:
        found.add(each)
    return found
