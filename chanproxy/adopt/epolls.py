"""
What is inside an epoll of another process, from C{/proc/PID/fdinfo}.

An epoll can be watched as a whole, at no cost per descriptor, as long as asking it changes nothing;
else each of its descriptors is watched by itself.  Knows nothing of what is watched, and why.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
from collections.abc import Generator
from functools import cache
from typing import NamedTuple

from chanproxy.adopt.threads import Gone
from chanproxy.kernel import calls

PIECE = 128
"""Members that are gone through before others have their turn."""

_MANY = 1000
"""Open descriptors of a process from which on its epolls are read beside the reactor."""

_MEMBER = re.compile(
    rb"^tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*[0-9a-f]+\s+pos:\S+ ino:([0-9a-f]+)"
    rb"(?: sdev:([0-9a-f]+))?",
    re.MULTILINE,
)

_EVENTS = (
    select.EPOLLIN
    | select.EPOLLPRI
    | select.EPOLLOUT
    | select.EPOLLRDNORM
    | select.EPOLLRDBAND
    | select.EPOLLWRNORM
    | select.EPOLLWRBAND
    | select.EPOLLMSG
    | select.EPOLLRDHUP
)
"""What can be waited for; errors and hang-ups always are, and the rest says how it is told."""


class Member(NamedTuple):
    """
    A descriptor in an epoll.

    @ivar fd: its number when it was added.
    @ivar events: that it is watched for, without C{EPOLLET} and the like; none for a one-shot that
        has fired, which waits for nothing until it is armed again.
    @ivar inode: of the open file; all anonymous ones share one.
    @ivar device: of that, as the kernel counts inside; -1 when it does not say.
    @ivar edge: the program is told once of each that comes, C{EPOLLET}.
    """

    fd: int
    events: int
    inode: int
    device: int
    edge: bool = False

    @property
    def isSocket(self) -> bool:
        """It is one of the kernel's sockets, whatever its number stands for by now."""
        return self.device == devices()[0]

    @property
    def isAnonymous(self) -> bool:
        """It is an eventfd, a signalfd, an epoll and so on: only its link tells."""
        return self.device == devices()[1]

    @property
    def isFile(self) -> bool:
        """It is none of these, and no pipe: somebody else may answer for it."""
        return self.device not in (*devices(), -1)


def membersOf(pid: int, fd: int) -> Generator[None, None, list[Member]]:
    """
    The descriptors in an epoll; gives L{None} where others may have their turn.

    @raise Gone: there is no such process.
    @raise OSError: it cannot be read.
    """
    return (yield from parse((yield from textOf(pid, fd))))


def parse(text: bytes) -> Generator[None, None, list[Member]]:
    """The same, from what L{textOf} gave."""
    found = []
    for each in _MEMBER.finditer(text):
        number, events, inode, device = each.groups(b"-1")
        raw = int(events, 16)
        edge = bool(raw & select.EPOLLET)
        found.append(Member(int(number), raw & _EVENTS, int(inode, 16), int(device, 16), edge))
        if not len(found) % PIECE:
            yield None
    return found


def isSame(pid: int, fd: int, member: Member, counted: dict[int, int]) -> bool:
    """
    Whether the number of a descriptor in an epoll still stands for the file that is in there.

    @param counted: by number, how many members were asked about, all of the epoll in their order:
        two have one number when it was used anew while the file that it stood for lived on.
    """
    if not member.isAnonymous:
        try:
            status = calls.statusOf(f"/proc/{pid}/fd/{member.fd}")
        except OSError:
            return False
        return (status.inode, status.device) == (member.inode, member.device)
    # All anonymous ones share one inode.
    offset = counted[member.fd] = counted.get(member.fd, -1) + 1
    return calls.isEpollTarget(pid, fd, member.fd, offset) is not False


def textOf(pid: int, fd: int) -> Generator[None, None, bytes]:
    """
    What the kernel says of an epoll; the same text means the same files, by the same numbers.

    @raise Gone: there is no such process.
    @raise OSError: it cannot be read.
    """
    # All of it comes in one read, which takes two milliseconds for a thousand members.
    path = f"/proc/{pid}/fdinfo/{fd}"
    try:
        # The number of open descriptors, from Linux 6.2 on.
        if os.stat(f"/proc/{pid}/fd").st_size < _MANY:
            return _readNow(path)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    beside = _Reading(path)
    beside.start()
    while beside.is_alive():
        # Not for long, and not not at all, which would keep the processor from it.
        beside.join(0.001)
        yield None
    if beside.error is not None:
        raise beside.error
    return beside.text


class _Reading(threading.Thread):
    """Reads one file; the interpreter goes on meanwhile."""

    def __init__(self, path: str) -> None:
        super().__init__(name="chanproxy-fdinfo", daemon=True)
        self._path = path
        self.text = b""
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.text = _readNow(self._path)
        except (Gone, OSError) as error:
            self.error = error


def _readNow(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None


@cache
def devices() -> tuple[int, int, int]:
    """
    The kernel's inner numbers of the devices that sockets, anonymous inodes and pipes without a
    name are on.
    """
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as some, select.epoll() as other:
            every = (some.fileno(), other.fileno(), ends[0])
            sockets, anonymous, pipes = (calls.statusOf(fd).device for fd in every)
    finally:
        for fd in ends:
            os.close(fd)
    return sockets, anonymous, pipes


def innerDevice(device: int) -> int:
    """A device's number as the kernel writes it in C{/proc/PID/fdinfo}."""
    # linux/kdev_t.h
    return os.major(device) << 20 | os.minor(device)
