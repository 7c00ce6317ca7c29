"""
The results as Markdown: what was reached, then a table for each kind of work, ratios first.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.measure import Processors
from bench.peers import CHANPROXY, NONE, SEQPACKET
from bench.rounds import Effort
from bench.targets import cpu, p50, rate, targets
from bench.works import KIND_TITLES, Figure, Results, Sample, Series, figure

DASH = "\N{EN DASH}"
IDLE_NOTE = (
    "Memory is what the proxy's processes have resident, shared pages in equal parts; what the "
    "kernel keeps for a socket is not in it."
)


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)
) -> list[str]:
    """@param words: the columns that are not numbers."""
    lines = ["| " + " | ".join(head) + " |"]
    marks = ["---" if column in words else "---:" for column in range(len(head))]
    lines.append("| " + " | ".join(marks) + " |")
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def _spread(value: Figure | None, write: Callable[[float], str]) -> str:
    if value is None:
        return DASH
    return f"{write(value.median)} ({write(value.low)}{DASH}{write(value.high)})"


def _number(value: float) -> str:
    return f"{value:.2f}"


def _perSecond(value: float) -> str:
    return f"{value / 1000:,.1f}" if value < 100000 else f"{value / 1000:,.0f}"


def _busy(sample: Sample) -> float:
    return sample.cpu * sample.rate


def _loading(sample: Sample) -> float:
    return sample.load


def _percent(series: Series, peer: str, what: Callable[[Sample], float]) -> str:
    value = series.figure(peer, what)
    return DASH if value is None or not value.median else f"{value.median * 100:.0f}"


def _mebibytes(value: int) -> str:
    return f"{value / 2**20:.1f}" if value else DASH


def microseconds(value: float) -> str:
    """Of seconds."""
    return f"{value * 1e6:.2f}" if value < 1e-5 else f"{value * 1e6:.1f}"


def machine(where: Processors) -> str:
    """One line."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip() + ", "
            break
    count = os.cpu_count()
    placed = f"proxies on processor {min(where.proxies)}, the load on {min(where.load)}"
    return (
        f"{model}{count} processors, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {placed}."
    )


def _targetsTable(results: Results) -> list[str]:
    rows = []
    for each in targets(results):
        sign = "≤" if each.atMost else "≥"
        asked = DASH if each.limit is None else f"{sign} {each.limit:g}{each.unit}"
        aim = DASH if each.aim is None else f"{sign} {each.aim:g}{each.unit}"
        number = _spread(each.reached, _number)
        rows.append([each.work, each.figure, asked, aim, number, each.verdict])
    return _table(["work", "chanproxy's", "to reach", "aim", "measured", ""], rows, (0, 1, 5))


def _flowTable(series: Series) -> list[str]:
    rows = []
    for peer in series.samples:
        own = peer == CHANPROXY
        cpuOf = None if peer == NONE else series.figure(peer, cpu)
        rows.append(
            [
                peer,
                DASH if own else _spread(series.ratio(CHANPROXY, peer, rate), _number),
                DASH if own else _spread(series.ratio(CHANPROXY, peer, cpu), _number),
                _spread(series.figure(peer, rate), _perSecond),
                _spread(cpuOf, microseconds),
                f"{_percent(series, peer, _busy)} / {_percent(series, peer, _loading)}",
                _mebibytes(series.memory.get(peer, 0)),
            ]
        )
    head = ["through", "chanproxy's throughput ÷ this", "its CPU ÷ this"]
    what = "packet" if series.work.kind == SEQPACKET else "write"
    head += [f"1,000 {what}s/s", f"CPU per {what}, µs", "busy: proxy / load, %", "memory, MiB"]
    return _table(head, rows)


def _tripTable(series: Series) -> list[str]:
    direct = series.figure(NONE, p50)
    rows = []
    for peer in series.samples:
        median = series.figure(peer, p50)
        added = DASH
        if direct is not None and median is not None and peer != NONE:
            added = microseconds(median.median - direct.median)
        own = peer == CHANPROXY
        rows.append(
            [
                peer,
                DASH if own else _spread(series.ratio(CHANPROXY, peer, p50), _number),
                _spread(median, microseconds),
                _spread(series.figure(peer, lambda sample: sample.p99), microseconds),
                added,
                DASH if peer == NONE else _spread(series.figure(peer, cpu), microseconds),
            ]
        )
    head = ["through", "chanproxy's p50 ÷ this", "p50, µs", "p99, µs"]
    return _table([*head, "added to p50, µs", "CPU per round trip, µs"], rows)


def _idleTable(results: Results, kind: str) -> list[str]:
    rows = []
    for (each, peer), idle in results.idle.items():
        if each != kind or not idle.wakes:
            continue
        crowded = figure(idle.crowded) if idle.crowded else None
        rows.append(
            [
                peer,
                f"{idle.channels:,}",
                _spread(crowded, _number),
                _spread(figure(idle.bytesEach), lambda value: f"{value / 1024:.2f}"),
                _spread(figure(idle.secondsEach), microseconds),
                f"{figure(idle.cpu).median * 100:.2f}",
                f"{figure(idle.wakes).median:.1f}",
            ]
        )
    head = ["through", "idle channels", "speed of a busy one ÷ alone", "memory each, KiB"]
    head += ["time to establish each, µs", "CPU while idle, %", "wakes/s while idle"]
    return _table(head, rows)


def _disturbed(results: Results) -> str | None:
    """How much others had of the proxies' processor, where a proxy is one process."""
    shares = [
        sample.waiting
        for series in results.series
        if series.work.channels == 1 and not series.work.trips
        for peer, samples in series.samples.items()
        if peer != NONE
        for sample in samples
    ]
    if not shares:
        return None
    share = figure(shares)
    return (
        "Others kept the proxies waiting for their processor "
        f"{share.median:.0%} of the time ({share.low:.0%}{DASH}{share.high:.0%}); "
        "0 on a quiet machine."
    )


def markdown(
    results: Results, where: Processors, effort: Effort, plots: Sequence[tuple[str, str]]
) -> str:
    """
    Everything.

    @param plots: files and what they show.
    """
    return "\n".join(_lines(results, where, effort, plots))


def _lines(
    results: Results, where: Processors, effort: Effort, plots: Sequence[tuple[str, str]]
) -> Iterator[str]:
    yield machine(where)
    yield (
        f"{effort.rounds} rounds of {effort.milliseconds} ms in turn, {effort.manyRounds} with "
        "many channels; each figure is a median with its quartiles, ratios are taken round by "
        "round."
    )
    yield "With no proxy both ends are the load's: a throughput near that is the load's limit."
    disturbed = _disturbed(results)
    if disturbed is not None:
        yield disturbed
    yield ""
    if results.notes:
        yield from (f"- {note.replace(chr(10), '; ')}" for note in results.notes)
        yield ""
    yield "## Figures to reach"
    yield ""
    yield from _targetsTable(results)
    for name, title in plots:
        yield f"![{title}]({name})"
        yield ""
    for series in results.series:
        if series.samples:
            yield f"## {series.work.title[0].upper()}{series.work.title[1:]}"
            yield ""
            yield from _tripTable(series) if series.work.trips else _flowTable(series)
    for kind in dict.fromkeys(kind for kind, _ in results.idle):
        yield f"## Idle channels, {KIND_TITLES[kind]}"
        yield ""
        yield IDLE_NOTE
        yield ""
        yield from _idleTable(results, kind)
