"""
Taking: the descriptors that frozen threads wait on are duplicated and polled.

Knows one process at a time, and what its threads wait for; knows nothing of registers and time.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Generator, Iterator, Sequence

from chanproxy.adopt.adopted import Adopted
from chanproxy.adopt.children import awaited
from chanproxy.adopt.edges import edgeOf
from chanproxy.adopt.epolls import Member, isSame
from chanproxy.adopt.examining import NEST, Examiner, Inside, Table, checkRing
from chanproxy.adopt.explaining import Origin
from chanproxy.adopt.fragile import Treatment, treatmentOf
from chanproxy.adopt.naming import Description, Ignored, describeLink
from chanproxy.adopt.peers import Listeners, describePeer
from chanproxy.adopt.socketlimits import limitOf
from chanproxy.adopt.strangers import isKernels
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.threads import Gone
from chanproxy.adopt.views import NotSeenBefore, Views
from chanproxy.adopt.waits import NotWaiting, Wait
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeDuplicate


class Taker:
    """Fills what is adopted in one look."""

    def __init__(
        self,
        container: str,
        adopted: Adopted,
        ignored: Ignored,
        stopped: bool,
        views: Views | None = None,
        frozenSince: int | None = None,
    ) -> None:
        """
        @param container: its name, for those of its sources.
        @param stopped: the container is frozen.
        @param views: those of the container; without them a mount that comes between the freeze
            and the look is not seen.
        @param frozenSince: when the freeze began: nanoseconds (C{CLOCK_MONOTONIC}).  Without it
            each connection that is edge-triggered and ready counts as one with something new, where
            the members of an epoll are watched one by one.
        """
        self._container = container
        self._adopted = adopted
        self._ignored = ignored
        self._stopped = stopped
        self._frozenSince = frozenSince
        self._examiner = Examiner(ignored)
        self._lasting = views
        self._views = Views(lasting=False) if views is None else views
        self._listeners = Listeners()
        self._taken: set[tuple[int, int, int]] = set()

    def takeAll(self, subjects: Sequence[Subject]) -> Iterator[None]:
        """
        Take what all of them wait for.

        Gives L{None} where others may have their turn.

        @raise StillBusy: something cannot be watched.
        """
        inside = {subject.pid for subject in subjects}
        self._views.begin()
        try:
            for subject in subjects:
                yield from self._takeOne(subject, inside)
            self._views.end()
        finally:
            if self._lasting is None:
                self._views.close()

    def _takeOne(self, subject: Subject, inside: set[int]) -> Generator[None, None, None]:
        try:
            with self._examiner.open(subject) as table:
                yield from self._takeWaits(table, inside)
                yield from self._examiner.checkRings(table)
        except Gone:
            # What it waited for has gone with it; its end is watched.
            pass
        if self._stopped:
            # Should it be killed, its peers have to see that at once.
            self._addEnd(subject.label, subject.memory.keepPidfd())

    def _takeWaits(self, table: Table, inside: set[int]) -> Generator[None, None, None]:
        subject = table.subject
        polled: set[int] = set()
        for tid, wait in subject.waits.items():
            # Threads that poll the same share their table; those of other calls may have a limit.
            known = len(wait.descriptors) > 1 and id(wait.descriptors) in polled
            polled.add(id(wait.descriptors))
            for fd, events in () if known else wait.descriptors:
                within = yield from self._take(table, wait, fd, events)
                if within is not None:
                    try:
                        subject.waits[tid] = wait.limited(within)
                    except NotWaiting as error:
                        raise StillBusy(f"busy: {subject.label} {error}") from None
                yield None
            if wait.children is not None:
                for label, pidfd in awaited(subject, wait.children, inside):
                    self._addEnd(label, pidfd)
                yield None

    def _take(
        self,
        table: Table,
        wait: Wait,
        fd: int,
        events: int,
        depth: int = 0,
        edge: bool = False,
    ) -> Generator[None, None, int | None]:
        """
        Take one descriptor.

        @param edge: the program has been told of all that came before the freeze.
        @return: nanoseconds after which the call ends by itself, for a socket that says so.
        """
        subject = table.subject
        key = (subject.pid, fd, events)
        if key in self._taken:
            return None
        self._taken.add(key)
        self._adopted.expectRoom()
        duplicate = self._duplicate(table, fd)
        if duplicate is None:
            return None
        try:
            description = describePeer(duplicate, lambda: self._listeners.of(subject.pid))
            ignored = self._ignored.matches(description)
            treatment = Treatment.LEAVE if ignored else _treatment(duplicate, description)
            within = limitOf(duplicate, wait.call) if description.isSocket else None
        except BaseException:
            closeDuplicate(duplicate)
            raise
        if treatment is not Treatment.DUPLICATE:
            closeDuplicate(duplicate)
            if treatment is not Treatment.LEAVE:
                self._takeByView(table, fd, description, treatment)
            return within
        inside = Inside()
        try:
            if description.kind == "io_uring":
                checkRing(table, fd)
            elif description.kind == "eventfd":
                table.eventfd = True
            elif description.kind == "epoll":
                inside = yield from self._examiner.examine(table, fd)
        except BaseException:
            closeDuplicate(duplicate)
            raise
        if inside.apart:
            closeDuplicate(duplicate)
            yield from self._takeInside(table, wait, fd, inside.members, depth)
            return None
        origin = Origin(subject.pid, fd, description, inside.members)
        try:
            self._adopt(subject.label, duplicate, events, origin, edge)
        except OSError as error:
            why = _whyNotPolled(description, error)
            raise StillBusy(f"busy: {subject.label} {why}") from error
        return within

    def _duplicate(self, table: Table, fd: int) -> int | None:
        """
        Duplicate a descriptor of what the kernel answers for.

        @return: None when the process has ended, or it is ignored and cannot be.
        @raise StillBusy: it cannot be, or must not.
        """
        subject, label = table.subject, table.subject.label
        try:
            link = table.link(fd)
            if not isKernels(subject.memory.thread, fd, link):
                # To poll it, and to close a duplicate, would ask whoever that is.
                description = describeLink(link)
                if self._ignored.matches(description):
                    return None
                raise StillBusy(f"busy: {label} waits for a {description}, which cannot be watched")
            duplicate = calls.duplicateFrom(subject.memory.pidfd, fd)
        except FileNotFoundError as error:
            closed = OSError(errno.EBADF, error.strerror)
            raise StillBusy(_whyNotDuplicated(label, fd, closed)) from error
        except ProcessLookupError:
            return None
        except OSError as error:
            raise StillBusy(_whyNotDuplicated(label, fd, error)) from error
        if os.readlink(f"/proc/self/fd/{duplicate}") != link:
            # Whoever shares its table, and is not frozen, has put another file there.
            closeDuplicate(duplicate)
            raise StillBusy(f"busy: {label}: its descriptor {fd} changes")
        return duplicate

    def _adopt(self, label: str, duplicate: int, events: int, origin: Origin, edge: bool) -> None:
        """@param duplicate: closed also when there is an error."""
        social = origin.description.isSocket
        name = f"{self._container}/{label} {origin.description}"
        if edge and self._frozenSince is not None and origin.description.kind == "tcp":
            try:
                found = edgeOf(duplicate, events, self._frozenSince)
            except BaseException:
                closeDuplicate(duplicate)
                raise
            if found is not None:
                into = (found.descriptor, select.EPOLLIN, social, origin, found.close, True)
                self._adopted.add(name, *into)
                return
        self._adopted.add(name, duplicate, events, social, origin)

    def _takeByView(
        self, table: Table, fd: int, description: Description, treatment: Treatment
    ) -> None:
        """Watch what must not be polled by a duplicate."""
        label = table.subject.label
        if treatment is Treatment.REFUSE:
            raise StillBusy(
                f"busy: {label} waits for a {description}, which tells whoever polls it only once"
            )
        try:
            descriptor, release = self._views.watch(table.subject.pid, fd)
        except NotSeenBefore as error:
            raise StillBusy(f"busy: {label} {str(error).format(description)}") from None
        except (FileNotFoundError, ProcessLookupError):
            raise Gone from None
        except OSError as error:
            raise StillBusy(
                f"busy: {label} waits for a {description}, which cannot be watched: "
                f"{error.strerror}"
            ) from error
        name = f"{self._container}/{label} {description}"
        origin = Origin(table.subject.pid, fd, description)
        into = (descriptor, select.EPOLLIN, False, origin, release, True)
        self._adopted.add(name, *into)

    def _takeInside(
        self, table: Table, wait: Wait, fd: int, members: Sequence[Member], depth: int
    ) -> Generator[None, None, None]:
        """
        Watch the members of an epoll one by one.

        Watched so most are level-triggered: an edge that the program has been told of already is
        told once more.
        """
        label = table.subject.label
        if depth >= NEST:
            raise StillBusy(f"busy: {label} has epolls in epolls, too deep to watch")
        for member in members:
            if not member.events:
                continue
            # Anonymous ones were compared when the epoll was examined.
            if not member.isAnonymous and not isSame(table.subject.pid, fd, member, {}):
                raise StillBusy(
                    f"busy: {label}: what its epoll {fd} knows as descriptor {member.fd} has "
                    "another number by now"
                )
            yield from self._take(table, wait, member.fd, member.events, depth + 1, member.edge)
            yield None

    def _addEnd(self, label: str, pidfd: int) -> None:
        """@param pidfd: closed also when there is an error."""
        try:
            self._adopted.expectRoom()
        except StillBusy:
            os.close(pidfd)
            raise
        self._adopted.add(f"{self._container}/{label} ended", pidfd, select.EPOLLIN, False)


def _treatment(duplicate: int, description: Description) -> Treatment:
    if description.isSocket:
        return Treatment.DUPLICATE
    path = f"/proc/self/fd/{duplicate}"
    return treatmentOf(path, os.readlink(path))


def _whyNotDuplicated(label: str, fd: int, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"{label} may not be looked into: that takes CAP_SYS_PTRACE"
    if error.errno == errno.EBADF:
        return f"busy: {label} waits on descriptor {fd}, which it has closed"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "out of descriptors: raise the limit of open files"
    return f"{label}: descriptor {fd}: {error.strerror}"


def _whyNotPolled(description: Description, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "has epolls in epolls, too deep to watch"
    if error.errno == errno.EPERM:
        return f"waits for a {description}, which cannot be watched"
    if error.errno == errno.ENOSPC:
        return "cannot be watched: raise fs.epoll.max_user_watches"
    return f"waits for a {description}: {error.strerror}"
