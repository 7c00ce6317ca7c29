"""
Metrics: the figures of containers, in the words of Prometheus, read when somebody asks for them.

Nothing is counted for them: they are made of what is counted anyway.  Whoever has one more figure
of a container writes one more line into L{FIGURES}.  Needs the package C{prometheus_client}.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import define, field, frozen
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

from chanproxy import __version__
from chanproxy.container import Container
from chanproxy.interfaces import FreezerError
from chanproxy.manager.kinds import Kinds
from chanproxy.wake.statistics import BUCKETS, SuspendStatistics, bucketLimit

STATES = ("awake", "suspending", "asleep", "resuming")

STEP = 4
"""Of the buckets of times asleep one of so many: each is a series for each container."""

LATENCIES = 16
"""Of the buckets of latencies these are told of, up to some seconds."""

END = b"# EOF\n"

Found = Iterable[tuple[tuple[str, ...], float]]
"""Values of labels beside the container, and the figure."""


@define
class Tally:
    """
    Reasons of one container by kinds, as far as they were looked at.

    @ivar until: the time of the last event of it.
    """

    of: Container
    until: int = 0
    wakes: Counter[str] = field(factory=Counter)
    refusals: Counter[str] = field(factory=Counter)

    def look(self) -> None:
        """Count what has happened since the last look, by the ring of events."""
        statistics = self.of.suspension.statistics
        new = []
        for event in reversed(statistics.events):
            if event.at <= self.until:
                break
            new.append(event)
        if not new:
            return
        self.until = new[0].at
        kinds = Kinds(self.of)
        for event in new:
            if event.kind == "resume":
                self.wakes[kinds.of(event.reason)] += 1
            elif event.kind == "fail":
                self.refusals[kinds.of(event.reason)] += 1
        # What has fallen out of the ring has happened all the same.
        for tally, all_ in (
            (self.wakes, statistics.successes),
            (self.refusals, statistics.failures),
        ):
            if (unseen := all_ - tally.total()) > 0:
                tally["unseen"] += unseen


@frozen
class Figure:
    """
    One figure of each container.

    @ivar read: from a container and its tally.
    @ivar labels: beside the container.
    @ivar counts: it only grows.
    """

    name: str
    text: str
    read: Callable[[Container, Tally], Found]
    labels: tuple[str, ...] = ()
    counts: bool = True

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Without any container."""
        made = CounterMetricFamily if self.counts else GaugeMetricFamily
        return made(f"chanproxy_{self.name}", self.text, labels=("container", *self.labels))


def _one(value: float) -> Found:
    return [((), value)]


def _paused(container: Container, tally: Tally) -> Found:
    yield (), float(container.suspension.paused is not None)


def _states(container: Container, tally: Tally) -> Found:
    now = container.suspension.state
    return [((state,), float(state == now)) for state in STATES]


def _byKind(counted: Mapping[str, int]) -> Found:
    return [((kind,), count) for kind, count in sorted(counted.items())]


def _carried(figure: str) -> Callable[[Container, Tally], Found]:
    def read(container: Container, tally: Tally) -> Found:
        ways = zip(("in", "out"), container.channels.carried, strict=True)
        return [((way,), getattr(traffic, figure)) for way, traffic in ways]

    return read


def _unhandled(container: Container, tally: Tally) -> Found:
    counters = (source.counter for source in container.sources)
    # To ask whether there is any is much cheaper than to ask how many.
    return _one(sum(each.value() for each in counters if each is not None and each.positive()))


def _processor(container: Container, tally: Tally) -> Found:
    try:
        return _one(container.freezer.cpuTime() / 1e6)
    except FreezerError:
        # Not every freezer knows.
        return []


FIGURES = (
    Figure("container_paused", "1 while it sleeps until it is unpaused.", _paused, (), False),
    Figure("container_state", "1 for the state that it is in.", _states, ("state",), False),
    Figure(
        "suspend_attempts",
        "How often a suspend was tried.",
        lambda c, _: _one(c.suspension.statistics.attempts),
    ),
    Figure(
        "suspend_refusals",
        "How often one failed, by the kind of the reason.",
        lambda _, tally: _byKind(tally.refusals),
        ("reason",),
    ),
    Figure(
        "wakes",
        "How often it was woken, by the kind of the reason.",
        lambda _, tally: _byKind(tally.wakes),
        ("reason",),
    ),
    Figure(
        "asleep_seconds",
        "How long it has slept, without the present sleep.",
        lambda c, _: _one(c.suspension.statistics.totalAsleep / 1e9),
    ),
    Figure(
        "breaths",
        "How often it ran for a moment while it slept.",
        lambda c, _: _one(c.suspension.statistics.breaths),
    ),
    Figure(
        "breath_seconds",
        "How long these moments were.",
        lambda c, _: _one(c.suspension.statistics.breathTime / 1e9),
    ),
    Figure("messages", "Messages carried, by direction.", _carried("messages"), ("direction",)),
    Figure(
        "message_descriptors",
        "Descriptors carried with messages, by direction.",
        _carried("descriptors"),
        ("direction",),
    ),
    Figure(
        "unhandled_messages",
        "Messages that its counters have, and that are not handled.",
        _unhandled,
        counts=False,
    ),
    Figure(
        "open_channels", "Channels that are open.", lambda c, _: _one(len(c.channels)), counts=False
    ),
    Figure(
        "open_descriptors",
        "Descriptors of the service that are for it.",
        lambda c, _: _one(c.descriptors),
        counts=False,
    ),
    Figure("container_cpu_seconds", "Processor time that its processes took.", _processor),
)
"""All of them, but for the histograms."""


@frozen
class Histogram:
    """
    One histogram of each container.

    @ivar read: from a container: how many are in each bucket, and the sum of all, in nanoseconds.
    @ivar told: of these buckets.
    """

    name: str
    text: str
    read: Callable[[SuspendStatistics], tuple[Sequence[int], int]]
    told: range

    def family(self) -> HistogramMetricFamily:
        """Without any container."""
        return HistogramMetricFamily(f"chanproxy_{self.name}", self.text, labels=["container"])

    def add(self, family: HistogramMetricFamily, name: str, container: Container) -> None:
        """Add those of a container."""
        counts, total = self.read(container.suspension.statistics)
        buckets = [
            (repr(bucketLimit(each) / 1e9), float(sum(counts[: each + 1]))) for each in self.told
        ]
        family.add_metric([name], [*buckets, ("+Inf", float(sum(counts)))], total / 1e9)


HISTOGRAMS = (
    Histogram(
        "sleep_duration_seconds",
        "How long it slept at a time.",
        lambda statistics: (statistics.histogram, statistics.totalAsleep),
        range(STEP - 1, BUCKETS - 1, STEP),
    ),
    Histogram(
        "wake_latency_seconds",
        "From when the service saw a wake source until it was thawed.",
        lambda statistics: (statistics.latencies, statistics.totalLatency),
        range(LATENCIES),
    ),
)


class _Alone:
    """One family as a registry, so that others have their turn between two."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family]


class Metrics:
    """The figures of one service."""

    def __init__(
        self, reactor: IReactorTime, containers: Callable[[], Mapping[str, Container]]
    ) -> None:
        """@param containers: those of the service at this moment, by name."""
        self._containers = containers
        self._tallies: dict[str, Tally] = {}
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._cooperator = Cooperator(
            terminationPredicateFactory=lambda: lambda: True,
            scheduler=lambda step: reactor.callLater(0, step),
        )

    def text(
        self,
        accept: str,
        allows: Callable[[str], bool],
        charge: Callable[[float], object],
    ) -> Deferred[tuple[str, bytes]]:
        """
        All figures, and what the text is.

        @param accept: what who asks can read.
        @param allows: of which containers.
        @param charge: told the seconds of a processor that each step takes.
        """
        encode, kind = choose_encoder(accept)
        parts: list[bytes] = []

        def steps() -> Iterator[None]:
            families = self._families(allows)
            while True:
                began = time.thread_time()
                family = next(families, None)
                if family is None:
                    return
                # The end of all of them, which OpenMetrics wants.
                parts.append(encode(_Alone(family)).removesuffix(END))
                charge(time.thread_time() - began)
                yield

        def joined(_: object) -> tuple[str, bytes]:
            return kind, b"".join(parts) + (END if "openmetrics" in kind else b"")

        return self._cooperator.cooperate(steps()).whenDone().addCallback(joined)

    def _families(self, allows: Callable[[str], bool]) -> Iterator[Metric]:
        yield from self._process.collect()
        build = GaugeMetricFamily("chanproxy_build_info", "Always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        found = {name: each for name, each in self._look().items() if allows(name)}
        for figure in FIGURES:
            family = figure.family()
            for name, tally in found.items():
                for labels, value in figure.read(tally.of, tally):
                    family.add_metric([name, *labels], value)
            yield family
        for histogram in HISTOGRAMS:
            drawn = histogram.family()
            for name, tally in found.items():
                histogram.add(drawn, name, tally.of)
            yield drawn

    def _look(self) -> dict[str, Tally]:
        """All are looked at, whoever asks, or their rings would run over."""
        there = self._containers()
        for name, container in there.items():
            known = self._tallies.get(name)
            if known is None or known.of is not container:
                self._tallies[name] = Tally(container)
            self._tallies[name].look()
        for name in self._tallies.keys() - there.keys():
            del self._tallies[name]
        return self._tallies
