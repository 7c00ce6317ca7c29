"""
Examining: whether an epoll may be watched as a whole, and what each descriptor of a process is.

Looks at links and lists of one process, opens next to nothing; knows nothing of what is adopted.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

from attrs import field, frozen, mutable

from chanproxy.adopt.epolls import PIECE, Member, isSame, membersOf
from chanproxy.adopt.fragile import Treatment, treatmentOf
from chanproxy.adopt.naming import Ignored, describeLink
from chanproxy.adopt.rings import whyNotCompleted
from chanproxy.adopt.strangers import isKernels, isMember
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.threads import Gone
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeDuplicate

NEST = 3
"""How deep epolls are gone into."""

_COMPARED = 1_000_000
"""Members of an epoll times anonymous ones among them, up to which each of these is compared with
what its number stands for; the kernel goes through all of them each time, at 13 ns each."""

_SOCKETS = {"tcp", "udp", "unix", "vsock", "netlink", "socket"}


@frozen
class Inside:
    """
    What is in an epoll.

    @ivar apart: its members have to be watched one by one.
    """

    members: Sequence[Member] = ()
    apart: bool = False


@mutable
class Table:
    """
    The descriptors of one process, as far as they were looked at in one look.

    @ivar epolls: what is in those that were examined.
    @ivar known: numbers that were looked at, and stand for no io_uring that was not.
    @ivar eventfd: somebody waits for one.
    """

    subject: Subject
    directory: int
    epolls: dict[int, Inside] = field(factory=dict)
    known: set[int] = field(factory=set)
    rings: set[int] = field(factory=set)
    eventfd: bool = False

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.directory)

    def link(self, fd: int) -> str:
        """@raise OSError: there is no such descriptor."""
        return os.readlink(str(fd), dir_fd=self.directory)

    def path(self, fd: int) -> str:
        """Where a descriptor shows in C{/proc}."""
        return f"/proc/{self.subject.memory.thread}/fd/{fd}"


class Examiner:
    """Looks into the epolls of one process after the other."""

    def __init__(self, ignored: Ignored) -> None:
        """@param ignored: an epoll that may have such in it is watched apart."""
        self._kinds = ignored.kinds()
        # What kind of socket it is only a duplicate tells.
        self._sockets = bool(self._kinds & _SOCKETS)

    def open(self, subject: Subject) -> Table:
        """
        Begin with a process; what is returned is closed at the end of a C{with}.

        @raise Gone: there is no such process.
        """
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            # Its first thread may have ended, and shows none of them then.
            return Table(subject, os.open(f"/proc/{subject.memory.thread}/fd", flags))
        except (FileNotFoundError, ProcessLookupError):
            raise Gone from None

    def examine(self, table: Table, fd: int, depth: int = 0) -> Generator[None, None, Inside]:
        """
        Look into an epoll, and those inside it.

        @raise StillBusy: it cannot be watched at all.
        @raise Gone: there is no such process.
        """
        known = table.epolls.get(fd)
        if known is not None:
            return known
        if depth > NEST:
            # So deep in one another they cannot be watched as a whole; more is said there.
            return Inside(apart=True)
        label = table.subject.label
        try:
            members = yield from membersOf(table.subject.pid, fd)
        except OSError as error:
            raise StillBusy(f"{label}: its epoll {fd} cannot be looked into: {error}") from error
        anonymous = sum(member.isAnonymous for member in members)
        counted: dict[int, int] | None = {}
        if anonymous * len(members) > _COMPARED:
            counted = None
        apart, steps = False, 0
        for member in members:
            if member.isSocket:
                table.known.add(member.fd)
                apart = apart or self._sockets
                continue
            apart = (yield from self._other(table, fd, member, depth, counted)) or apart
            steps += 1
            if not steps % (PIECE // 4):
                yield None
        inside = table.epolls[fd] = Inside(members, apart)
        return inside

    def _other(
        self, table: Table, fd: int, member: Member, depth: int, counted: dict[int, int] | None
    ) -> Generator[None, None, bool]:
        """Whether something in an epoll that is no socket asks for watching its members apart."""
        try:
            link = table.link(member.fd)
        except OSError:
            link = ""
        pid = table.subject.pid
        # Of the others the inode tells, if it comes to watching them one by one.
        if member.isAnonymous and (
            not link or (counted is not None and not isSame(pid, fd, member, counted))
        ):
            raise StillBusy(
                f"busy: {table.subject.label}: what its epoll {fd} knows as descriptor "
                f"{member.fd} has another number by now"
            )
        if member.isFile and not self._isHarmless(table, member, link):
            if "file" in self._kinds or "device" in self._kinds:
                # Then it is seen which, and none of them is asked.
                return True
            raise StillBusy(
                f"busy: {table.subject.label}: what its epoll {fd} knows as descriptor "
                f"{member.fd} cannot be watched"
            )
        if not link:
            return False
        table.known.add(member.fd)
        kind = describeLink(link).kind
        if kind == "epoll":
            nested = yield from self.examine(table, member.fd, depth + 1)
            return nested.apart or "epoll" in self._kinds
        if kind == "io_uring" and kind not in self._kinds:
            checkRing(table, member.fd)
        elif kind == "eventfd":
            table.eventfd = True
        if kind in self._kinds:
            return True
        try:
            return treatmentOf(table.path(member.fd), link) is not Treatment.DUPLICATE
        except OSError:
            return False

    def _isHarmless(self, table: Table, member: Member, link: str) -> bool:
        """Whether the kernel answers a poll of a file in an epoll by itself."""
        pid, fd = table.subject.memory.thread, member.fd
        try:
            same = isMember(pid, fd, member.inode, member.device)
            return same and isKernels(pid, fd, link)
        except OSError:
            return False

    def checkRings(self, table: Table) -> Generator[None, None, None]:
        """
        Look for io_urings that tell by an eventfd, and that nobody waits on otherwise.

        @raise StillBusy: one cannot go on without the frozen program.
        """
        if not table.eventfd or "io_uring" in self._kinds:
            return
        steps = 0
        with os.scandir(table.directory) as entries:
            for entry in entries:
                steps += 1
                if not steps % (PIECE // 4):
                    yield None
                fd = int(entry.name)
                if fd in table.known:
                    continue
                try:
                    link = table.link(fd)
                except OSError:
                    continue
                if link == "anon_inode:[io_uring]":
                    checkRing(table, fd)


def checkRing(table: Table, fd: int) -> None:
    """@raise StillBusy: an io_uring could not go on without the frozen program."""
    if fd in table.rings:
        return
    table.rings.add(fd)
    try:
        duplicate = calls.duplicateFrom(table.subject.memory.pidfd, fd)
    except ProcessLookupError:
        return
    except OSError as error:
        text = f"{table.subject.label}: io_uring {fd}: {error.strerror}"
        raise StillBusy(text) from error
    try:
        why = whyNotCompleted(duplicate)
    except OSError as error:
        why = f"it cannot be asked: {error.strerror}"
    finally:
        closeDuplicate(duplicate)
    if why:
        raise StillBusy(f"busy: {table.subject.label} has an io_uring, descriptor {fd}: {why}")
