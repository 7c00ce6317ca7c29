"""
The works: what goes through the proxies, and what is noted of it.

Every figure is one of a round, and rounds take turns between the peers.  So a ratio is taken round
by round, between neighbours in time, and its median is what counts: a busy machine disturbs both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from attrs import Factory, define, frozen

from bench.peers import SEQPACKET, TCP, UNIX

APART, TOGETHER = "apart", "together"


@frozen
class Work:
    """
    One kind of work.

    @ivar trips: empty, or round trips instead of a flow: with the proxy on a processor of its own
        (C{apart}), or all on one (C{together}).
    """

    kind: str
    size: int
    descriptors: int = 0
    channels: int = 1
    trips: str = ""

    @property
    def name(self) -> str:
        """For C{--only}."""
        parts = [self.kind, f"{self.size}"]
        if self.descriptors:
            parts.append("descriptor")
        if self.trips:
            parts += ["trips", self.trips]
        if self.channels > 1:
            parts.append(f"{self.channels}-channels")
        return "-".join(parts)

    @property
    def title(self) -> str:
        """For people."""
        size = f"{self.size // 1024} KiB" if self.size >= 1024 else f"{self.size} B"
        text = f"{KIND_TITLES[self.kind]}, {size}"
        if self.kind != SEQPACKET and not self.trips:
            text += " writes"
        if self.descriptors:
            text += " and a descriptor"
        if self.trips == APART:
            text += " and back, proxy on another processor"
        if self.trips == TOGETHER:
            text += " and back, all on one processor"
        if self.channels > 1:
            text += f", {self.channels:,} channels"
        return text


KIND_TITLES = {SEQPACKET: "seqpacket", UNIX: "Unix stream", TCP: "TCP"}


@frozen
class Sample:
    """One round of one peer."""

    rate: float
    """Messages per second; a message is a packet, or as many bytes as one write has."""
    cpu: float
    """Seconds of the proxy per message."""
    waiting: float
    """Share of the time in which the proxy could have run, and others did."""
    load: float
    """Share of the time in which the load was at work: near 1, it is the limit."""
    p50: float = 0
    p99: float = 0
    """Seconds of a round trip."""


@frozen
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float


def figure(values: Iterable[float]) -> Figure:
    """Of at least one value."""
    ordered = sorted(values)
    if len(ordered) == 1:
        return Figure(ordered[0], ordered[0], ordered[0])
    low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return Figure(median, low, high)


@define
class Series:
    """All rounds of one work, by the peer's name."""

    work: Work
    samples: dict[str, list[Sample]] = Factory(dict)
    memory: dict[str, int] = Factory(dict)
    """Bytes of the proxy after the last round."""

    def figure(self, peer: str, what: Callable[[Sample], float]) -> Figure | None:
        """One peer's, if it was measured."""
        samples = self.samples.get(peer)
        return figure(map(what, samples)) if samples else None

    def ratio(self, peer: str, other: str, what: Callable[[Sample], float]) -> Figure | None:
        """One peer's against another's, round by round, if both were measured."""
        pairs = zip(self.samples.get(peer, ()), self.samples.get(other, ()), strict=False)
        ratios = [what(a) / what(b) for a, b in pairs if what(b)]
        return figure(ratios) if ratios else None


@define
class Idle:
    """Many idle channels through one peer."""

    kind: str
    channels: int
    bytesEach: list[float] = Factory(list)
    secondsEach: list[float] = Factory(list)
    """To establish them all, by their number."""
    cpu: list[float] = Factory(list)
    """Share of a processor while all are idle."""
    wakes: list[float] = Factory(list)
    """Per second, likewise."""
    crowded: list[float] = Factory(list)
    """Rate of one busy channel beside them, by its rate alone in a proxy of its own."""


@define
class Results:
    """All that was measured, and what could not be."""

    series: list[Series] = Factory(list)
    idle: dict[tuple[str, str], Idle] = Factory(dict)
    """By kind and peer."""
    idleKinds: list[str] = Factory(list)
    """Those chosen."""
    notes: list[str] = Factory(list)

    def find(self, work: Work) -> Series | None:
        """The series of a work, if it was chosen."""
        return next((each for each in self.series if each.work == work), None)

    def note(self, text: str) -> None:
        """Say it once."""
        if text not in self.notes:
            self.notes.append(text)


PACKETS = [
    Work(SEQPACKET, 64),
    Work(SEQPACKET, 4096),
    Work(SEQPACKET, 65536),
    Work(SEQPACKET, 64, descriptors=1),
]
STREAMS = [Work(kind, size) for kind in (UNIX, TCP) for size in (200, 65536)]
TRIPS = [
    Work(kind, size, trips=where)
    for kind, size in ((SEQPACKET, 64), (UNIX, 200), (TCP, 200))
    for where in (APART, TOGETHER)
]
CHANNELS = (100, 1000)
MANY = [
    Work(kind, size, channels=channels)
    for kind, size in ((SEQPACKET, 64), (UNIX, 200), (TCP, 200))
    for channels in CHANNELS
]
WORKS = [*PACKETS, *STREAMS, *TRIPS, *MANY]


def setups(works: Sequence[Work]) -> list[list[Work]]:
    """Those that can share their channels, together."""
    together: dict[tuple[str, int], list[Work]] = {}
    for work in sorted(works, key=lambda work: work.channels):
        together.setdefault((work.kind, work.channels), []).append(work)
    return list(together.values())
