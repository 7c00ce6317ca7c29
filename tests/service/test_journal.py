"""The observer that writes to the journal; the journal's side is a socket of the test's."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel

from chanproxy.container.changes import Changes
from chanproxy.service.journal import JournalObserver, isJournal

Entry = list[tuple[str, bytes]]

SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def parsed(data: bytes) -> Entry:
    """
    The fields of an entry, as systemd's documentation has them (Native Journal Protocol).

    Each is C{NAME=value} in a line, or C{NAME}, the end of the line, the size of the value in eight
    bytes, the least first, the value, and the end of a line.
    """
    found = []
    while data:
        line, end, rest = data.partition(b"\n")
        assert end
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert len(value) == size
            assert rest[:1] == b"\n"
            rest = rest[1:]
        # What systemd-journald takes; those with a line in front are its own.
        assert 0 < len(name) <= 64
        assert name.decode().replace("_", "A").isalnum()
        assert name == name.upper()
        assert not name.startswith(b"_")
        found.append((name.decode(), value))
        data = rest
    return found


class Journal:
    """Takes entries at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(10)

    def take(self) -> dict[str, bytes]:
        """The next entry, in which no field is twice."""
        fields = self.fields()
        assert len(dict(fields)) == len(fields)
        return dict(fields)

    def fields(self) -> Entry:
        """The next entry's."""
        data, ancillary, flags, _ = self._socket.recvmsg(300_000, 1000)
        assert not flags & socket.MSG_TRUNC
        if not ancillary:
            return parsed(data)
        assert data == b""
        ((level, kind, rights),) = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        (file,) = array.array("i", rights)
        try:
            # One that can still be changed is refused.
            assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALED == SEALED
            return parsed(os.pread(file, os.fstat(file).st_size, 0))
        finally:
            os.close(file)

    def close(self) -> None:
        """It ends."""
        self._socket.close()
        self.path.unlink()


@pytest.fixture
def stderr() -> Iterator[tuple[int, int]]:
    """Both ends of what stands for standard error."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def observer(tmp_path: Path, stderr: tuple[int, int]) -> Iterator[JournalObserver]:
    """Of a journal that may not be there."""
    made = JournalObserver(str(tmp_path / "socket"), stderr[1])
    yield made
    made.close()
    made.close()


@pytest.fixture
def log(observer: JournalObserver) -> Logger:
    """What it hears."""
    return Logger("chanproxy.test", observer=observer)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """It is there."""
    made = Journal(tmp_path / "socket")
    yield made
    made.close()


def test_change(observer: JournalObserver, journal: Journal) -> None:
    """What is known of a container is in fields of its own."""
    fields = {"container": "web", "state": "awake", "asleep_seconds": 41.26, "slept": "41 s"}
    reasons = ["10.0.0.7:5123 on tcp :80", "bell"]
    Logger(Changes._log.namespace, observer=observer).info(
        "{container} awake: {reason}; slept {slept}", reason="a,b", reasons=reasons, **fields
    )
    assert journal.fields() == [
        ("MESSAGE", b"web awake: a,b; slept 41 s"),
        ("PRIORITY", b"6"),
        ("SYSLOG_IDENTIFIER", b"chanproxy"),
        ("LOGGER", b"chanproxy.container.changes.Changes"),
        ("CONTAINER", b"web"),
        ("STATE", b"awake"),
        ("ASLEEP_SECONDS", b"41.26"),
        ("REASON", b"10.0.0.7:5123 on tcp :80"),
        ("REASON", b"bell"),
    ]


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (LogLevel.debug, b"7"),
        (LogLevel.info, b"6"),
        (LogLevel.warn, b"4"),
        (LogLevel.error, b"3"),
        (LogLevel.critical, b"2"),
    ],
)
def test_levels(log: Logger, journal: Journal, level: Any, priority: bytes) -> None:
    """As syslog numbers them."""
    log.emit(level, "web/http#3 is {name}", name="web/http#3")
    entry = journal.take()
    assert entry["PRIORITY"] == priority
    # Lines about a connection of a container belong to it, too.
    assert entry["CONTAINER"] == b"web"


def test_otherPrograms(observer: JournalObserver, journal: Journal) -> None:
    """What others call a name is no container."""
    Logger("twisted.x", observer=observer).info("{name}", name="somebody")
    assert "CONTAINER" not in journal.take()


def test_lines(log: Logger, journal: Journal) -> None:
    """A failure has its traceback in one entry; its lines are no fields."""
    try:
        raise ValueError("STATE=forged\nMESSAGE\nPRIORITY=0")
    except ValueError:
        log.failure("it failed")
    entry = journal.take()
    assert set(entry) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "LOGGER"}
    assert entry["MESSAGE"].startswith(b"it failed\nTraceback")
    assert b"STATE=forged\nMESSAGE\nPRIORITY=0" in entry["MESSAGE"]
    assert entry["PRIORITY"] == b"2"
    # Nor in one line, and whatever it holds.
    log.info("{a}", a="caf\udce9 A=1\x00\x1b")
    assert journal.take()["MESSAGE"] == b"caf\\udce9 A=1\x00\x1b"


def test_large(log: Logger, journal: Journal) -> None:
    """What is no datagram any more comes in a file that nobody can change."""
    text = "x" * 3_000_000
    log.info("{text}", text=text)
    assert journal.take()["MESSAGE"] == text.encode()
    log.info("after it")
    assert journal.take()["MESSAGE"] == b"after it"


def test_full(log: Logger, journal: Journal, stderr: tuple[int, int]) -> None:
    """A journal that does not read holds nobody up; how much it has lost is said."""
    for number in range(5000):
        log.info("{number}", number=number)
    taken = 0
    journal._socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            assert journal.take()["MESSAGE"] == b"%d" % taken
            taken += 1
    assert 0 < taken < 5000
    log.info("after it")
    lost = journal.take()
    assert lost["MESSAGE"] == b"%d lines were lost: the journal did not take them" % (5000 - taken)
    assert lost["PRIORITY"] == b"4"
    assert journal.take()["MESSAGE"] == b"after it"
    with pytest.raises(BlockingIOError):
        os.read(stderr[0], 1)


def test_notThere(log: Logger, tmp_path: Path, stderr: tuple[int, int]) -> None:
    """Without a journal lines go to standard error, each with its priority; until there is one."""
    log.warn("one\ntwo")
    assert os.read(stderr[0], 1000) == b"<4>one\n<4>two\n"
    for _ in range(2):
        journal = Journal(tmp_path / "socket")
        log.info("here")
        assert journal.take()["MESSAGE"] == b"here"
        journal.close()
        log.info("gone")
        assert os.read(stderr[0], 1000) == b"<6>gone\n"


def test_noStderr(tmp_path: Path) -> None:
    """And if there is neither, nobody fails."""
    observer = JournalObserver(str(tmp_path / "socket"), -1)
    Logger("x", observer=observer).info("nobody hears")
    observer.close()


def test_isJournal(stderr: tuple[int, int]) -> None:
    """Standard error is the journal's if it is what C{JOURNAL_STREAM} says."""
    status = os.fstat(stderr[1])
    named = f"{status.st_dev}:{status.st_ino}"
    assert isJournal(stderr[1], named)
    assert not isJournal(stderr[1], "")
    assert not isJournal(stderr[1], f"{status.st_dev}:{status.st_ino + 1}")
    assert not isJournal(-1, named)


CHOOSES = """
import os, sys
from chanproxy.service.logs import observerOf
if sys.argv[1] == "journal":
    status = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
found = observerOf(sys.argv[2], dict(each.split("=") for each in sys.argv[3:]), None)
print(type(found).__name__)
"""


@pytest.mark.parametrize(
    ("under", "kind", "options", "chosen"),
    [
        ("nothing", "auto", ["nodaemon=1"], "NoneType"),
        ("journal", "auto", ["nodaemon=1"], "JournalObserver"),
        ("journal", "auto", ["nodaemon=1", "logfile=x"], "NoneType"),
        ("journal", "auto", ["syslog=1"], "NoneType"),
        ("journal", "plain", ["nodaemon=1"], "NoneType"),
        ("nothing", "journal", ["nodaemon=1"], "JournalObserver"),
        ("journal", "json", ["nodaemon=1"], "JSONObserver"),
    ],
)
def test_chosen(under: str, kind: str, options: list[str], chosen: str) -> None:
    """By the configuration, by what standard error is, and by what twistd was told."""
    done = subprocess.run(
        [sys.executable, "-c", CHOOSES, under, kind, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"{chosen}\n", done.stderr
