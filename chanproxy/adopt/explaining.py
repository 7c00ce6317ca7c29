"""
Explaining: which member of an epoll was ready, and who is at its other end, found after the wake.

Asking before the wake would delay it, and asking an epoll changes it.  Afterwards the kernel's own
notes tell: when data came on each connection, and what was accepted since.  Nothing of ours is
needed for a wake, so all of it is bounded, and when it finds nothing, nothing is said.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Sequence

from attrs import frozen

from chanproxy.adopt.epolls import Member, parse, textOf
from chanproxy.adopt.flow import OPEN, Flow
from chanproxy.adopt.naming import Description, describe, describeLink
from chanproxy.adopt.peers import Listeners, describePeer
from chanproxy.kernel import calls
from chanproxy.kernel.borrowed import borrowed
from chanproxy.kernel.foreign import closeDuplicate

MOST = 256
"""Descriptors of a process that are looked at."""

MOST_TOLD = 16
"""Descriptors in an epoll that are told of, while the container sleeps."""

SECONDS = 0.002
"""Of processor time that the explanation of one wake may take."""

_BEFORE, _AFTER = 0.05, 0.03
"""Seconds around the wake in which the data that woke it came: the kernel's clock has ticks of up
to 10 ms, and whoever looks may be late."""


@frozen
class Origin:
    """
    Where a source was found.

    @ivar descriptor: its number in the process.
    @ivar members: of an epoll that is watched as a whole.
    """

    pid: int
    descriptor: int
    description: Description
    members: Sequence[Member] = ()


def insideOf(origin: Origin, until: float) -> list[str]:
    """
    What is in an epoll that a frozen container waits on, for people; at most L{MOST_TOLD}.

    @param until: seconds of processor time (C{time.thread_time}), when it has taken too long.
    @raise OSError: the process has ended, or may not be looked into any more.
    """
    found: list[str] = []
    pidfd = os.pidfd_open(origin.pid)
    try:
        for member in origin.members[:MOST_TOLD]:
            if time.thread_time() > until:
                break
            if not member.isSocket:
                found.append(str(describeLink(os.readlink(f"/proc/{origin.pid}/fd/{member.fd}"))))
                continue
            duplicate = calls.duplicateFrom(pidfd, member.fd)
            try:
                found.append(str(describe(duplicate)))
            finally:
                closeDuplicate(duplicate)
    finally:
        os.close(pidfd)
    return found


class Explainer:
    """Explains one wake."""

    def __init__(self, wokenAt: int) -> None:
        """@param wokenAt: nanoseconds (C{CLOCK_MONOTONIC})."""
        self._wokenAt = wokenAt / 1e9
        self._until = time.thread_time() + SECONDS
        self._listeners = Listeners()

    def explain(self, origin: Origin) -> Description | None:
        """
        Say better what was ready.

        @return: None when that cannot be known.
        @raise OSError: the process has ended, or may not be looked into any more.
        """
        listening = origin.description.more == "listening"
        if origin.description.kind != "epoll" and not listening:
            return None
        if len(origin.members) > MOST:
            return None
        pidfd = os.pidfd_open(origin.pid)
        try:
            one = _Process(self, origin.pid, pidfd)
            return one.accepted(origin) if listening else one.inside(origin)
        finally:
            os.close(pidfd)

    @property
    def over(self) -> bool:
        """Whether the time for explaining is over."""
        return time.thread_time() > self._until

    def distance(self, info: bytes) -> float | None:
        """Seconds between the wake and the last data on a connection; None when it was not that."""
        flow = Flow.parse(info) if info[0] in OPEN else None
        if flow is None:
            return None
        late = time.monotonic() - flow.received - self._wokenAt
        return abs(late) if -_BEFORE <= late <= _AFTER else None

    def describe(self, pid: int, duplicate: int) -> Description:
        """Of a process's descriptor."""
        return describePeer(duplicate, lambda: self._listeners.of(pid))


class _Process:
    """A process of the container that was woken."""

    def __init__(self, explainer: Explainer, pid: int, pidfd: int) -> None:
        self._explainer = explainer
        self._pid = pid
        self._pidfd = pidfd

    def inside(self, origin: Origin) -> Description | None:
        """Which member of an epoll."""
        now = self._members(origin.descriptor)
        sockets = [member.fd for member in now if member.isSocket]
        found = self._arrived(sockets)
        if found is not None:
            return found
        before = {member.inode for member in origin.members}
        fresh = [member.fd for member in now if member.isSocket and member.inode not in before]
        found = self._onlyUnix(fresh)
        if found is not None:
            return found
        if len(origin.members) == 1:
            return self._only(origin.members[0])
        # What one epoll accepts may be in another, or in none.
        return self._arrived(self._table())

    def accepted(self, origin: Origin) -> Description | None:
        """Who came in by a listening socket that a thread waited on."""
        sockets = self._table()
        if origin.description.kind == "tcp":
            return self._arrived(sockets)
        return self._onlyUnix(sockets, origin.description.address)

    def _members(self, epoll: int) -> list[Member]:
        steps = textOf(self._pid, epoll)
        try:
            next(steps)
        except StopIteration as end:
            members = parse(end.value)
        else:
            # Of a process with so many descriptors that this takes its time.
            return []
        while True:
            try:
                next(members)
            except StopIteration as end:
                found: list[Member] = end.value
                return found[:MOST]

    def _table(self) -> list[int]:
        with os.scandir(f"/proc/{self._pid}/fd") as entries:
            numbers = [int(entry.name) for _, entry in zip(range(MOST), entries, strict=False)]
        return [fd for fd in numbers if self._isSocket(fd)]

    def _isSocket(self, fd: int) -> bool:
        try:
            return os.readlink(f"/proc/{self._pid}/fd/{fd}").startswith("socket:")
        except OSError:
            return False

    def _arrived(self, descriptors: Iterable[int]) -> Description | None:
        """The TCP connection whose data came nearest to the wake."""
        best: tuple[float, int] | None = None
        for fd in descriptors:
            if self._explainer.over:
                break
            try:
                duplicate = calls.duplicateFrom(self._pidfd, fd)
            except OSError:
                continue
            try:
                info = calls.tcpInfo(duplicate)
            finally:
                closeDuplicate(duplicate)
            distance = None if info is None else self._explainer.distance(info)
            if distance is not None and (best is None or distance < best[0]):
                best = distance, fd
        return None if best is None else self._describe(best[1])

    def _onlyUnix(self, descriptors: Iterable[int], path: str = "") -> Description | None:
        """The Unix connection among them, if there is only one."""
        found: list[Description] = []
        for fd in descriptors:
            if self._explainer.over:
                return None
            try:
                duplicate = calls.duplicateFrom(self._pidfd, fd)
            except OSError:
                continue
            try:
                description = self._unix(duplicate)
            finally:
                closeDuplicate(duplicate)
            if description is not None and path in ("", description.address):
                found.append(description)
        return found[0] if len(found) == 1 else None

    def _unix(self, duplicate: int) -> Description | None:
        try:
            with borrowed(duplicate) as looked:
                if looked.socket.family != socket.AF_UNIX:
                    return None
        except OSError:
            return None
        description = self._explainer.describe(self._pid, duplicate)
        return description if description.whole else None

    def _only(self, member: Member) -> Description | None:
        """What alone can have been ready."""
        if member.isSocket:
            return self._describe(member.fd)
        if not member.events & (select.EPOLLIN | select.EPOLLPRI):
            return None
        return describeLink(os.readlink(f"/proc/{self._pid}/fd/{member.fd}"))

    def _describe(self, fd: int) -> Description | None:
        try:
            duplicate = calls.duplicateFrom(self._pidfd, fd)
        except OSError:
            return None
        try:
            return self._explainer.describe(self._pid, duplicate)
        finally:
            closeDuplicate(duplicate)
