"""
Cadence: how often to look, so that looking takes no more than a share of a processor.

Knows what looks cost, and nothing of what is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

SHORTEST = 0.22
"""Seconds between looks at least: what waits is noticed within a quarter of a second."""

SHARE = 0.001
"""Of a processor, that the looks of one cadence take at the most."""

ALTOGETHER = 0.02
"""Of a processor, that those of all cadences which run take: with many, each looks less often."""

EXTRA = 0.0002
"""Of a processor, for looks beyond those that are due; see L{Cadence.canAfford}."""

SAVED = 0.01
"""Seconds of a processor that can be saved up for such looks, at the most."""

RESERVE = SAVED / 2
"""What those leave that nothing asks for."""

_OLD = 0.7
"""What an earlier look counts in the mean."""


class Cadence:
    """The looks of one watcher, which runs at times."""

    running: ClassVar[int] = 0

    def __init__(
        self,
        clock: Callable[[], float],
        longest: float,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        """
        @param clock: seconds.
        @param longest: seconds between looks at the most, whatever they cost.
        @param processor: seconds of a processor that have been used so far.
        """
        self._clock = clock
        self._longest = longest
        self._processor = processor
        self._runs = False
        self._cost = 0.0
        self._began = 0.0
        self._saved = SAVED
        self._savedAt = clock()

    def start(self) -> None:
        """It looks from now on, as one of many.  Idempotent."""
        if not self._runs:
            self._runs = True
            Cadence.running += 1

    def stop(self) -> None:
        """It looks no more.  Idempotent."""
        if self._runs:
            self._runs = False
            Cadence.running -= 1

    def begin(self) -> None:
        """Begin a look, whose cost counts from here."""
        self._began = self._processor()

    def end(self) -> None:
        """The look has ended, and is one of those that come again and again."""
        cost = self._processor() - self._began
        self._cost = max(_OLD * self._cost + (1 - _OLD) * cost, 0.0)

    def endExtra(self) -> None:
        """The look has ended; it was one of those that L{canAfford} is asked for."""
        self._saved = self._savings() - (self._processor() - self._began)

    def canAfford(self, reserve: float = 0.0) -> bool:
        """
        Whether there may be an extra look, because what the last ones took is saved up again.

        @param reserve: seconds of a processor that are to be left.
        """
        return self._savings() > reserve

    def _savings(self) -> float:
        now = self._clock()
        self._saved = min(self._saved + EXTRA * (now - self._savedAt), SAVED)
        self._savedAt = now
        return self._saved

    def interval(self) -> float:
        """Seconds between looks now."""
        share = min(SHARE, ALTOGETHER / max(Cadence.running, 1))
        return min(max(self._cost / share, SHORTEST), self._longest)

    def delay(self) -> float:
        """Seconds to the next look."""
        # All that look do it at the same moments, as the clock has them: one turn of the reactor
        # serves them, and a turn takes longer than a look.
        interval, now = self.interval(), self._clock()
        grid = min(interval, SHORTEST)
        delay = (now + interval) // grid * grid - now
        return delay if delay > grid / 1000 else grid
