"""
Connections: which of a container's TCP connections have somebody waiting at their other end.

The kernel notes of each connection when data came and when data went.  Data that came later than
any went is a request without an answer.  Knows processes and their descriptors; knows nothing of
freezing, and what is done about it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from attrs import define, field, frozen

from chanproxy import _syscalls
from chanproxy.adopt.epolls import membersOf
from chanproxy.adopt.flow import LISTEN, Flow, Flowing
from chanproxy.adopt.naming import borrowed, safe
from chanproxy.adopt.peers import Listeners, ends, ephemeral, internet
from chanproxy.adopt.threads import Gone

UNANSWERED = 30.0
"""Seconds for which a request is waited on, by default."""

ONE_WAY = 2
"""Connections to a port that never sent a byte, after which it counts as one that never does."""

_PIECE = 32
"""Connections that are looked at before others have their turn."""

_TABLE = 256
"""Open descriptors of a process, up to which all of them are looked at."""

_NEST, _NESTED = 3, 64
"""How deep epolls are gone into; and anonymous members of one, up to which that is done."""


@frozen
class InFlight:
    """
    Somebody waits for the container.

    @ivar why: in words.
    @ivar again: seconds after which it is over at the latest, unless something happens.
    """

    why: str
    again: float


@frozen
class Watched:
    """
    A process, and the descriptors that its threads wait on.

    @ivar label: its name, for people.
    @ivar pidfd: of it; stays the caller's.
    @ivar table: look at whatever else it has open, too, if that is not much: a thread that waits
        for time or for another one may have a request in its hands.
    """

    pid: int
    label: str
    pidfd: int
    descriptors: Sequence[int]
    table: bool = False


@define
class _Connection:
    """One that was seen, with what was seen of it."""

    inbound: bool
    port: int
    here: str
    there: str
    flowing: Flowing = field(factory=Flowing)


class Connections:
    """Those of one container, remembered from look to look."""

    def __init__(
        self,
        name: str,
        unanswered: float = UNANSWERED,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param name: the container's.
        @param unanswered: seconds for which a request is waited on; 0: no connection is looked at.
        @param seconds: by a clock that goes on at the kernel's pace.
        """
        self._name = name
        self._unanswered = unanswered
        self._seconds = seconds
        self._listeners = Listeners(seconds)
        # By the inodes of sockets, each of which is one for all processes and is not used again.
        self._known: dict[int, _Connection] = {}
        self._others: set[int] = set()
        self._silent: dict[int, set[int]] = {}

    def look(self, watched: Iterable[Watched]) -> Generator[None, None, InFlight | None]:
        """
        Find somebody who waits for the container; it may run or be frozen.

        Gives L{None} where others may have their turn.  Every duplicate is closed when it does.
        """
        if not self._unanswered:
            return None
        began, seen, steps = self._seconds(), set[int](), 0
        for process in watched:
            try:
                sockets = yield from _sockets(process)
            except (Gone, OSError):
                # It is looked at by others, who say what is wrong.
                continue
            for fd, inode in sockets:
                if inode in seen:
                    continue
                seen.add(inode)
                if inode in self._others:
                    continue
                found = self._lookAt(process, fd, inode, began)
                if found is not None:
                    return found
                steps += 1
                if not steps % _PIECE:
                    yield None
        self._forget(seen)
        return None

    def _forget(self, seen: set[int]) -> None:
        """All that there are have been looked at: the rest is closed."""
        self._others &= seen
        for inode in self._known.keys() - seen:
            del self._known[inode]

    def _lookAt(self, process: Watched, fd: int, inode: int, began: float) -> InFlight | None:
        try:
            duplicate = _syscalls.duplicateFrom(process.pidfd, fd)
        except OSError:
            return None
        try:
            flow = Flow.of(duplicate)
            if flow is None or flow.state == LISTEN:
                self._others.add(inode)
                return None
            if not flow.isOpen:
                return None
            known = self._known.get(inode)
            if known is None:
                known = self._known[inode] = self._connection(process.pid, duplicate, began)
        except OSError:
            # It was reset just now.
            return None
        finally:
            os.close(duplicate)
        return self._waitsFor(process, inode, known, flow) if known.inbound else None

    def _waitsFor(
        self, process: Watched, inode: int, known: _Connection, flow: Flow
    ) -> InFlight | None:
        now, flowing = self._seconds(), known.flowing
        flowing.seen(flow, now)
        if flow.bytesOut:
            self._silent.pop(known.port, None)
        label = f"{self._name}/{safe(process.label)} tcp {known.here}"
        age = flowing.unanswered(now)
        if age is not None and age < self._unanswered:
            if flow.bytesOut or len(self._silent.get(known.port, ())) < ONE_WAY:
                why = f"{label} has not answered {known.there} for {age:.1f} s"
                return InFlight(why, self._unanswered - age)
        elif age is not None:
            flowing.silenced()
            if not flow.bytesOut:
                self._silent.setdefault(known.port, set()).add(inode)
        more = flowing.streaming(now)
        if more is not None:
            why = f"{label} has sent to {known.there} every {flowing.gap:.1f} s"
            return InFlight(why, more)
        return None

    def _connection(self, pid: int, descriptor: int, began: float) -> _Connection:
        with borrowed(descriptor) as looked:
            here, there = ends(looked.socket)
        listening = self._listeners.of(pid)
        server = listening.shown(*here)
        first, last = ephemeral()
        if server is None and first <= here[1] <= last:
            # It may have begun to listen only now.
            server = self._listeners.of(pid, since=began).shown(*here)
        inbound = server is not None or not first <= here[1] <= last
        return _Connection(inbound, here[1], server or internet(*here), internet(*there))


def _sockets(process: Watched) -> Generator[None, None, list[tuple[int, int]]]:
    """The sockets that a process waits on: their numbers and inodes."""
    found: list[tuple[int, int]] = []
    epolls: list[tuple[int, int]] = []
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        directory = os.open(f"/proc/{process.pid}/fd", flags)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    try:
        _sort(directory, process.descriptors, 0, found, epolls)
        if process.table:
            _sort(directory, _table(directory), _NEST, found, [])
        yield None
        done = set()
        while epolls:
            fd, depth = epolls.pop()
            if fd in done:
                continue
            done.add(fd)
            members = yield from membersOf(process.pid, fd)
            others = []
            for member in members:
                if member.isSocket:
                    found.append((member.fd, member.inode))
                elif member.isAnonymous:
                    others.append(member.fd)
            if depth < _NEST and len(others) <= _NESTED:
                _sort(directory, others, depth + 1, found, epolls)
            yield None
    finally:
        os.close(directory)
    return found


def _sort(
    directory: int,
    descriptors: Iterable[int],
    depth: int,
    sockets: list[tuple[int, int]],
    epolls: list[tuple[int, int]],
) -> None:
    for fd in descriptors:
        try:
            link = os.readlink(str(fd), dir_fd=directory)
        except OSError:
            continue
        if link.startswith("socket:["):
            sockets.append((fd, int(link[8:-1])))
        elif link == "anon_inode:[eventpoll]":
            epolls.append((fd, depth))


def _table(directory: int) -> Iterator[int]:
    with os.scandir(directory) as entries:
        for _, entry in zip(range(_TABLE), entries, strict=False):
            yield int(entry.name)
