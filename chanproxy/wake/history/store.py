"""
Store: writes the history, a batch at a time, and minds whatever can become of its file.

All of it may wait for a disk: it is called in a thread, see L{chanproxy.wake.history.keeper}.  The
file is open only meanwhile: a thread may lose its descriptors, L{chanproxy.kernel.leaving}, and a
file that was removed or put in place is noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator

from chanproxy.wake.history import schema
from chanproxy.wake.history.figures import HOUR, Batch
from chanproxy.wake.history.place import Unusable, openSafely

PATIENCE = 5.0
"""Seconds to wait for who reads the file just now."""

_JOURNAL = 1 << 20
"""Bytes that a write may take beside the file, as a rule."""

_TRIES = 64
"""How often room is made for one batch, a tenth each time: from any size to nothing."""


class Store:
    """
    The history of one service, which has the file to itself.

    @ivar path: of the file.
    """

    def __init__(self, path: str, days: int, most: int) -> None:
        """
        @param days: that are kept.
        @param most: bytes of the file.
        """
        self.path = path
        self._days = days
        self._most = most
        self._lock: int | None = None
        self._checked = False
        self._forgotAt = 0

    def write(self, batch: Batch, until: float) -> list[str]:
        """
        Add a batch; an empty one to see whether that could be done.

        @param until: see L{schema.add}.
        @return: sentences about what was done beside that.
        @raise Unusable: nothing of it is written.
        """
        try:
            self._takeLock()
            try:
                return self._write(batch, until)
            except sqlite3.DatabaseError as error:
                if _codeOf(error) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise
                aside = self._setAside()
            return [
                f"{self.path} was damaged, and is kept as {aside}; a new one is begun",
                *self._write(batch, until),
            ]
        except sqlite3.Error as error:
            raise Unusable(f"{self.path}: {error}") from error
        except OSError as error:
            raise Unusable(f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Let others have the file.  Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _takeLock(self) -> None:
        if self._lock is not None:
            return
        # Not on the file itself: SQLite has locks there, and goes by descriptors of its own.
        path = f"{self.path}-lock"
        lock = openSafely(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Unusable(
                f"{self.path}: another service writes it; give this one another file by history."
                'path, or "off"'
            ) from None
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # SQLite would make it for everybody to read.
        os.close(openSafely(self.path))
        file = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        try:
            self._prepare(file)
            yield file
        finally:
            file.close()

    def _prepare(self, file: sqlite3.Connection) -> None:
        application, version = schema.whatItIs(file)
        if application not in (0, schema.APPLICATION):
            raise Unusable(f"{self.path}: is the database of another program; move it away")
        if version > schema.VERSION:
            raise Unusable(
                f"{self.path}: was written by a newer chanproxy (tables of version {version}, "
                f"{schema.VERSION} is known): it is left alone; move it away to begin another one"
            )
        if not self._checked:
            (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _damaged(found)
        self._checked = True
        (size,) = file.execute("PRAGMA page_size").fetchone()
        file.execute(f"PRAGMA max_page_count = {self._most // size}").fetchone()
        if not application:
            schema.make(file)

    def _write(self, batch: Batch, until: float) -> list[str]:
        with self._open() as file:
            hour = int(until // HOUR)
            if hour != self._forgotAt:
                schema.forgetAllBut(file, self._days)
                self._forgotAt = hour
            tries = self._makingRoom(file, batch, until)
        if not tries:
            return []
        return [
            f"{self.path} is full: its oldest hours are forgotten; history.max-bytes says how "
            "much is kept"
        ]

    def _makingRoom(self, file: sqlite3.Connection, batch: Batch, until: float) -> int:
        """@return: how often something had to be forgotten."""
        for tries in range(_TRIES):
            try:
                schema.add(file, batch, until)
                return tries
            except sqlite3.OperationalError as error:
                if _codeOf(error) != sqlite3.SQLITE_FULL or not self._isAtItsLimit(file):
                    raise
                if not schema.forgetOldest(file):
                    break
        raise Unusable(f"{self.path}: {self._most} bytes are too few; raise history.max-bytes")

    def _isAtItsLimit(self, file: sqlite3.Connection) -> bool:
        """Or else it is the disk that is full."""
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        (size,) = file.execute("PRAGMA page_size").fetchone()
        left = self._most - pages * size
        disk = os.statvfs(self.path)
        # What it would have grown by is not known any more.
        return bool(left < self._most // 8 or disk.f_bavail * disk.f_frsize > left + _JOURNAL)

    def _setAside(self) -> str:
        aside = f"{self.path}-damaged"
        os.replace(self.path, aside)
        # With what belongs to it: beside a new file it would be taken for that one's.
        for more in ("-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path + more, aside + more)
        self._checked = False
        return aside


def _damaged(why: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(why)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _codeOf(error: sqlite3.Error) -> int:
    """SQLite's primary code; 0 where Python itself has raised it."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
