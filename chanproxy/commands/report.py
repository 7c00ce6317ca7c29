"""
C{chanproxy report}: what sleep was worth in the last days, from the history.

Blocking, without a reactor, and without a service: it reads the file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chanproxy.wake.history.figures import SECOND
from chanproxy.wake.history.place import Unusable, historyFile
from chanproxy.wake.history.reading import MEDIAN, NEARLY_ALL, Past, Reason, Worth, read
from chanproxy.words import meant, safe

SHOWN = 3
"""Reasons of each container that are shown where it is not asked for one."""

UNKNOWN = "-"

NOTES = (
    "p50, p99: from when chanproxy sees what wakes a container until that is thawed.",
    "spared: processor time that was not used, an estimate: what it used each second when it was "
    "seen awake and idle, times the seconds asleep, less what it used in its breaths.",
    "own: processor time of chanproxy itself, in equal shares.",
    "-: it is not known, or there was none.",
)


def lasted(seconds: float) -> str:
    """A time, with two units at the most."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us" if seconds else "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _nanoseconds(value: int | None) -> str:
    return UNKNOWN if value is None else lasted(value / SECOND)


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else lasted(value)


def _share(worth: Worth) -> str:
    share = worth.figures.share
    # What is not all is not shown as all.
    return UNKNOWN if share is None else f"{int(share * 1000) / 10:.1f}%"


class _Shown:
    """A report for people, 80 columns wide or as wide as the terminal."""

    def __init__(self, past: Past, days: int, name: str | None, path: str) -> None:
        self._say = Console(highlight=False, markup=False, emoji=False)
        self._past = past
        self._days = days
        self._name = name
        self._path = path

    def show(self) -> None:
        """Print it."""
        past = self._past
        of = "" if self._name is None else f" of {self._name}"
        if not past.containers:
            days = "day" if self._days == 1 else f"{self._days} days"
            self._say.print(f"There is nothing{of} in the last {days}.")
            return
        self._say.print(f"From {_when(past.since)} to {_when(past.until)}:\n")
        self._table()
        self._say.print()
        for note in (*NOTES, f"All of it is from {safe(self._path)}."):
            self._say.print(note)
        if any(each.dry for each in past.containers):
            self._say.print(
                "dry run: it was not stopped, and is in no total; spared is what it used while it "
                "would have slept."
            )
        for each in past.containers:
            self._reasons(each)

    def _table(self) -> None:
        table = _plain("container", "asleep", "for", "wakes", "p50", "p99", "spared", "own")
        for each in self._past.containers:
            name = f"{each.name} (dry run)" if each.dry else each.name
            _row(table, name, *_cells(each, each.spared))
        real = [each for each in self._past.containers if not each.dry]
        if len(real) > 1:
            _row(table, "all", *_cells(self._past.total, self._past.spared))
        self._say.print(table)

    def _reasons(self, worth: Worth) -> None:
        if self._name is not None:
            self._details(worth)
        most = SHOWN if self._name is None else None
        woken, kept = worth.woken[:most], worth.kept[:most]
        if woken:
            table = _plain(f"{worth.name}: woken by", "wakes", "awake after it")
            for each in woken:
                _row(table, each.reason, f"{each.count:,}", lasted(each.time / SECOND))
            self._say.print()
            self._say.print(table)
        if kept:
            table = _plain(f"{worth.name}: kept awake by", "for")
            for each in kept:
                _row(table, each.reason, lasted(each.time / SECOND))
            self._say.print()
            self._say.print(table)

    def _details(self, worth: Worth) -> None:
        figures = worth.figures
        table = _plain(f"{worth.name}: in detail", "")
        used = f"{_nanoseconds(figures.idleCpu)} in {_nanoseconds(figures.idleTime)}"
        for what, value in (
            ("awake", _nanoseconds(figures.awake)),
            ("freezes that were given up", f"{figures.failures:,}"),
            ("breaths", f"{figures.breaths:,}"),
            ("breaths took", _nanoseconds(figures.breathTime)),
            ("processor, while awake", _nanoseconds(figures.awakeCpu)),
            ("processor, while asleep", _nanoseconds(figures.asleepCpu)),
            ("processor, when it was seen awake and idle", used),
        ):
            _row(table, what, value)
        self._say.print()
        self._say.print(table)


def _plain(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(Text(safe(first)), overflow="fold", min_width=12)
    for other in others:
        table.add_column(Text(other), justify="right", no_wrap=True)
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(safe(cell)) for cell in cells))


def _cells(worth: Worth, spared: int | None) -> Iterable[str]:
    figures = worth.figures
    return (
        _share(worth),
        _nanoseconds(figures.asleep),
        f"{figures.sleeps:,}",
        _seconds(worth.latency(MEDIAN)),
        _seconds(worth.latency(NEARLY_ALL)),
        _nanoseconds(spared),
        _nanoseconds(figures.ownCpu),
    )


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def tree(past: Past) -> dict[str, Any]:
    """The same for programs; its fields are described in C{docs/report.md}."""
    return {
        "since": past.since,
        "until": past.until,
        "containers": [
            {
                "name": each.name,
                "dry_run": each.dry,
                **_figures(each, each.spared),
                "woken_by": [
                    {"reason": r.reason, "wakes": r.count, "awake": r.time / SECOND}
                    for r in each.woken
                ],
                "kept_awake_by": [_keptBy(r) for r in each.kept],
            }
            for each in past.containers
        ],
        "total": _figures(past.total, past.spared),
    }


def _keptBy(reason: Reason) -> dict[str, Any]:
    return {"reason": reason.reason, "awake": reason.time / SECOND}


def _figures(worth: Worth, spared: int | None) -> dict[str, Any]:
    figures = worth.figures
    return {
        "asleep_share": figures.share,
        "asleep": figures.asleep / SECOND,
        "awake": figures.awake / SECOND,
        "wakes": figures.sleeps,
        "failures": figures.failures,
        "breaths": figures.breaths,
        "breath_time": figures.breathTime / SECOND,
        "latency_p50": worth.latency(MEDIAN),
        "latency_p99": worth.latency(NEARLY_ALL),
        "latency_count": sum(worth.latencies.values()),
        "spared_cpu": None if spared is None else spared / SECOND,
        "idle_cpu": figures.idleCpu / SECOND,
        "idle_time": figures.idleTime / SECOND,
        "asleep_cpu": figures.asleepCpu / SECOND,
        "awake_cpu": figures.awakeCpu / SECOND,
        "own_cpu": figures.ownCpu / SECOND,
    }


@click.command("report")
@click.argument("name", required=False)
@click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=7,
    show_default=True,
    help="How many days back from now.",
)
@click.option("--json", "asJson", is_flag=True, help="For programs: one JSON object.")
@click.option("--history", "path", metavar="PATH", help="The file, if it is elsewhere.")
def report(name: str | None, days: int, asJson: bool, path: str | None) -> None:
    """
    Show what sleep was worth in the last days: how long each container slept, what woke it, and
    how much of the processor that has spared; with NAME, of one container, and more.

    No service need run. One that does writes every ten seconds.
    """
    try:
        path = path or historyFile()
        past = read(path, days, time.time(), name)
    except Unusable as error:
        raise click.ClickException(safe(str(error))) from None
    if name is not None and name not in past.known:
        near = meant(name, map(safe, past.known), "there are")
        raise click.BadParameter(
            f"no container {safe(repr(name))} is in the history; {near}", param_hint="NAME"
        )
    if asJson:
        json.dump(tree(past), sys.stdout)
        print()
    else:
        _Shown(past, days, name, path).show()
