"""
The figures to reach, and whether they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from bench.peers import BATCH, CHANPROXY, HAPROXY, SEQPACKET, SINGLE, SOCAT, SYSTEMD
from bench.works import (
    KIND_TITLES,
    PACKETS,
    STREAMS,
    TRIPS,
    Figure,
    Idle,
    Results,
    Sample,
    Work,
    figure,
)

SMALL = 64
"""The size of packets for which batches count."""


@frozen
class Target:
    """
    One figure.

    @ivar limit: what has to be reached; C{None} where there is but an aim.
    @ivar atMost: whether less is better.
    @ivar reached: the number, with its quartiles if it has some; C{None} if it was not measured.
    """

    work: str
    figure: str
    limit: float | None
    aim: float | None
    atMost: bool
    reached: Figure | None
    unit: str = ""

    def meets(self, limit: float) -> bool:
        """Whether the median does, in the digits that are shown."""
        assert self.reached is not None
        number = round(self.reached.median, 2)
        return number <= limit if self.atMost else number >= limit

    @property
    def verdict(self) -> str:
        """In words."""
        if self.reached is None:
            return "not measured"
        aimed = self.aim is not None and self.meets(self.aim)
        if self.limit is None:
            return "aim reached" if aimed else "aim not reached"
        if not self.meets(self.limit):
            return "**not reached**"
        return "reached, and the aim" if aimed else "reached"


def rate(sample: Sample) -> float:
    """Messages per second."""
    return sample.rate


def cpu(sample: Sample) -> float:
    """Seconds of the proxy per message."""
    return sample.cpu


def p50(sample: Sample) -> float:
    """Seconds of a round trip."""
    return sample.p50


RIVALS = (SOCAT, HAPROXY, SYSTEMD)


def best(results: Results, work: Work, what: Callable[[Sample], float], most: bool) -> str | None:
    """Which of the rivals is, by its median."""
    series = results.find(work)
    if series is None:
        return None
    medians = {}
    for peer in RIVALS:
        value = series.figure(peer, what)
        if value is not None:
            medians[peer] = value.median
    if not medians:
        return None
    return (max if most else min)(medians, key=lambda peer: medians[peer])


class _Maker:
    def __init__(self, results: Results) -> None:
        self._results = results

    def cpu(self, work: Work, other: str, limit: float | None, aim: float | None = None) -> Target:
        ratio = self._ratio(work, other, cpu)
        return Target(work.title, f"CPU per message ÷ {other}", limit, aim, True, ratio)

    def rate(self, work: Work, other: str, limit: float | None, aim: float | None = None) -> Target:
        ratio = self._ratio(work, other, rate)
        return Target(work.title, f"throughput ÷ {other}", limit, aim, False, ratio)

    def trip(self, work: Work) -> Target:
        ratio = self._ratio(work, SOCAT, p50)
        return Target(work.title, f"p50 ÷ {SOCAT}", 1.5, 1.2, True, ratio)

    def _ratio(self, work: Work, other: str, what: Callable[[Sample], float]) -> Figure | None:
        series = self._results.find(work)
        return None if series is None else series.ratio(CHANPROXY, other, what)

    def stream(self, work: Work) -> Target:
        bulk = work.size > 1024
        # Without any of them, a name that was not measured.
        other = best(self._results, work, rate if bulk else cpu, bulk) or "the best of three"
        return self.rate(work, other, 1, 1.1) if bulk else self.cpu(work, other, 1)


def targets(results: Results) -> list[Target]:
    """Those of the works that were chosen, measured or not."""
    return [*_ofWorks(results), *_ofIdle(results)]


def _ofWorks(results: Results) -> Iterator[Target]:
    make = _Maker(results)
    for work in filter(results.find, [*PACKETS, *STREAMS, *TRIPS]):
        if work.trips:
            yield make.trip(work)
        elif work.kind != SEQPACKET:
            yield make.stream(work)
        elif work.descriptors:
            yield make.cpu(work, BATCH, 1.5, 1.2)
        elif work.size == SMALL:
            yield make.cpu(work, BATCH, 1.5, 1.2)
            yield make.cpu(work, SOCAT, 0.45)
            yield make.rate(work, SOCAT, 2)
            yield make.rate(work, BATCH, None, 1)
        else:
            for other in (SOCAT, SINGLE):
                yield make.rate(work, other, 1)
                yield make.cpu(work, other, 1)
            yield make.rate(work, BATCH, None, 1)
            yield make.cpu(work, BATCH, None, 1)


def _ofIdle(results: Results) -> Iterator[Target]:
    for kind in results.idleKinds:
        idle = results.idle.get((kind, CHANPROXY), Idle(kind, 0))
        count = f"{idle.channels:,} " if idle.channels else ""
        title = f"{KIND_TITLES[kind]}, {count}idle channels"
        crowded = figure(idle.crowded) if idle.crowded else None
        memory = figure(each / 1024 for each in idle.bytesEach) if idle.bytesEach else None
        yield Target(title, "speed of a busy one ÷ alone", 0.95, None, False, crowded)
        yield Target(title, "resident memory, each", 4, 2, True, memory, " KiB")
