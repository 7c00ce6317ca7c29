"""
Showing: times, shares and tables for people, in a terminal or in a pipe.

Knows nothing of services.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from attrs import field, frozen

from chanproxy.words import safe


@frozen
class Moment:
    """
    When something was looked at, by both clocks.

    @ivar boot: nanoseconds (C{CLOCK_BOOTTIME}), as the manager has instants.
    @ivar unix: seconds.
    """

    boot: int
    unix: float = field(factory=time.time)

    def unixOf(self, instant: int) -> float:
        """The Unix time of an instant, seconds."""
        return self.unix + (instant - self.boot) / 1e9

    def ago(self, instant: int) -> float:
        """How many seconds ago it was; below zero: it will be."""
        return (self.boot - instant) / 1e9

    def local(self, unix: float) -> str:
        """A Unix time where the user is; with the day, if that is another one."""
        there, here = time.localtime(unix), time.localtime(self.unix)
        today = there[:3] == here[:3]
        return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", there)


def duration(seconds: float) -> str:
    """C{250 ms}, C{7.5 s}, C{3 min 12 s}, C{2 h 5 min}, C{4 d 11 h}: never more than it was."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    if seconds < 10:
        return f"{int(seconds * 10) / 10:g} s"
    whole = int(seconds)
    for name, length, less, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= length:
            return _two(whole // length, name, whole % length // part, less)
    return _two(whole // 60, "min", whole % 60, "s") if whole >= 60 else f"{whole} s"


def _two(first: int, name: str, second: int, less: str) -> str:
    return f"{first} {name} {second} {less}" if second else f"{first} {name}"


def percent(share: float) -> str:
    """A share, as a whole number that is neither 0 nor 100 where that would be wrong."""
    if 0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1:
        return ">99 %" if share > 0.995 else "99 %"
    return f"{share:.0%}".replace("%", " %")


def width() -> int | None:
    """Columns of the terminal that is written to; None: it is no terminal, and nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cut(text: str, columns: int) -> str:
    """As much of a line as goes into so many columns."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= columns:
        return text
    return set_cell_size(text, max(columns - 1, 0)).rstrip() + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """
    Print rows below a head; the last column is as wide as there is room.

    @param right: names of columns of figures.
    """
    lines = [list(head), *([safe(cell) for cell in row] for row in rows)]
    last = len(head) - 1
    wide = [max(len(line[column]) for line in lines) for column in range(last)]
    columns = width()
    for line in lines:
        cells = [
            cell.rjust(size) if name in right else cell.ljust(size)
            for cell, size, name in zip(line, wide, head, strict=False)
        ]
        text = "  ".join([*cells, line[last]]).rstrip()
        click.echo(text if columns is None else cut(text, columns))


def jsonLine(value: Mapping[str, Any]) -> None:
    """Print a line for programs, at once."""
    click.echo(json.dumps(value))
    sys.stdout.flush()


def wrapped(text: str, columns: int | None) -> list[str]:
    """A sentence as lines; one that is indented stays so.  None: as one line."""
    if columns is None:
        return [text]
    indent = " " * (len(text) - len(text.lstrip(" ")))
    lines = textwrap.wrap(
        text, max(columns, 20), subsequent_indent=indent + "  ", break_on_hyphens=False
    )
    return lines or [""]
