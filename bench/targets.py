"""
The figures to reach, and whether they are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from bench.peers import BATCH, CHANPROXY, HAPROXY, SEQPACKET, SINGLE, SOCAT, SYSTEMD
from bench.works import PACKETS, STREAMS, TRIPS, Figure, Results, Sample, Work


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
        figure = series.figure(peer, what)
        if figure is not None:
            medians[peer] = figure.median
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
    """All of them, measured or not."""
    return list(_targets(results))


def _targets(results: Results) -> Iterator[Target]:
    make = _Maker(results)
    small, *larger, descriptor = PACKETS
    yield make.cpu(small, BATCH, 1.5, 1.2)
    yield make.cpu(small, SOCAT, 0.45)
    yield make.rate(small, SOCAT, 2)
    yield make.rate(small, BATCH, None, 1)
    for work in larger:
        for other in (SOCAT, SINGLE):
            yield make.rate(work, other, 1)
            yield make.cpu(work, other, 1)
        yield make.rate(work, BATCH, None, 1)
        yield make.cpu(work, BATCH, None, 1)
    yield make.cpu(descriptor, BATCH, 1.5, 1.2)
    for work in STREAMS:
        yield make.stream(work)
    for work in TRIPS:
        yield make.trip(work)
    yield from _idle(results)


def _idle(results: Results) -> Iterator[Target]:
    kinds = [SEQPACKET, *(kind for kind, peer in results.idle if peer == CHANPROXY)]
    for kind in dict.fromkeys(kinds):
        idle = results.idle.get((kind, CHANPROXY))
        title = f"{kind}, {idle.channels:,} idle channels" if idle else f"{kind}, idle channels"
        crowded = idle.crowded if idle else []
        memory = [each / 1024 for each in idle.bytesEach] if idle else []
        yield Target(title, "speed of a busy one ÷ alone", 0.95, None, False, _optional(crowded))
        yield Target(title, "resident memory, each", 4, 2, True, _optional(memory), " KiB")


def _optional(values: Sequence[float]) -> Figure | None:
    if not values:
        return None
    return Figure(statistics.median(values), min(values), max(values))
