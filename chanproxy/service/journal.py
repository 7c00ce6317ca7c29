"""
Journal: a log observer that writes to systemd's journal, with fields, by its native protocol.

A datagram for each line, which never waits: what the journal does not take at once is counted, and
said with the next line that it takes.  Where there is no journal, lines go to standard error, each
with its priority in front as C{sd-daemon(3)} describes.  Knows no container.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping

from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText
from zope.interface import implementer

SOCKET = "/run/systemd/journal/socket"
"""Where the journal takes entries, C{systemd-journald.service(8)}."""

PRIORITIES: Mapping[object, int] = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
"""C{syslog(3)}"""

FIELDS = ("container", "state", "asked", "quiet_seconds", "asleep_seconds", "why")
"""Fields of events that an entry has as well, in capitals."""

_IDENTIFIER = ("SYSLOG_IDENTIFIER", "chanproxy")

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def written(fields: Iterable[tuple[str, str]]) -> bytes:
    """An entry of these fields, as it is sent."""
    pieces = []
    for name, value in fields:
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            pieces.append(b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data))
        else:
            pieces.append(b"%b=%b\n" % (name.encode(), data))
    return b"".join(pieces)


def isJournal(descriptor: int, named: str) -> bool:
    """
    Whether a descriptor is a stream of the journal's.

    @param named: what C{JOURNAL_STREAM} says, C{systemd.exec(5)}.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


@implementer(ILogObserver)
class JournalObserver:
    """Takes events, and makes an entry of each."""

    def __init__(self, path: str = SOCKET, stderr: int = 2) -> None:
        """
        @param path: of the journal's socket; looked for anew with each entry.
        @param stderr: a descriptor, where lines go while there is none.
        """
        self._path = path
        self._stderr = stderr
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __call__(self, event: LogEvent) -> None:
        """See L{ILogObserver}."""
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        priority = PRIORITIES.get(event.get("log_level"), 6)
        try:
            if self._lost:
                said = f"{self._lost} lines were lost: the journal did not take them"
                self._send(written([("MESSAGE", said), ("PRIORITY", "4"), _IDENTIFIER]))
                self._lost = 0
            self._send(written(_fields(event, text, priority)))
        except BlockingIOError:
            self._lost += 1
        except OSError:
            self._print(text, priority)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            with _sealed(data) as file:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))
                self._socket.sendmsg([], [rights], 0, self._path)

    def _print(self, text: str, priority: int) -> None:
        lines = "".join(f"<{priority}>{line}\n" for line in text.splitlines())
        with contextlib.suppress(OSError):
            os.write(self._stderr, lines.encode(errors="backslashreplace"))

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()


def _fields(event: LogEvent, text: str, priority: int) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", text
    yield "PRIORITY", str(priority)
    yield _IDENTIFIER
    namespace = str(event.get("log_namespace", ""))
    yield "LOGGER", namespace
    for name in FIELDS:
        if event.get(name) is not None:
            yield name.upper(), str(event[name])
    for reason in event.get("reasons", ()):
        yield "REASON", str(reason)
    if "container" not in event and "name" in event and namespace.startswith("chanproxy."):
        # A container's, or that of a connection of one.
        yield "CONTAINER", str(event["name"]).partition("/")[0]


@contextlib.contextmanager
def _sealed(data: bytes) -> Iterator[int]:
    """A file in memory that nobody can change: what is too large for a datagram."""
    file = os.memfd_create("chanproxy-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        yield file
    finally:
        os.close(file)
