"""
C{[history]}: where it is written down what sleep was worth, and how much of it is kept.

Pure; whether the file can be written shows when it is.
"""

from __future__ import annotations

from attrs import frozen

from chanproxy.config.keys import key, keysOf
from chanproxy.config.kinds import Text, Whole
from chanproxy.config.tables import Table
from chanproxy.words import brief

AUTO, OFF = "auto", "off"
"""The words that may stand for a path."""


def _parse(text: str) -> str:
    if text in (AUTO, OFF):
        return text
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        raise ValueError(f"{brief(text)} is no absolute path of a file, and neither auto nor off")
    return text


@frozen
class History:
    """
    C{[history]}.

    @ivar path: of the file; or L{AUTO}: as a program of its own, the service has one in its state
        directory; or L{OFF}.
    @ivar keepDays: days on which there was anything.
    @ivar maxBytes: of the file.
    """

    path: str = key(
        AUTO,
        Text(_parse, "/var/lib/chanproxy/history.sqlite", "absolute path, `auto`, `off`"),
        "Where to keep what sleep was worth: a path, auto, or off.",
    )
    keepDays: int = key(30, Whole(1, 3660, "days"), "How many days are kept.")
    maxBytes: int = key(
        32 * 1024 * 1024, Whole(1024 * 1024, 2**40, "bytes"), "How large its file may become."
    )


KEYS = keysOf(History)


def readHistory(table: Table) -> History:
    """What the configuration says; what is wrong with it is noted in the table."""
    history = History(**table.readAll(KEYS))
    table.end()
    return history
