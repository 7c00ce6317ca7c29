"""
Inspector: looks into a frozen container, and adopts what its threads wait for.

Knows processes and the kernel; knows nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy import _syscalls
from chanproxy.adopt.adopted import Adopted
from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.deadlines import Deadlines, NotYet, Timed
from chanproxy.adopt.decode import Children, NotWaiting, Wait, decode
from chanproxy.adopt.epolls import members
from chanproxy.adopt.naming import Description, Ignored, describe, describeLink
from chanproxy.adopt.processors import Call, Processor, UnknownProgram, processor
from chanproxy.adopt.threads import (
    Gone,
    Memory,
    childrenOf,
    kinOf,
    position,
    threadsOf,
    threadStat,
)
from chanproxy.adopt.tracing import CannotTrace, Tracer
from chanproxy.wake import SourceGroup

SLICE = 0.004
"""Seconds that a look may take at a time, before others have their turn."""

TRACED_AT_ONCE = 32
"""Threads that are stopped side by side."""

_NEST = 3
"""How deep epolls are gone into, when their descriptors are watched one by one."""


class StillBusy(Exception):
    """The container works, or cannot be watched; the text says which thread, and what it does."""


@frozen
class _Remembered:
    """A call with a relative timeout, as it was before the kernel restarted it."""

    arguments: tuple[int, ...]
    instruction: int
    name: str
    at: int

    def isOf(self, call: Call) -> bool:
        """Whether it is the same call still."""
        return self.arguments == call.arguments and self.instruction == call.at


@define(eq=False)
class _Process:
    """One process during a look."""

    pid: int
    name: str
    memory: Memory
    threads: list[int] = field(factory=list)
    waits: dict[int, Wait] = field(factory=dict)
    taken: set[tuple[int, int]] = field(factory=set)


class Inspector:
    """Looks into one container, again and again; remembers what it has to from look to look."""

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        processes: Callable[[], Sequence[int]],
        deadlines: Deadlines,
        ignored: Ignored,
        limit: int,
        attach: Callable[[Adopted], None],
        blind: bool = False,
        stopped: bool = True,
    ) -> None:
        """
        @param processes: lists the container's.
        @param limit: descriptors that may be adopted.
        @param attach: called with what will be filled by a look, so that it is polled already.
        @param blind: accept processes that may not be looked into.
        @param stopped: the container is frozen when it is looked at.  If not, what is found holds
            for that instant at most, and results of calls are not looked at.
        """
        known = processor()
        assert known is not None, "see whyNotAdopt"
        self._name = name
        self._clock = clock
        self._processes = processes
        self._deadlines = deadlines
        self._ignored = ignored
        self._limit = limit
        self._attach = attach
        self._blind = blind
        self._stopped = stopped
        self._processor: Processor = known
        self._tracer = Tracer()
        self._remembered: dict[tuple[int, int], _Remembered] = {}
        self._releasing: IDelayedCall | None = None

    def look(self) -> Deferred[SourceGroup]:
        """
        Find what the container waits for, and adopt it.

        @return: fails with L{StillBusy}, or L{NotYet} when a time is nearly over.  Cancellable.
        """
        return _Look(self._clock, self._steps()).result

    def close(self) -> None:
        """Let go of all threads."""
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None

    def _steps(self) -> Generator[Adopted | None, None, None]:
        """One look; gives L{None} where others may have their turn, and at last what was found."""
        processes: list[_Process] = []
        adopted = self._adopt()
        try:
            for pid in self._list():
                self._enter(pid, processes)
                yield None
            for process in processes:
                self._sightAll(process)
                yield None
            for process in processes:
                for index in range(0, len(process.threads), TRACED_AT_ONCE):
                    self._waitsOf(process, process.threads[index : index + TRACED_AT_ONCE])
                    yield None
            inside = {process.pid for process in processes}
            for process in processes:
                for wait in process.waits.values():
                    self._take(adopted, process, wait, inside)
                    yield None
                self._watchEnd(adopted, process)
            self._setTime(adopted, processes)
        except BaseException:
            adopted.close()
            raise
        finally:
            for process in processes:
                process.memory.close()
            self._releaseLater()
        yield adopted

    def _adopt(self) -> Adopted:
        try:
            adopted = Adopted(self._limit)
            self._attach(adopted)
        except OSError as error:
            raise StillBusy(f"out of descriptors: {error.strerror}") from error
        return adopted

    def _list(self) -> Sequence[int]:
        pids = self._processes()
        if not pids:
            raise StillBusy("none of its processes can be seen from here")
        known = set(pids)
        self._remembered = {k: v for k, v in self._remembered.items() if k[0] in known}
        return pids

    def _enter(self, pid: int, processes: list[_Process]) -> None:
        try:
            stat = threadStat(pid, pid)
            threads = threadsOf(pid)
            if stat.state in "ZX":
                threads.remove(pid)
            if not threads:
                return
            # A look that may be refused, before anything is opened.
            position(pid, threads[0])
            processes.append(_Process(pid, stat.name, Memory(pid, threads[0]), threads))
        except Gone:
            return
        except PermissionError:
            if not self._blind:
                raise StillBusy(
                    f"{stat.name}[{pid}] may not be looked into: that takes CAP_SYS_PTRACE; "
                    'or write unseen = "blind", and it is left out'
                ) from None
        except OSError as error:
            raise StillBusy(f"{stat.name}[{pid}]: {error.strerror}") from error

    def _sightAll(self, process: _Process) -> None:
        """A cheap first look: whoever is in no call at all works."""
        for tid in list(process.threads):
            try:
                where = position(process.pid, tid)
                if where is None or where.number < 0:
                    stat = threadStat(process.pid, tid)
                    if stat.asleepForGood:
                        process.threads.remove(tid)
                        continue
                    if where is None or not self._processor.forgetful:
                        raise StillBusy(f"busy: {stat.name}[{tid}]")
                if not _syscalls.sameTable(process.memory.thread, tid):
                    raise StillBusy(
                        f"{self._label(process, tid)} has a table of descriptors of its own"
                    )
            except Gone:
                process.threads.remove(tid)

    def _waitsOf(self, process: _Process, tids: Sequence[int]) -> None:
        try:
            registers = self._tracer.registers(tids) if self._stopped else {}
        except CannotTrace as error:
            raise StillBusy(f"{process.name}[{process.pid}] {error}") from error
        for tid in tids:
            try:
                if not self._stopped:
                    process.waits[tid] = self._waitAsItRuns(process, tid)
                elif tid in registers:
                    process.waits[tid] = self._waitOf(process, tid, registers[tid])
            except Gone:
                continue
            except (NotWaiting, UnknownProgram) as error:
                raise StillBusy(f"busy: {self._label(process, tid)} {error}") from error
            except OSError as error:
                raise StillBusy(
                    f"busy: {self._label(process, tid)}: its memory cannot be read: {error}"
                ) from error

    def _waitAsItRuns(self, process: _Process, tid: int) -> Wait:
        where = position(process.pid, tid)
        if where is None or where.number < 0:
            raise NotWaiting("runs")
        return decode(self._processor.name(where.number), where.arguments, process.memory.read)

    def _waitOf(self, process: _Process, tid: int, registers: Sequence[int]) -> Wait:
        call = self._processor.interrupted(registers, process.memory.read)
        if call is None:
            raise NotWaiting("works, or is about to")
        key = (process.pid, tid)
        remembered = self._remembered.pop(key, None)
        name = call.name
        if name != RESTART:
            remembered = None
        elif remembered is not None and remembered.isOf(call):
            name = remembered.name
        else:
            remembered = None
            name = self._processor.loaded(call, process.memory.read)
            if not name:
                raise NotWaiting("goes on with a call whose name is not known")
        if call.lost:
            return self._anyEpoll(process, name)
        wait = decode(name, call.arguments, process.memory.read)
        if not wait.relative or wait.within is None:
            return wait
        now = time.monotonic_ns()
        if remembered is not None:
            # The kernel counts from the first time; so do we.
            wait = evolve(wait, within=max(min(remembered.at - now, wait.within), 0))
        assert wait.within is not None
        self._remembered[key] = _Remembered(call.arguments, call.at, name, now + wait.within)
        return wait

    def _anyEpoll(self, process: _Process, name: str) -> Wait:
        """Which epoll it is has been lost: it may be any of the process's."""
        if not name.startswith("epoll"):
            raise NotWaiting(f"is in {name}, and its arguments are not known any more")
        found = []
        for fd in map(int, os.listdir(f"/proc/{process.pid}/fd")):
            if describeLink(os.readlink(f"/proc/{process.pid}/fd/{fd}")).kind == "epoll":
                found.append((fd, select.EPOLLIN))
        return Wait(name, tuple(found))

    def _label(self, process: _Process, tid: int) -> str:
        try:
            name = threadStat(process.pid, tid).name
        except (Gone, OSError):
            name = process.name
        return f"{name}[{tid}]"

    # Taking what was found.

    def _take(self, adopted: Adopted, process: _Process, wait: Wait, inside: set[int]) -> None:
        for fd, events in wait.descriptors:
            self._takeDescriptor(adopted, process, fd, events)
        if wait.children is not None:
            self._takeChildren(adopted, process, wait.children, inside)

    def _takeDescriptor(
        self, adopted: Adopted, process: _Process, fd: int, events: int, depth: int = 0
    ) -> None:
        if (fd, events) in process.taken:
            return
        process.taken.add((fd, events))
        if len(adopted) >= adopted.limit:
            raise StillBusy(
                f"it waits on more than {adopted.limit} descriptors; raise limits.wake-sources"
            )
        label = f"{process.name}[{process.pid}]"
        try:
            duplicate = _syscalls.duplicateFrom(process.memory.pidfd, fd)
        except ProcessLookupError:
            return
        except OSError as error:
            raise StillBusy(self._whyNotDuplicated(label, fd, error)) from error
        try:
            description = describe(duplicate)
            if self._ignored.matches(description) or description.kind == "signalfd":
                # Polling a signalfd asks after our own signals; theirs are looked for.
                os.close(duplicate)
                return
            inside = description.kind == "epoll" and self._opens(process.pid, fd)
        except BaseException:
            os.close(duplicate)
            raise
        if inside:
            os.close(duplicate)
            self._takeInside(adopted, process, fd, depth)
            return
        name = f"{self._name}/{label} {description}"
        try:
            adopted.add(name, duplicate, events, description.isSocket)
        except OSError as error:
            raise StillBusy(f"busy: {label} {_whyNotPolled(description, error)}") from error

    def _whyNotDuplicated(self, label: str, fd: int, error: OSError) -> str:
        if error.errno == errno.EPERM:
            return f"{label} may not be looked into: that takes CAP_SYS_PTRACE"
        if error.errno == errno.EBADF:
            return f"busy: {label} waits on descriptor {fd}, which it has closed"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "out of descriptors: raise the limit of open files"
        return f"{label}: descriptor {fd}: {error.strerror}"

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

    def _takeInside(self, adopted: Adopted, process: _Process, fd: int, depth: int) -> None:
        label = f"{process.name}[{process.pid}]"
        if depth >= _NEST:
            raise StillBusy(f"busy: {label} has epolls in epolls, too deep to watch")
        try:
            inside = members(process.pid, fd)
        except Gone:
            return
        except OSError as error:
            raise StillBusy(f"{label}: {error}; leave out ignore for this container") from error
        for member in inside:
            self._takeDescriptor(adopted, process, member.fd, member.events, depth + 1)

    def _takeChildren(
        self, adopted: Adopted, process: _Process, which: Children, inside: set[int]
    ) -> None:
        try:
            own = kinOf(process.pid)
            level = len(own.pids) - 1
            # The ends of those in the container are watched in any case.
            for pid in set(childrenOf(process.pid)) - inside:
                kin = kinOf(pid)
                # One that has ended already is not waited for: the wait would be over.
                if kin.ended or not _waitsFor(which, kin.pids, kin.groups, own.groups, level):
                    continue
                self._addEnd(adopted, pid, threadStat(pid, pid).name)
        except Gone:
            return

    def _addEnd(self, adopted: Adopted, pid: int, name: str) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError as error:
            raise StillBusy(f"out of descriptors: {error.strerror}") from error
        adopted.add(f"{self._name}/{name}[{pid}] ended", pidfd, select.EPOLLIN, False)

    def _watchEnd(self, adopted: Adopted, process: _Process) -> None:
        """Should it be killed, its peers have to see that at once."""
        if self._stopped:
            name = f"{self._name}/{process.name}[{process.pid}] ended"
            adopted.add(name, process.memory.keepPidfd(), select.EPOLLIN, False)

    def _setTime(self, adopted: Adopted, processes: Sequence[_Process]) -> None:
        now = time.monotonic_ns()
        timed = []
        waiting: dict[int, bool] = defaultdict(bool)
        for process in processes:
            for wait in process.waits.values():
                waiting[process.pid] = waiting[process.pid] or not wait.onlyTime
        for process in processes:
            for tid, wait in process.waits.items():
                if wait.within is None:
                    continue
                label = f"{self._name}/{process.name}[{tid}] {wait.call} timeout"
                alone = not waiting[process.pid]
                timed.append(Timed(process.pid, tid, label, now + wait.within, alone))
        first = self._deadlines.earliest(timed, now)
        if first is not None:
            adopted.wakeAt(first.at, first.label)

    def _releaseLater(self) -> None:
        if self._releasing is None and self._tracer.releaseLate():
            self._releasing = self._clock.callLater(0.01, self._releaseAgain)

    def _releaseAgain(self) -> None:
        self._releasing = None
        self._releaseLater()


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


def _whyNotPolled(description: Description, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "has epolls in epolls, too deep to watch"
    if error.errno == errno.EPERM:
        return f"waits for a {description}, which cannot be watched"
    if error.errno == errno.ENOSPC:
        return "cannot be watched: raise fs.epoll.max_user_watches"
    return f"waits for a {description}: {error.strerror}"


class _Look:
    """Runs the steps of a look, a slice at a time."""

    def __init__(self, clock: IReactorTime, steps: Generator[Adopted | None, None, None]) -> None:
        self._clock = clock
        self._steps = steps
        self._call: IDelayedCall | None = None
        self.result: Deferred[SourceGroup] = Deferred(self._cancel)
        self._go()

    def _cancel(self, _: Deferred[SourceGroup]) -> None:
        if self._call is not None:
            self._call.cancel()
        # Which runs what has to be given back.
        self._steps.close()

    def _go(self) -> None:
        self._call = None
        end = time.monotonic() + SLICE
        try:
            for found in self._steps:
                if found is not None:
                    self.result.callback(found)
                    return
                if time.monotonic() > end:
                    self._call = self._clock.callLater(0, self._go)
                    return
        except (StillBusy, NotYet):
            self.result.errback()
        except OSError as error:
            self.result.errback(StillBusy(f"it cannot be looked into: {error}"))
