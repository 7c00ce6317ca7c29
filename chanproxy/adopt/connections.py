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

from chanproxy.adopt.epolls import parse, textOf
from chanproxy.adopt.flow import LISTEN, OPEN, Flow, Flowing, counts
from chanproxy.adopt.peers import Listeners, ends, ephemeral, internet
from chanproxy.adopt.subject import Subject
from chanproxy.adopt.threads import Gone
from chanproxy.kernel import calls
from chanproxy.kernel.borrowed import borrowed
from chanproxy.kernel.foreign import closeDuplicate
from chanproxy.words import safe

UNANSWERED = 30.0
"""Seconds for which a request is waited on, by default."""

ONE_WAY = 2
"""Connections to a port that never sent a byte, after which it counts as one that never does."""

_KEPT = 60.0
"""Seconds for which a connection that nothing waits on is remembered."""

_PIECE = 32
"""Connections that are looked at before others have their turn."""

_TABLE = 256
"""Descriptors that a process has open, of which so many are looked at, whatever waits on them."""

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
    """

    pid: int
    label: str
    pidfd: int
    descriptors: Sequence[int]


def watchedOf(subject: Subject) -> Watched:
    """A process that is being looked into, with what its threads wait on."""
    # Threads that poll the same share their table.
    tables = {id(wait.descriptors): wait.descriptors for wait in subject.waits.values()}
    descriptors = {fd for table in tables.values() for fd, _ in table}
    return Watched(subject.pid, subject.label, subject.memory.pidfd, tuple(descriptors))


@define
class _Connection:
    """One that was seen, with what was seen of it."""

    inbound: bool
    port: int
    seenAt: float
    counts: bytes = b""
    flowing: Flowing = field(factory=Flowing)


class Connections:
    """
    Those of one container, remembered from look to look.

    @ivar unanswered: seconds for which a request is waited on; 0: no connection is looked at.
    """

    def __init__(
        self,
        name: str,
        unanswered: float = UNANSWERED,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param name: the container's.
        @param seconds: by a clock that goes on at the kernel's pace.
        """
        self._name = name
        self.unanswered = unanswered
        self._seconds = seconds
        self._listeners = Listeners(seconds)
        # By the inodes of sockets, each of which is one for all processes and is not used again.
        self._known: dict[int, _Connection] = {}
        self._others: set[int] = set()
        self._silent: dict[int, set[int]] = {}
        # What was said of epolls, as hashes, and what followed from it.
        self._epolls: dict[tuple[int, int], _Epoll] = {}

    def look(self, watched: Iterable[Watched]) -> Generator[None, None, InFlight | None]:
        """
        Find somebody who waits for the container; it may run or be frozen.

        Gives L{None} where others may have their turn.  Every duplicate is closed when it does.

        @param watched: all processes of the container that are known.
        @return: the first that is found; None: nobody waits.
        """
        if not self.unanswered:
            return None
        began, seen, steps = self._seconds(), set[int](), 0
        epolls, self._epolls = self._epolls, {}
        for process in watched:
            try:
                sockets = yield from self._sockets(process, epolls)
            except (Gone, OSError):
                # It is looked at by others, who say what is wrong.
                continue
            for fd, inode in sockets:
                if inode in seen:
                    continue
                seen.add(inode)
                known = self._known.get(inode)
                if known is not None:
                    known.seenAt = began
                if inode in self._others or (known is not None and not known.inbound):
                    continue
                found = self._lookAt(process, fd, inode, began)
                if found is not None:
                    self._epolls = epolls | self._epolls
                    return found
                steps += 1
                if not steps % _PIECE:
                    yield None
        self._forget(seen, began)
        return None

    def _forget(self, seen: set[int], now: float) -> None:
        """All have been looked at: the rest is closed, or a thread has it in its hands just now."""
        self._others &= seen
        for inode in self._known.keys() - seen:
            if now - self._known[inode].seenAt > _KEPT:
                del self._known[inode]

    def _lookAt(self, process: Watched, fd: int, inode: int, began: float) -> InFlight | None:
        """One of up to tens of thousands: most are idle, and that is seen at once."""
        try:
            duplicate = calls.duplicateFrom(process.pidfd, fd)
        except OSError:
            return None
        try:
            info = calls.tcpInfo(duplicate)
            if info is None or info[0] == LISTEN:
                self._others.add(inode)
                return None
            known = self._known.get(inode)
            if known is not None:
                if known.counts == counts(info) and known.flowing.quiet:
                    return None
            elif info[0] in OPEN:
                known = self._known[inode] = self._connection(process.pid, duplicate, began)
                if not known.inbound:
                    return None
            else:
                return None
            known.counts = counts(info)
            flow = Flow.parse(info)
            if flow is None or flow.state not in OPEN:
                return None
            waiting = self._waitsFor(inode, known, flow)
            if waiting is None:
                return None
            with borrowed(duplicate) as looked:
                here, there = ends(looked.socket)
        except OSError:
            # It was reset just now.
            return None
        finally:
            closeDuplicate(duplicate)
        server = self._listeners.of(process.pid).shown(*here) or internet(*here)
        label = safe(f"{self._name}/{process.label} tcp {server}")
        return InFlight(f"{label} {waiting[0].format(internet(*there))}", waiting[1])

    def _waitsFor(self, inode: int, known: _Connection, flow: Flow) -> tuple[str, float] | None:
        """What there is to say, with a place for the peer, and for how long at most."""
        now, flowing = self._seconds(), known.flowing
        flowing.seen(flow, now)
        if flow.bytesOut:
            self._silent.pop(known.port, None)
        age = flowing.unanswered(now)
        if age is not None and age < self.unanswered:
            if flow.bytesOut or len(self._silent.get(known.port, ())) < ONE_WAY:
                return f"has not answered {{}} for {age:.1f} s", self.unanswered - age
        elif age is not None:
            flowing.silenced()
            silent = self._silent.setdefault(known.port, set())
            if not flow.bytesOut and len(silent) < ONE_WAY:
                silent.add(inode)
        more = flowing.streaming(now)
        if more is None:
            return None
        return f"has sent to {{}} every {flowing.gap:.1f} s", more

    def _connection(self, pid: int, descriptor: int, began: float) -> _Connection:
        port = calls.localPort(descriptor)
        first, last = ephemeral()
        inbound = not first <= port <= last or port in self._listeners.of(pid).addresses
        if not inbound:
            # It may have begun to listen only now.
            inbound = port in self._listeners.of(pid, since=began).addresses
        return _Connection(inbound, port, began)

    def _sockets(
        self, process: Watched, before: dict[tuple[int, int], _Epoll]
    ) -> Generator[None, None, list[tuple[int, int]]]:
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
            # Whoever has a request in its hands may wait for time or for another thread meanwhile,
            # and take its connection out of its epoll.
            _sort(directory, _table(directory), _NEST, found, [])
            yield None
            done = set()
            while epolls:
                fd, depth = epolls.pop()
                if fd in done:
                    continue
                done.add(fd)
                key = (process.pid, fd)
                inside = yield from _inside(*key, before.get(key))
                self._epolls[key] = inside
                found += inside.sockets
                if depth < _NEST and len(inside.others) <= _NESTED:
                    _sort(directory, inside.others, depth + 1, found, epolls)
                yield None
        finally:
            os.close(directory)
        return found


@frozen
class _Epoll:
    """
    What is in an epoll.

    @ivar text: a hash of what the kernel says of it.
    @ivar sockets: numbers and inodes.
    @ivar others: numbers of those among which there may be epolls.
    """

    text: int
    sockets: list[tuple[int, int]]
    others: list[int]


def _inside(pid: int, fd: int, before: _Epoll | None) -> Generator[None, None, _Epoll]:
    text = yield from textOf(pid, fd)
    same = hash(text)
    if before is not None and before.text == same:
        return before
    members = yield from parse(text)
    sockets = [(member.fd, member.inode) for member in members if member.isSocket]
    return _Epoll(same, sockets, [member.fd for member in members if member.isAnonymous])


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
