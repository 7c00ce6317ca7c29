"""
Inspector: looks into a frozen container, and adopts what its threads wait for.

Knows processes and the kernel; knows nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Generator, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chanproxy.adopt.adopted import Adopted, Place
from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.connections import Connections, watchedOf
from chanproxy.adopt.decode import decode
from chanproxy.adopt.entering import Entering, Members
from chanproxy.adopt.inflight import refuseAwaited
from chanproxy.adopt.naming import Ignored, describeLink
from chanproxy.adopt.processors import Call, UnknownProgram
from chanproxy.adopt.slices import Sliced
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.taking import Taker
from chanproxy.adopt.threads import (
    Gone,
    position,
)
from chanproxy.adopt.times import Times
from chanproxy.adopt.tracing import STOP_SECONDS, CannotTrace, Releasing
from chanproxy.adopt.views import Views
from chanproxy.adopt.waits import NotWaiting, Tables, Wait
from chanproxy.adopt.watchdogs import shortestWatchdog
from chanproxy.wake.source import SourceGroup

TRACED_AT_ONCE = 32
"""Threads that are stopped side by side."""


class Inspector:
    """
    Looks into one container, again and again; remembers what it has to from look to look.

    @ivar signalWaiters: processes and threads that waited for certain signals at the last look.
    """

    def __init__(
        self,
        clock: IReactorTime,
        members: Members,
        times: Times,
        ignored: Ignored,
        place: Place,
        stopped: bool = True,
        connections: Connections | None = None,
    ) -> None:
        """
        @param times: what is known of the times that its threads wait for.
        @param stopped: the container is frozen when it is looked at.  If not, what is found holds
            for that instant at most, results of calls are not looked at, and nothing is adopted:
            a close by the container would not be the last one.
        @param connections: those for which it stays awake; None: it does so for none.
        """
        self._clock = clock
        self._entering = Entering(members, times, "io_uring" in ignored.kinds(), stopped)
        self._times = times
        self._ignored = ignored
        self._place = place
        self._stopped = stopped
        self._connections = connections or Connections(times.name, 0)
        self._processor = times.processor
        self._tracer = times.tracer
        self._views = Views()
        self.signalWaiters: tuple[tuple[int, int], ...] = ()
        self._releasing = Releasing(self._clock, self._tracer)
        self._since = 0
        self._tables = Tables()

    def set(self, ignored: Ignored, blind: bool) -> None:
        """
        Look in another way, from the next look on.

        @param blind: see L{Members}.
        """
        self._ignored = ignored
        self._entering.rings = "io_uring" in ignored.kinds()
        self._entering.members = evolve(self._entering.members, blind=blind)

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
        self._releasing.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while self._tracer.releaseLate() and time.monotonic() < deadline:
            # It stops within some microseconds, as a rule, and only then can be let go of.
            time.sleep(0.0005)

    def _steps(self, frozenSince: int | None = None) -> Generator[None, None, SourceGroup]:
        """One look; gives L{None} where others may have their turn, and returns what was found."""
        subjects: list[Subject] = []
        self._since = time.monotonic_ns()
        self._tables = Tables()
        adopted = self._place.begin(self._times.reading)
        try:
            listed = yield from self._entering.list(adopted.room.spare)
            for pid in listed:
                subject = self._entering.enter(pid, self._since)
                if subject is not None:
                    subjects.append(subject)
                yield None
            for subject in subjects:
                self._entering.sightAll(subject)
                yield None
            for subject in subjects:
                subject.traced = self._stopped
                for index in range(0, len(subject.threads), TRACED_AT_ONCE):
                    self._waitsOf(subject, subject.threads[index : index + TRACED_AT_ONCE])
                    yield None
            yield from refuseAwaited(self._connections, map(watchedOf, subjects))
            taker = Taker(
                self._times.name, adopted, self._ignored, self._stopped, self._views, frozenSince
            )
            yield from taker.takeAll(subjects)
            if set((yield from self._entering.members.listing())) - set(listed):
                raise StillBusy("busy: a process came in")
            self._setTime(adopted, subjects)
            if not self._stopped:
                adopted.drop()
        except BaseException:
            adopted.close()
            if self._stopped:
                self._times.noteKnown(subjects, self._since)
            raise
        finally:
            for subject in subjects:
                subject.memory.close()
            self._releasing.begin()
        return adopted

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
                raise StillBusy(f"busy: {subject.labelOf(tid)} {error}") from error
            except OSError as error:
                raise StillBusy(
                    f"busy: {subject.labelOf(tid)}: its memory cannot be read: {error}"
                ) from error

    def _waitAsItRuns(self, subject: Subject, tid: int) -> Wait:
        where = position(subject.pid, tid)
        if where is None or where.number < 0:
            raise NotWaiting("runs")
        name = self._times.nameOf(subject.pid, tid, where.number, where.arguments)
        subject.calls[tid] = Call(name, where.arguments, where.instruction)
        return decode(name, where.arguments, subject.memory.read, subject.clock, self._tables)

    def _waitOf(self, subject: Subject, tid: int, registers: Sequence[int]) -> Wait:
        call = self._processor.interrupted(registers, subject.memory.code)
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
