"""
Inspector: looks into a frozen container, and adopts what its threads wait for.

Knows processes and the kernel; knows nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Generator, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.adopt.adopted import Adopted, Room
from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.connections import Connections, watchedOf
from chanproxy.adopt.decode import decode, mayWait
from chanproxy.adopt.inflight import refuseAwaited
from chanproxy.adopt.naming import Ignored, describeLink
from chanproxy.adopt.processors import Call, UnknownProgram
from chanproxy.adopt.slices import Listing, Sliced
from chanproxy.adopt.socketlimits import RECEIVING
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.taking import Taker
from chanproxy.adopt.threads import (
    Gone,
    Memory,
    clockOf,
    position,
    threadsOf,
    threadStat,
)
from chanproxy.adopt.times import AT_ONCE, Times
from chanproxy.adopt.tracing import STOP_SECONDS, CannotTrace
from chanproxy.adopt.views import Views
from chanproxy.adopt.waits import Clock, NotWaiting, Tables, Wait
from chanproxy.adopt.watchdogs import shortestWatchdog
from chanproxy.kernel import calls
from chanproxy.wake.source import SourceGroup
from chanproxy.words import named

_ENDED = frozenset(
    ("epoll_wait", "epoll_pwait", "epoll_pwait2", "rt_sigtimedwait", "io_uring_enter", *RECEIVING)
)
"""Calls that a freeze ends, so that their time has to be known from before."""

_EACH = 2
"""Descriptors that a look keeps open for each process: itself, and its memory."""

TRACED_AT_ONCE = 32
"""Threads that are stopped side by side."""


class Inspector:
    """
    Looks into one container, again and again; remembers what it has to from look to look.

    @ivar signalWaiters: processes and threads that waited for certain signals at the last look.
    """

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        listing: Listing,
        times: Times,
        ignored: Ignored,
        room: Callable[[], Room],
        attach: Callable[[Adopted], None],
        blind: bool = False,
        stopped: bool = True,
        hidden: Callable[[], int] = lambda: 0,
        connections: Connections | None = None,
    ) -> None:
        """
        @param listing: of the container's processes.
        @param times: what is known of the times that its threads wait for.
        @param room: how many descriptors may be adopted now.
        @param attach: called with what will be filled by a look, so that it is polled already.
        @param blind: accept processes that may not be looked into.
        @param stopped: the container is frozen when it is looked at.  If not, what is found holds
            for that instant at most, results of calls are not looked at, and nothing is adopted:
            a close by the container would not be the last one.
        @param hidden: how many processes of the container are not listed.
        @param connections: those for which it stays awake; None: it does so for none.
        """
        self._name = name
        self._clock = clock
        self._listing = listing
        self._times = times
        self._ignored = ignored
        self._room = room
        self._attach = attach
        self._blind = blind
        self._stopped = stopped
        self._hidden = hidden
        self._connections = connections or Connections(name, 0)
        self._processor = times.processor
        self._tracer = times.tracer
        self._views = Views()
        self.signalWaiters: tuple[tuple[int, int], ...] = ()
        self._releasing: IDelayedCall | None = None
        self._since = 0
        self._tables = Tables()

    def look(self, frozenSince: int | None = None) -> Deferred[SourceGroup]:
        """
        Find what the container waits for, and adopt it.

        @param frozenSince: when the freeze began, nanoseconds (C{CLOCK_MONOTONIC}).
        @return: fails with L{StillBusy}, or L{NotYet} when a time is nearly over.  Cancellable.
        """
        return Sliced(self._clock, self._steps(frozenSince), held=True).result

    def close(self) -> None:
        """Let go of all threads, and of what is kept from look to look."""
        self._views.close()
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        deadline = time.monotonic() + STOP_SECONDS
        while self._tracer.releaseLate() and time.monotonic() < deadline:
            # It stops within some microseconds, as a rule, and only then can be let go of.
            time.sleep(0.0005)

    def _steps(self, frozenSince: int | None = None) -> Generator[None, None, SourceGroup]:
        """One look; gives L{None} where others may have their turn, and returns what was found."""
        subjects: list[Subject] = []
        self._since = time.monotonic_ns()
        self._tables = Tables()
        adopted = self._adopt()
        try:
            listed = yield from self._list(adopted.room.spare)
            for pid in listed:
                self._enter(pid, subjects)
                yield None
            for subject in subjects:
                self._sightAll(subject)
                yield None
            for subject in subjects:
                for index in range(0, len(subject.threads), TRACED_AT_ONCE):
                    self._waitsOf(subject, subject.threads[index : index + TRACED_AT_ONCE])
                    yield None
            yield from refuseAwaited(self._connections, map(watchedOf, subjects))
            taker = Taker(
                self._name, adopted, self._ignored, self._stopped, self._views, frozenSince
            )
            yield from taker.takeAll(subjects)
            if set((yield from self._listing())) - set(listed):
                raise StillBusy("busy: a process came in")
            self._setTime(adopted, subjects)
            if not self._stopped:
                adopted.drop()
        except BaseException:
            adopted.close()
            if self._stopped:
                self._times.noteAll(subjects, self._since, AT_ONCE)
            raise
        finally:
            for subject in subjects:
                subject.memory.close()
            self._releaseLater()
        return adopted

    def _adopt(self) -> Adopted:
        try:
            adopted = Adopted(self._room(), self._times.reading)
            self._attach(adopted)
        except OSError as error:
            raise StillBusy(f"out of descriptors: {error.strerror}") from error
        return adopted

    def _list(self, spare: int) -> Generator[None, None, Sequence[int]]:
        pids = yield from self._listing()
        if _EACH * len(pids) > spare:
            raise StillBusy(
                f"busy: it has {len(pids)} processes, and to look into them takes {_EACH} "
                f"descriptors each; {spare} may be taken; raise the limit (ulimit -n)"
            )
        if not pids:
            raise StillBusy("none of its processes can be seen from here")
        hidden = 0 if self._blind else self._hidden()
        if hidden:
            raise StillBusy(
                f"{hidden} of its processes cannot be seen from this pid namespace; "
                'or write unseen = "blind", and they are left out'
            )
        self._times.keepOnly(set(pids))
        return pids

    def _enter(self, pid: int, subjects: list[Subject]) -> None:
        name = ""
        try:
            stat = threadStat(pid, pid)
            name = stat.name
            threads = threadsOf(pid)
            if stat.state in "ZX":
                threads.remove(pid)
            if not threads:
                return
            # A look that may be refused, before anything is opened.
            position(pid, threads[0])
            memory = Memory(pid, threads[0], self._times.reading)
            subjects.append(Subject(pid, name, memory, self._clockOf(pid), threads))
        except Gone:
            return
        except PermissionError:
            if not self._blind:
                raise StillBusy(
                    f"{named(name)}[{pid}] may not be looked into: that takes CAP_SYS_PTRACE; "
                    'or write unseen = "blind", and it is left out'
                ) from None
        except OSError as error:
            raise StillBusy(f"{named(name)}[{pid}]: {error.strerror}") from error

    def _sightAll(self, subject: Subject) -> None:
        """A cheap first look: whoever is in no call that waits works."""
        for tid in list(subject.threads):
            try:
                if not self._isThere(subject, tid):
                    subject.threads.remove(tid)
                elif not calls.sameTable(subject.memory.thread, tid):
                    raise StillBusy(
                        f"{self._label(subject, tid)} has a table of descriptors of its own"
                    )
            except Gone:
                subject.threads.remove(tid)

    def _isThere(self, subject: Subject, tid: int) -> bool:
        """
        Whether a thread waits in a call, as far as can be seen without stopping it for a look.

        @return: False when it has ended, is stopped by a signal, or is none of the program's own.
        @raise StillBusy: it works.
        """
        where = position(subject.pid, tid)
        number = -1 if where is None else where.number
        name = self._processor.name(number)
        # A worker for rings shows the call that it was made in, for ever.
        if name == "io_uring_enter" and threadStat(subject.pid, tid).isRingWorker:
            number = -1
        if number >= 0 and (name == RESTART or mayWait(name)):
            if self._stopped and name in _ENDED and self._times.moved(subject.pid, tid):
                subject.moved.add(tid)
            return True
        stat = threadStat(subject.pid, tid)
        # One that is stopped waits for SIGCONT; that it goes on is looked for while it sleeps.
        if stat.isRingWorker and "io_uring" not in self._ignored.kinds():
            raise StillBusy(f"busy: {named(stat.name)}[{tid}] works for an io_uring")
        if stat.asleepForGood or stat.state == "T":
            return False
        if number >= 0:
            raise StillBusy(
                f"busy: {named(stat.name)}[{tid}] is in {name}, which cannot be watched"
            )
        # One that has stopped only just now may count as running still: its registers tell.
        unknown = self._stopped if where is None else self._processor.forgetful
        if not unknown:
            raise StillBusy(f"busy: {named(stat.name)}[{tid}]")
        return True

    def _waitsOf(self, subject: Subject, tids: Sequence[int]) -> None:
        try:
            registers = self._tracer.registers(tids) if self._stopped else {}
        except CannotTrace as error:
            raise StillBusy(f"{subject.label} {error}") from error
        for tid in tids:
            try:
                if not self._stopped:
                    subject.waits[tid] = self._waitAsItRuns(subject, tid)
                elif tid in registers:
                    subject.waits[tid] = self._waitOf(subject, tid, registers[tid])
            except Gone:
                continue
            except (NotWaiting, UnknownProgram) as error:
                raise StillBusy(f"busy: {self._label(subject, tid)} {error}") from error
            except OSError as error:
                raise StillBusy(
                    f"busy: {self._label(subject, tid)}: its memory cannot be read: {error}"
                ) from error

    def _waitAsItRuns(self, subject: Subject, tid: int) -> Wait:
        where = position(subject.pid, tid)
        if where is None or where.number < 0:
            raise NotWaiting("runs")
        name = self._times.nameOf(subject.pid, tid, where.number, where.arguments)
        subject.calls[tid] = Call(name, where.arguments, where.instruction)
        return decode(name, where.arguments, subject.memory.read, subject.clock, self._tables)

    def _waitOf(self, subject: Subject, tid: int, registers: Sequence[int]) -> Wait:
        call = self._processor.interrupted(registers, subject.memory.read)
        if call is None:
            raise NotWaiting("works, or is about to")
        if call.name == RESTART:
            call = self._times.resolved(subject, tid, call)
        else:
            self._times.restarted.forget(subject.pid, tid)
        subject.calls[tid] = call
        if call.lost:
            return self._anyEpoll(subject, call.name)
        return decode(call.name, call.arguments, subject.memory.read, subject.clock, self._tables)

    def _anyEpoll(self, subject: Subject, name: str) -> Wait:
        """Which epoll it is has been lost: it may be any of the subject's."""
        if not name.startswith("epoll"):
            raise NotWaiting(f"is in {name}, and its arguments are not known any more")
        found = []
        for fd in map(int, os.listdir(f"/proc/{subject.pid}/fd")):
            if describeLink(os.readlink(f"/proc/{subject.pid}/fd/{fd}")).kind == "epoll":
                found.append((fd, select.EPOLLIN))
        return Wait(name, tuple(found))

    def _clockOf(self, pid: int) -> Clock:
        """A process's clocks as they were when the look began: it takes milliseconds."""
        clock = clockOf(pid)
        return lambda number: clock(number) - (time.monotonic_ns() - self._since)

    def _label(self, subject: Subject, tid: int) -> str:
        try:
            name = threadStat(subject.pid, tid).name
        except (Gone, OSError):
            name = subject.name
        return f"{named(name)}[{tid}]"

    def _setTime(self, adopted: Adopted, subjects: Sequence[Subject]) -> None:
        timed = self._times.ofAll(subjects, self._since, self._stopped)
        if self._stopped:
            self._times.beforeThaw(adopted.rests, subjects, self._since)
            if self._times.cutShort:
                adopted.thawing = self._times.cutShort.thawing
                adopted.endNow = self._times.cutShort.endNow
        self.signalWaiters = tuple(
            (subject.pid, tid)
            for subject in subjects
            for tid, wait in subject.waits.items()
            if wait.call == "rt_sigtimedwait"
        )
        first = self._times.deadlines.earliest(timed, time.monotonic_ns())
        adopted.watchdog = shortestWatchdog(subjects, self._times.reading)
        if first is not None:
            adopted.wakeAt(first)

    def _releaseLater(self) -> None:
        if self._releasing is None and self._tracer.releaseLate():
            self._releasing = self._clock.callLater(0.01, self._releaseAgain)

    def _releaseAgain(self) -> None:
        self._releasing = None
        self._releaseLater()
