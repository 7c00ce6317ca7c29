"""
The file: its tables, and how what is to be written is added to them.

Each function takes an open connection; none knows where the file is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from chanproxy.wake.history.figures import NAMES, Batch, HourOf

APPLICATION = 0x43484E50
"""In the file's head, C{PRAGMA application_id}: it is one of ours."""

VERSION = 1
"""Of the tables, C{PRAGMA user_version}."""

_KEY = "hour INTEGER NOT NULL, container TEXT NOT NULL, dry INTEGER NOT NULL"

TABLES = f"""
CREATE TABLE hours (
    {_KEY}, {", ".join(f"{each} INTEGER NOT NULL" for each in NAMES)},
    PRIMARY KEY (hour, container, dry)
) WITHOUT ROWID;
CREATE TABLE reasons (
    {_KEY}, kind TEXT NOT NULL, reason TEXT NOT NULL,
    count INTEGER NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (hour, container, dry, kind, reason)
) WITHOUT ROWID;
CREATE TABLE latencies (
    {_KEY}, bucket INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (hour, container, dry, bucket)
) WITHOUT ROWID;
CREATE TABLE written (one INTEGER PRIMARY KEY CHECK (one = 1), until REAL NOT NULL);
"""

_TABLES_BY_HOUR = ("hours", "reasons", "latencies")


def _adding(table: str, keys: int, sums: tuple[str, ...]) -> str:
    places = ", ".join("?" * (keys + len(sums)))
    added = ", ".join(f"{each} = {each} + excluded.{each}" for each in sums)
    # Its primary key says what is the same row.
    return f"INSERT INTO {table} VALUES ({places}) ON CONFLICT DO UPDATE SET {added}"


_HOURS = _adding("hours", 3, NAMES)
_REASONS = _adding("reasons", 5, ("count", "time"))
_LATENCIES = _adding("latencies", 4, ("count",))


def whatItIs(file: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and of which version; 0 and 0 for an empty one."""
    (application,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if not application:
        (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        # Somebody else's, who does not say so.
        application = -1 if tables or version else 0
    return application, version


def make(file: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    # Before the first table, or never.
    file.execute("PRAGMA auto_vacuum = INCREMENTAL")
    file.executescript(
        f"BEGIN; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        f"{TABLES} COMMIT;"
    )


def add(file: sqlite3.Connection, batch: Batch, until: float) -> None:
    """
    Add a batch, all of it or nothing.

    @param until: seconds since 1970; what has come to pass until then is in the file.
    """
    file.execute("BEGIN IMMEDIATE")
    try:
        file.executemany(_HOURS, _hours(batch))
        file.executemany(_REASONS, _reasons(batch))
        file.executemany(_LATENCIES, _latencies(batch))
        file.execute("INSERT OR REPLACE INTO written VALUES (1, ?)", (until,))
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def _keyOf(hour: HourOf) -> tuple[int, str, int]:
    return hour.hour, hour.container, hour.dry


def _hours(batch: Batch) -> Iterator[tuple[object, ...]]:
    for hour, figures in batch.hours.items():
        yield *_keyOf(hour), *(getattr(figures, name) for name in NAMES)


def _reasons(batch: Batch) -> Iterator[tuple[object, ...]]:
    for because, effect in batch.reasons.items():
        yield *_keyOf(because.hour), because.kind, because.reason, effect.count, effect.time


def _latencies(batch: Batch) -> Iterator[tuple[object, ...]]:
    for (hour, bucket), count in batch.latencies.items():
        yield *_keyOf(hour), bucket, count


def forgetAllBut(file: sqlite3.Connection, days: int) -> None:
    """
    Keep the latest days on which there was anything.

    Not so many days back from now: with a clock that is wrong for once, that would be all or
    nothing.
    """
    found = file.execute(
        "SELECT DISTINCT hour / 24 FROM hours ORDER BY 1 DESC LIMIT 1 OFFSET ?", (days,)
    ).fetchone()
    if found is not None:
        _forget(file, (found[0] + 1) * 24)


def forgetOldest(file: sqlite3.Connection) -> bool:
    """
    Forget the oldest tenth of the hours, but never the latest.

    @return: whether anything was forgotten.
    """
    (count,) = file.execute("SELECT count(DISTINCT hour) FROM hours").fetchone()
    found = file.execute(
        "SELECT DISTINCT hour FROM hours ORDER BY 1 LIMIT 1 OFFSET ?", (max(count // 10, 1),)
    ).fetchone()
    if found is not None:
        _forget(file, found[0])
    return found is not None


def _forget(file: sqlite3.Connection, before: int) -> None:
    file.execute("BEGIN IMMEDIATE")
    try:
        for table in _TABLES_BY_HOUR:
            file.execute(f"DELETE FROM {table} WHERE hour < ?", (before,))
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise
    # Each row of its answer is a page that goes.
    file.execute("PRAGMA incremental_vacuum").fetchall()
