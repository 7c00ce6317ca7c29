"""
The board of C{chanproxy top}: which rows are seen, in which order, and which one is chosen.

Draws; knows no service and no terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chanproxy.commands.rows import Row
from chanproxy.commands.showing import Moment, duration, wrapped
from chanproxy.words import safe

ORDERS: dict[str, tuple[str, Callable[[Row], Any], bool]] = {
    "n": ("NAME", lambda row: row.name, False),
    "t": ("STATE", lambda row: row.state, False),
    "f": ("FOR", lambda row: row.seconds, True),
    "a": ("ASLEEP", lambda row: row.today or 0.0, True),
    "p": ("SPARED", lambda row: row.spared or 0.0, True),
}
"""By the key that asks for it: the column, what is compared, and whether the largest is first."""

HELP = "↑↓ ⏎ why  s suspend  r resume  z pause  n t f a p sort  i invert  q quit"

HELP_INSIDE = "↑↓ scroll  s suspend  r resume  z pause  Esc back  q quit"

COLOURS = {
    "asleep": "cyan",
    "paused": "magenta",
    "awake": "green",
    "suspending": "yellow",
    "resuming": "yellow",
}

MESSAGE = 10.0
"""Seconds for which it is said what has happened."""

AROUND = 4
"""Lines that are no rows: the title, the head, the message, the help."""


class Board:
    """
    What somebody looks at.

    @ivar opened: sentences about one container, instead of all; None: the rows.
    """

    def __init__(self, path: str) -> None:
        """@param path: of the control socket, to be shown."""
        self._path = safe(path)
        self._rows: list[Row] = []
        self._moment = Moment(0)
        self._gone = ""
        self._order = "n"
        self._inverted = False
        self._chosen: str | None = None
        self._top = 0
        self._message, self._forget = "", 0.0
        self.opened: Sequence[str] | None = None
        self._scrolled = 0

    def show(self, rows: Sequence[Row], moment: Moment) -> None:
        """Rows, as of a moment."""
        self._gone = ""
        self._moment = moment
        self._rows = list(rows)
        self._sort()
        if self._chosen not in [row.name for row in rows]:
            # It stays chosen wherever its row goes: keys are meant for what was seen.
            self._chosen = self._rows[0].name if rows else None
        if moment.unix > self._forget:
            self._message = ""

    def lost(self, why: str) -> None:
        """Nobody answers any more; the last rows stay."""
        self._gone = why

    def _sort(self) -> None:
        _, key, largest = ORDERS[self._order]
        self._rows.sort(key=lambda row: row.name)
        self._rows.sort(key=key, reverse=largest != self._inverted)

    @property
    def chosen(self) -> str | None:
        """The name of the container that is chosen; None: there is none."""
        return self._chosen

    def _number(self) -> int:
        return [row.name for row in self._rows].index(self._chosen or "")

    def isPaused(self, name: str) -> bool:
        """Whether it was when it was looked at last."""
        return any(row.name == name and row.pausedBy for row in self._rows)

    def say(self, message: str) -> None:
        """What has happened, in a line of its own, for a while."""
        self._message = message
        self._forget = self._moment.unix + MESSAGE

    def key(self, key: str, lines: int) -> None:
        """
        Choose, scroll or sort, if that is what a key is for.

        @param lines: of the screen.
        """
        page = max(lines - AROUND - 1, 1)
        step = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page}
        step |= {"home": -(10**9), "end": 10**9}
        if self.opened is not None:
            self._scrolled = max(self._scrolled + step.get(key, 0), 0)
        elif key in step and self._rows:
            number = min(max(self._number() + step[key], 0), len(self._rows) - 1)
            self._chosen = self._rows[number].name
        elif key in ORDERS:
            self._order, self._inverted = key, False
            self._sort()
        elif key == "i":
            self._inverted = not self._inverted
            self._sort()

    def open(self, sentences: Sequence[str] | None) -> None:
        """Show sentences about the one that is chosen; None: all rows again."""
        if (sentences is None) != (self.opened is None):
            self._scrolled = 0
        self.opened = sentences

    def drawn(self, columns: int, lines: int) -> RenderableType:
        """All of it."""
        title = Text(self._title(), no_wrap=True, overflow="ellipsis", style="bold")
        room = max(lines - AROUND, 1)
        if self.opened is None:
            # With the head.
            body: list[RenderableType] = [self._table(room)]
            filled = min(len(self._rows), room) + 1
        else:
            body = list(self._sentences(columns, room + 1))
            filled = len(body)
        body += [Text("")] * (room + 1 - filled)
        said = self._gone or self._message
        message = Text(safe(said), no_wrap=True, overflow="ellipsis", style="bold red")
        words = HELP if self.opened is None else HELP_INSIDE
        keys = Text(words, no_wrap=True, overflow="ellipsis", style="dim")
        return Group(title, *body, message, keys)

    def _title(self) -> str:
        states = [row.state if not row.pausedBy else "paused" for row in self._rows]
        asleep, paused = states.count("asleep"), states.count("paused")
        count = len(self._rows)
        containers = "1 container" if count == 1 else f"{count} containers"
        if self._gone:
            return f"chanproxy: no service, trying again; {containers} before  {self._path}"
        at = self._moment.local(self._moment.unix)
        more = f", {paused} paused" if paused else ""
        return f"chanproxy {at}: {containers}, {asleep} asleep{more}  {self._path}"

    def _table(self, room: int) -> Table:
        number = self._number() if self._rows else 0
        self._top = max(min(self._top, number, len(self._rows) - room), number - room + 1, 0)
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
        sorted_, _, _ = ORDERS[self._order]
        for name in ("NAME", "STATE", "FOR", "ASLEEP", "SPARED"):
            table.add_column(
                Text(name, style="bold underline" if name == sorted_ else "bold"),
                justify="left" if name in ("NAME", "STATE") else "right",
                no_wrap=True,
                max_width=24,
            )
        table.add_column(Text("WHY", style="bold"), no_wrap=True, overflow="ellipsis", ratio=1)
        for at, row in enumerate(self._rows[self._top : self._top + room], self._top):
            table.add_row(
                Text(safe(row.name)),
                Text(row.shownState, style=COLOURS.get(row.shownState, "")),
                duration(row.seconds),
                *row.worth,
                Text(safe(row.reason(self._moment))),
                style="reverse" if at == number else "dim" if self._gone else "",
            )
        return table

    def _sentences(self, columns: int, room: int) -> list[Text]:
        assert self.opened is not None
        lines = [line for each in self.opened for line in wrapped(safe(each), columns)]
        self._scrolled = min(self._scrolled, max(len(lines) - room, 0))
        return [Text(line, no_wrap=True) for line in lines[self._scrolled :][:room]]
