"""
Taking: the descriptors that frozen threads wait on are duplicated and polled.

Knows one process at a time, and what its threads wait for; knows nothing of registers and time.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence

from chanproxy import _syscalls
from chanproxy.adopt.adopted import Adopted
from chanproxy.adopt.decode import Children, Wait
from chanproxy.adopt.epolls import members
from chanproxy.adopt.naming import Description, Ignored, borrowed, describe, describeLink
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.threads import Gone, childrenOf, kinOf, threadStat

_NEST = 3
"""How deep epolls are gone into, when their descriptors are watched one by one."""

_RECEIVING = frozenset(("accept", "accept4", "read", "readv", "recvfrom", "recvmsg", "recvmmsg"))
_SENDING = frozenset(("connect", "sendmsg", "sendmmsg", "sendto", "write", "writev"))


class Taker:
    """Fills what is adopted in one look."""

    def __init__(self, container: str, adopted: Adopted, ignored: Ignored, stopped: bool) -> None:
        """
        @param container: its name, for those of its sources.
        @param stopped: the container is frozen.
        """
        self._container = container
        self._adopted = adopted
        self._ignored = ignored
        self._stopped = stopped
        self._taken: set[tuple[int, int, int]] = set()

    def takeAll(self, subjects: Sequence[Subject]) -> Iterator[None]:
        """
        Take what all of them wait for.

        Gives L{None} where others may have their turn.

        @raise StillBusy: something cannot be watched.
        """
        inside = {subject.pid for subject in subjects}
        for subject in subjects:
            for tid, wait in subject.waits.items():
                for fd, events in wait.descriptors:
                    within = self._take(subject, wait, fd, events)
                    if within is not None:
                        subject.waits[tid] = wait.limited(within)
                    yield None
                if wait.children is not None:
                    self._takeChildren(subject, wait.children, inside)
                    yield None
            if self._stopped:
                # Should it be killed, its peers have to see that at once.
                self._addEnd(subject.label, subject.memory.keepPidfd())

    def _take(
        self, subject: Subject, wait: Wait, fd: int, events: int, depth: int = 0
    ) -> int | None:
        """
        Take one descriptor.

        @return: nanoseconds after which the call ends by itself, for a socket that says so.
        """
        key = (subject.pid, fd, events)
        if key in self._taken:
            return None
        self._taken.add(key)
        if len(self._adopted) >= self._adopted.limit:
            raise StillBusy(
                f"it waits on more than {self._adopted.limit} descriptors; "
                "raise limits.wake-sources"
            )
        try:
            duplicate = _syscalls.duplicateFrom(subject.memory.pidfd, fd)
        except ProcessLookupError:
            return None
        except OSError as error:
            raise StillBusy(_whyNotDuplicated(subject.label, fd, error)) from error
        try:
            description = describe(duplicate)
            # Polling a signalfd asks after our own signals; theirs are looked for.
            left = self._ignored.matches(description) or description.kind == "signalfd"
            opened = description.kind == "epoll" and self._opens(subject.pid, fd)
            within = _ownTimeout(duplicate, wait.call, description)
        except BaseException:
            os.close(duplicate)
            raise
        if left or opened:
            os.close(duplicate)
            if opened:
                self._takeInside(subject, wait, fd, depth)
            return None if opened else within
        name = f"{self._container}/{subject.label} {description}"
        try:
            self._adopted.add(name, duplicate, events, description.isSocket)
        except OSError as error:
            raise StillBusy(f"busy: {subject.label} {_whyNotPolled(description, error)}") from error
        return within

    def _opens(self, pid: int, fd: int) -> bool:
        """Whether something in an epoll is ignored, so that the rest is to be watched by itself."""
        if not self._ignored:
            return False
        kinds = self._ignored.kinds()
        # What kind of socket it is only a duplicate tells.
        sockets = bool(kinds & {"tcp", "udp", "unix", "vsock", "netlink", "socket"})
        try:
            for member in members(pid, fd):
                link = describeLink(os.readlink(f"/proc/{pid}/fd/{member.fd}"))
                if link.kind in kinds or link.kind == "epoll" or (sockets and link.isSocket):
                    return True
        except (Gone, OSError):
            return True
        return False

    def _takeInside(self, subject: Subject, wait: Wait, fd: int, depth: int) -> None:
        if depth >= _NEST:
            raise StillBusy(f"busy: {subject.label} has epolls in epolls, too deep to watch")
        try:
            inside = members(subject.pid, fd)
        except Gone:
            return
        except OSError as error:
            raise StillBusy(
                f"{subject.label}: {error}; leave out ignore for this container"
            ) from error
        for member in inside:
            self._take(subject, wait, member.fd, member.events, depth + 1)

    def _takeChildren(self, subject: Subject, which: Children, inside: set[int]) -> None:
        try:
            own = kinOf(subject.pid)
            # The ends of those in the container are watched in any case.
            for pid in set(childrenOf(subject.pid)) - inside:
                kin = kinOf(pid)
                if not _waitsFor(which, kin.pids, kin.groups, own.groups, own.level):
                    continue
                if kin.ended:
                    # Between its parent's last look and the freeze, or after that.
                    raise StillBusy(
                        f"busy: {subject.label} waits for process {pid}, which has ended"
                    )
                self._addChild(pid)
        except Gone:
            return

    def _addChild(self, pid: int) -> None:
        name = threadStat(pid, pid).name
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError as error:
            raise StillBusy(f"out of descriptors: {error.strerror}") from error
        self._addEnd(f"{name}[{pid}]", pidfd)

    def _addEnd(self, label: str, pidfd: int) -> None:
        self._adopted.add(f"{self._container}/{label} ended", pidfd, select.EPOLLIN, False)


def _ownTimeout(descriptor: int, call: str, description: Description) -> int | None:
    """A socket's own limit for a call that waits, C{SO_RCVTIMEO} and C{SO_SNDTIMEO}."""
    if not description.isSocket or description.kind == "pipe":
        return None
    if call in _RECEIVING:
        option = socket.SO_RCVTIMEO
    elif call in _SENDING:
        option = socket.SO_SNDTIMEO
    else:
        return None
    try:
        with borrowed(descriptor) as looked:
            value = looked.socket.getsockopt(socket.SOL_SOCKET, option, 16)
    except OSError:
        return None
    seconds, microseconds = struct.unpack("qq", value)
    return (seconds * 1_000_000 + microseconds) * 1000 or None


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


def _waitsFor(
    which: Children,
    pids: Sequence[int],
    groups: Sequence[int],
    ownGroups: Sequence[int],
    level: int,
) -> bool:
    """Whether a child is one of those that are waited for, by its ids at the waiter's level."""
    if which.kind == "any":
        return True
    ids = pids if which.kind == "pid" else groups
    if level >= len(ids):
        return True
    if which.kind == "group" and which.value == 0:
        return level >= len(ownGroups) or ids[level] == ownGroups[level]
    return ids[level] == which.value
