"""
What happened so far: figures of each wake source, and of a container's suspends.

Plain numbers with the clock handed in; knows nothing of descriptors and freezers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, evolve, field, frozen

EVENTS_KEPT = 128
"""Events in the ring, as the Starnix power manager keeps them."""

BUCKETS = 32
"""Buckets of a histogram, as in the Starnix runner."""

FIRST_BUCKET = 100_000
"""Nanoseconds up to which the first bucket reaches; each further one reaches twice as far."""


def bootNanoseconds() -> int:
    """Nanoseconds since the host started, its own suspends included (C{CLOCK_BOOTTIME})."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@define
class SourceStatistics:
    """
    One wake source's figures, named as Linux names them for its wakeup sources.

    A lock is followed exactly.  Descriptors and counters are looked at, not watched: their times
    are as fine as the looks.

    @ivar activeCount: how often it became signalled.
    @ivar eventCount: for a counter, messages that this process added; for a lock, how often it was
        acquired; for a descriptor, the same as C{activeCount}.
    @ivar wakeupCount: how often it was signalled when a suspend ended.
    @ivar expireCount: how often a lock's timeout ended it.
    @ivar activeSince: nanoseconds (C{CLOCK_BOOTTIME}) since when it is signalled; 0 when it is not.
    @ivar totalTime: nanoseconds that it was signalled, without the present time.
    @ivar longestTime: nanoseconds of the longest of these times.
    @ivar lastChange: nanoseconds (C{CLOCK_BOOTTIME}); 0 when it was never signalled.
    """

    activeCount: int = 0
    eventCount: int = 0
    wakeupCount: int = 0
    expireCount: int = 0
    activeSince: int = 0
    totalTime: int = 0
    longestTime: int = 0
    lastChange: int = 0

    def activated(self, now: int) -> None:
        """It is signalled, and was not."""
        self.activeCount += 1
        self.activeSince = self.lastChange = now

    def deactivated(self, now: int) -> None:
        """It is not signalled any more."""
        lasted = now - self.activeSince
        self.totalTime += lasted
        self.longestTime = max(self.longestTime, lasted)
        self.activeSince = 0
        self.lastChange = now


@frozen
class SuspendEvent:
    """
    One entry of the ring.

    @ivar at: nanoseconds (C{CLOCK_BOOTTIME}).
    @ivar kind: C{attempt}, C{resume} or C{fail}.
    @ivar reason: what resumed it, or why it failed; empty for an attempt.
    @ivar sources: the wake sources that were signalled when it failed.
    @ivar latency: of a resume, nanoseconds; see L{SuspendStatistics.lastLatency}.
    """

    at: int
    kind: str
    reason: str = ""
    sources: tuple[str, ...] = ()
    latency: int | None = None


@define
class SuspendStatistics:
    """
    How suspends of one container went so far.

    @ivar since: nanoseconds (C{CLOCK_BOOTTIME}), since when they are counted.
    @ivar lastFailure: why the last suspend that failed did so.
    @ivar lastReason: the last resume reason; C{Abort: names} after a failure.
    @ivar lastWake: nanoseconds (C{CLOCK_BOOTTIME}), when it was woken last; 0: never.
    @ivar wokenBy: why; failures between then and now change nothing.
    @ivar lastAsleep: nanoseconds.
    @ivar lastLatency: nanoseconds from when the service saw what woke it last until it was thawed;
        L{None} when that was no wake source.
    @ivar totalLatency: nanoseconds, of all that are known.
    @ivar latencies: how many of these fell into each bucket; see L{bucketLimit}.
    @ivar totalAsleep: nanoseconds, breaths included.
    @ivar breaths: how often it ran for a moment while it slept.
    @ivar breathTime: nanoseconds that these took.
    @ivar histogram: how many times asleep fell into each bucket; see L{bucketLimit}.
    @ivar events: the latest L{EVENTS_KEPT} events, oldest first.
    @ivar listeners: called with each event as it is added, and again when its reason is known
        better.
    """

    since: int = field(factory=bootNanoseconds)
    attempts: int = 0
    successes: int = 0
    failures: int = 0
    lastFailure: str = ""
    lastReason: str = ""
    lastWake: int = 0
    wokenBy: str = ""
    lastAsleep: int = 0
    lastLatency: int | None = None
    totalLatency: int = 0
    latencies: list[int] = field(factory=lambda: [0] * BUCKETS)
    totalAsleep: int = 0
    breaths: int = 0
    breathTime: int = 0
    histogram: list[int] = field(factory=lambda: [0] * BUCKETS)
    events: deque[SuspendEvent] = field(factory=lambda: deque(maxlen=EVENTS_KEPT))
    listeners: list[Callable[[SuspendEvent], object]] = field(factory=list)

    def _add(self, event: SuspendEvent) -> None:
        self.events.append(event)
        self._tell(event)

    def _tell(self, event: SuspendEvent) -> None:
        for listener in self.listeners:
            listener(event)

    def attempted(self, now: int) -> None:
        """A suspend was asked for."""
        self.attempts += 1
        self._add(SuspendEvent(now, "attempt"))

    def succeeded(self, now: int, asleep: int, reason: str, latency: int | None = None) -> None:
        """It slept, and something woke it."""
        self.successes += 1
        self.lastAsleep = asleep
        self.lastLatency = latency
        self.totalAsleep += asleep
        self.lastReason = self.wokenBy = reason
        self.lastWake = now
        self.histogram[bucketOf(asleep)] += 1
        if latency is not None:
            self.totalLatency += latency
            self.latencies[bucketOf(latency)] += 1
        self._add(SuspendEvent(now, "resume", reason, latency=latency))

    def explained(self, reason: str) -> None:
        """What woke it last is known better now."""
        self.lastReason = self.wokenBy = reason
        self.events[-1] = evolve(self.events[-1], reason=reason)
        self._tell(self.events[-1])

    def breathed(self, lasted: int) -> None:
        """It ran for a moment."""
        self.breaths += 1
        self.breathTime += lasted

    def failed(self, now: int, reason: str, sources: Sequence[str]) -> None:
        """It did not sleep."""
        self.failures += 1
        self.lastFailure = reason
        self.lastReason = f"Abort: {reason}"
        self._add(SuspendEvent(now, "fail", reason, tuple(sources)))


def bucketOf(lasted: int) -> int:
    """A histogram's bucket for a time, in nanoseconds."""
    # The quotient's bit length is the power of two that is just too large.
    return min((lasted // FIRST_BUCKET).bit_length(), BUCKETS - 1)


def bucketLimit(bucket: int) -> int:
    """Nanoseconds that a bucket does not reach; the last one has no limit."""
    return FIRST_BUCKET << bucket
