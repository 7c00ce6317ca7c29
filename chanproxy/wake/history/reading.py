"""
Reading: the history of some days, added up for each container.

Changes nothing, but that a write which was cut off half-way is undone, as SQLite does for whoever
opens the file next.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import urllib.parse
from collections.abc import Iterable

from attrs import define, field, frozen

from chanproxy.wake.history import schema
from chanproxy.wake.history.figures import HOUR, KEPT, NAMES, WOKE, Figures, quantile
from chanproxy.wake.history.place import Unusable
from chanproxy.wake.history.store import PATIENCE

MEDIAN, NEARLY_ALL = 0.5, 0.99
"""The quantiles of latencies that are told."""


@frozen
class Reason:
    """
    What woke a container, or kept it awake.

    @ivar count: how often it woke it.
    @ivar time: nanoseconds awake after these wakes, or that it kept it awake.
    """

    reason: str
    count: int
    time: int


@define
class Worth:
    """
    What became of a container.

    @ivar dry: in a dry run, in which nothing is stopped.
    @ivar woken: the reasons, the worst first: those after which it was awake for longest.
    @ivar kept: what kept it awake, likewise.
    @ivar latencies: buckets, see L{chanproxy.wake.history.figures.bucketOf}.
    """

    name: str
    dry: bool
    figures: Figures = field(factory=Figures)
    woken: list[Reason] = field(factory=list)
    kept: list[Reason] = field(factory=list)
    latencies: dict[int, int] = field(factory=dict)

    @property
    def spared(self) -> int | None:
        """See L{Figures.spared}."""
        return self.figures.spared(self.dry)

    def latency(self, part: float) -> float | None:
        """See L{quantile}."""
        return quantile(self.latencies, part)


@frozen
class Past:
    """
    Some days.

    @ivar since: seconds since 1970, the first hour of which there is anything; or C{until}.
    @ivar until: likewise, as of when it is.
    @ivar known: the names of all containers that were ever written down and are not forgotten.
    @ivar containers: those of these days.
    """

    since: float
    until: float
    known: tuple[str, ...]
    containers: tuple[Worth, ...]

    @property
    def total(self) -> Worth:
        """All together, but for dry runs; without reasons."""
        found = Worth("", False)
        for each in self.containers:
            if not each.dry:
                found.figures.add(each.figures)
                for bucket, count in each.latencies.items():
                    found.latencies[bucket] = found.latencies.get(bucket, 0) + count
        return found

    @property
    def spared(self) -> int | None:
        """Of those of whom it is known, together; L{None}: of nobody."""
        known = [each.spared for each in self.containers if not each.dry]
        return sum(each or 0 for each in known) if any(each is not None for each in known) else None


def read(path: str, days: int, now: float, name: str | None = None) -> Past:
    """
    Read a history.

    @param days: so many back from now.
    @param now: seconds since 1970.
    @param name: of one container.
    @raise Unusable: it cannot be read.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise Unusable(
            f"{path}: there is no history; it begins with a service that keeps one there, see "
            "history.path in its configuration"
        ) from None
    except OSError as error:
        hint = "; it is for root and the service's user" if error.errno == errno.EACCES else ""
        raise Unusable(f"{path}: {error.strerror}{hint}") from error
    # To be written to: or what was cut off half-way could not be undone.
    address = f"file:{urllib.parse.quote(path)}?mode=rw"
    try:
        file = sqlite3.connect(address, timeout=PATIENCE, isolation_level=None, uri=True)
        try:
            return _read(file, path, int(now // HOUR) - 24 * days + 1, name)
        finally:
            file.close()
    except sqlite3.Error as error:
        raise Unusable(f"{path}: cannot be read: {error}") from error


def _read(file: sqlite3.Connection, path: str, since: int, name: str | None) -> Past:
    application, version = schema.whatItIs(file)
    if not application:
        return Past(0.0, 0.0, (), ())
    if application != schema.APPLICATION:
        raise Unusable(f"{path}: is no history of chanproxy")
    if version > schema.VERSION:
        raise Unusable(
            f"{path}: was written by a newer chanproxy (tables of version {version}, "
            f"{schema.VERSION} is known); use its report"
        )
    # One state of it, whatever is written meanwhile.
    file.execute("BEGIN")
    known = file.execute("SELECT DISTINCT container FROM hours ORDER BY 1").fetchall()
    until = file.execute("SELECT until FROM written").fetchone()
    ended = 0.0 if until is None else float(until[0])
    where = "WHERE hour >= ?"
    arguments: list[int | str] = [since]
    if name is not None:
        where += " AND container = ?"
        arguments.append(name)
    (first,) = file.execute(f"SELECT min(hour) FROM hours {where}", arguments).fetchone()
    return Past(
        ended if first is None else first * HOUR,
        ended,
        tuple(each for (each,) in known),
        tuple(_containers(file, where, arguments)),
    )


def _containers(
    file: sqlite3.Connection, where: str, arguments: list[int | str]
) -> Iterable[Worth]:
    found: dict[tuple[str, int], Worth] = {}
    sums = ", ".join(f"sum({each})" for each in NAMES)
    for name, dry, *figures in file.execute(
        f"SELECT container, dry, {sums} FROM hours {where} GROUP BY 1, 2 ORDER BY 1, 2", arguments
    ):
        found[name, dry] = Worth(name, bool(dry), Figures(*figures))
    for name, dry, kind, reason, count, lasted in file.execute(
        f"SELECT container, dry, kind, reason, sum(count), sum(time) FROM reasons {where} "
        "GROUP BY 1, 2, 3, 4 ORDER BY 6 DESC, 5 DESC, 4",
        arguments,
    ):
        worth = found[name, dry]
        lists = {WOKE: worth.woken, KEPT: worth.kept}
        lists[kind].append(Reason(reason, count, lasted))
    for name, dry, bucket, count in file.execute(
        f"SELECT container, dry, bucket, sum(count) FROM latencies {where} GROUP BY 1, 2, 3",
        arguments,
    ):
        found[name, dry].latencies[bucket] = count
    return found.values()
