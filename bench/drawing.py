"""
Which results are drawn, and how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bench.peers import SEQPACKET, TCP, UNIX
from bench.plots import Bar, Chart, Line, Panel, bars, lines
from bench.targets import cpu, p50, rate
from bench.works import (
    CHANNELS,
    KIND_TITLES,
    PACKETS,
    STREAMS,
    TRIPS,
    Figure,
    Results,
    Sample,
    Series,
    Work,
    figure,
)

QUARTILES = "Median; the whisker spans the quartiles of all rounds. Each panel has its own scale."


def _bar(name: str, value: Figure, scale: float) -> Bar:
    return Bar(name, value.median * scale, value.low * scale, value.high * scale)


def _panel(series: Series, what: Callable[[Sample], float], unit: str, scale: float) -> Panel:
    found = []
    for peer in series.samples:
        value = series.figure(peer, what)
        # Without a proxy there is none to spend anything.
        if value is not None and value.median > 0:
            found.append(_bar(peer, value, scale))
    return Panel(series.work.title, unit, found)


def _panels(
    results: Results,
    works: Sequence[Work],
    what: Callable[[Sample], float],
    unit: str,
    scale: float,
) -> list[Panel]:
    chosen = [series for work in works if (series := results.find(work)) is not None]
    panels = [_panel(series, what, unit, scale) for series in chosen]
    return [panel for panel in panels if panel.bars]


def _channelCharts(results: Results) -> Iterator[Chart]:
    for kind, size in ((SEQPACKET, 64), (UNIX, 200), (TCP, 200)):
        points: dict[str, list[tuple[float, float]]] = {}
        for channels in (1, *CHANNELS):
            series = results.find(Work(kind, size, channels=channels))
            for peer in series.samples if series is not None else ():
                value = series.figure(peer, rate) if series is not None else None
                if value is not None:
                    points.setdefault(peer, []).append((channels, value.median / 1000))
        found = [Line(peer, each) for peer, each in points.items() if len(each) > 1]
        if found:
            title = f"{KIND_TITLES[kind]}, {size} B"
            yield Chart(title, "busy channels", "1,000 messages per second", found)


def _idlePanels(results: Results) -> Iterator[Panel]:
    for kind in (SEQPACKET, UNIX):
        of = {peer: idle for (each, peer), idle in results.idle.items() if each == kind}
        memory = [
            _bar(peer, figure(idle.bytesEach), 1 / 1024)
            for peer, idle in of.items()
            if idle.bytesEach and max(idle.bytesEach) > 0
        ]
        opening = [
            _bar(peer, figure(idle.secondsEach), 1e6)
            for peer, idle in of.items()
            if idle.secondsEach
        ]
        title = KIND_TITLES[kind]
        if memory:
            yield Panel(f"{title}: resident memory of each idle channel", "KiB", memory)
        if opening:
            yield Panel(f"{title}: time to establish each channel", "µs", opening)


def draw(results: Results) -> Iterator[tuple[str, str, str]]:
    """
    All plots for which there is something to draw.

    @return: for each its file's name, its title, and the SVG.
    """
    perMessage = "CPU time of the proxy per message, µs"
    perSecond = "1,000 messages per second"
    for name, title, works, what, unit, scale in (
        ("packets-cpu", "Packets: what one costs the proxy", PACKETS, cpu, perMessage, 1e6),
        ("packets-rate", "Packets: throughput", PACKETS, rate, perSecond, 1e-3),
        ("streams-cpu", "Streams: what one write costs the proxy", STREAMS, cpu, perMessage, 1e6),
        ("streams-rate", "Streams: throughput", STREAMS, rate, perSecond, 1e-3),
        ("trips", "Round trips, at the median", TRIPS, p50, "µs", 1e6),
    ):
        panels = _panels(results, works, what, unit, scale)
        if panels:
            yield f"pump-{name}.svg", title, bars(title, QUARTILES, panels)
    charts = list(_channelCharts(results))
    if charts:
        title = "Throughput with many busy channels"
        yield "pump-channels.svg", title, lines(title, charts)
    panels = list(_idlePanels(results))
    if panels:
        title = "Idle channels"
        yield "pump-idle.svg", title, bars(title, QUARTILES, panels)
