"""
Inspector: looks into a frozen container, and adopts what its threads wait for.

Knows processes and the kernel; knows nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Generator, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy import _syscalls
from chanproxy.adopt.adopted import Adopted
from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.deadlines import Deadlines, NotYet, Timed
from chanproxy.adopt.decode import NotWaiting, Wait, decode, mayWait
from chanproxy.adopt.naming import Ignored, describeLink
from chanproxy.adopt.processors import Call, Processor, UnknownProgram, processor
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
from chanproxy.adopt.tracing import STOP_SECONDS, CannotTrace, Tracer
from chanproxy.wake import SourceGroup

SLICE = 0.004
"""Seconds that a look may take at a time, before others have their turn."""

TRACED_AT_ONCE = 32
"""Threads that are stopped side by side."""


@frozen
class _Remembered:
    """
    A call that counts its time from its beginning, as it was before the kernel restarted it.

    @ivar at: when it is over; None: never.
    """

    arguments: tuple[int, ...]
    instruction: int
    name: str
    at: int | None

    def isOf(self, call: Call) -> bool:
        """Whether it is the same call still."""
        return self.arguments == call.arguments and self.instruction == call.at


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
        hidden: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        @param processes: lists the container's.
        @param limit: descriptors that may be adopted.
        @param attach: called with what will be filled by a look, so that it is polled already.
        @param blind: accept processes that may not be looked into.
        @param stopped: the container is frozen when it is looked at.  If not, what is found holds
            for that instant at most, results of calls are not looked at, and nothing is adopted:
            a close by the container would not be the last one.
        @param hidden: how many processes of the container are not listed.
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
        self._hidden = hidden
        self._processor: Processor = known
        self._tracer = Tracer()
        self._remembered: dict[tuple[int, int], _Remembered] = {}
        self._releasing: IDelayedCall | None = None
        self._since = 0

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
        deadline = time.monotonic() + STOP_SECONDS
        while self._tracer.releaseLate() and time.monotonic() < deadline:
            # It stops within some microseconds, as a rule, and only then can be let go of.
            time.sleep(0.0005)

    def _steps(self) -> Generator[Adopted | None, None, None]:
        """One look; gives L{None} where others may have their turn, and at last what was found."""
        subjects: list[Subject] = []
        self._since = time.monotonic_ns()
        adopted = self._adopt()
        try:
            listed = self._list()
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
            yield from Taker(self._name, adopted, self._ignored, self._stopped).takeAll(subjects)
            if set(self._processes()) - set(listed):
                raise StillBusy("busy: a process came in")
            self._setTime(adopted, subjects)
            if not self._stopped:
                adopted.drop()
        except BaseException:
            adopted.close()
            raise
        finally:
            for subject in subjects:
                subject.memory.close()
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
        hidden = 0 if self._blind else self._hidden()
        if hidden:
            raise StillBusy(
                f"{hidden} of its processes cannot be seen from this pid namespace; "
                'or write unseen = "blind", and they are left out'
            )
        known = set(pids)
        self._remembered = {k: v for k, v in self._remembered.items() if k[0] in known}
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
            memory = Memory(pid, threads[0])
            subjects.append(Subject(pid, name, memory, clockOf(pid), threads))
        except Gone:
            return
        except PermissionError:
            if not self._blind:
                raise StillBusy(
                    f"{name}[{pid}] may not be looked into: that takes CAP_SYS_PTRACE; "
                    'or write unseen = "blind", and it is left out'
                ) from None
        except OSError as error:
            raise StillBusy(f"{name}[{pid}]: {error.strerror}") from error

    def _sightAll(self, subject: Subject) -> None:
        """A cheap first look: whoever is in no call that waits works."""
        for tid in list(subject.threads):
            try:
                if not self._isThere(subject, tid):
                    subject.threads.remove(tid)
                elif not _syscalls.sameTable(subject.memory.thread, tid):
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
        if number >= 0 and (name == RESTART or mayWait(name)):
            return True
        stat = threadStat(subject.pid, tid)
        # One that is stopped waits for SIGCONT; that it goes on is looked for while it sleeps.
        if stat.asleepForGood or stat.state == "T":
            return False
        if number >= 0:
            raise StillBusy(f"busy: {stat.name}[{tid}] is in {name}, which cannot be watched")
        # One that has stopped only just now may count as running still: its registers tell.
        unknown = self._stopped if where is None else self._processor.forgetful
        if not unknown:
            raise StillBusy(f"busy: {stat.name}[{tid}]")
        return True

    def _waitsOf(self, subject: Subject, tids: Sequence[int]) -> None:
        try:
            registers = self._tracer.registers(tids) if self._stopped else {}
        except CannotTrace as error:
            raise StillBusy(f"{subject.name}[{subject.pid}] {error}") from error
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
        name = self._processor.name(where.number)
        return decode(name, where.arguments, subject.memory.read, subject.clock)

    def _waitOf(self, subject: Subject, tid: int, registers: Sequence[int]) -> Wait:
        call = self._processor.interrupted(registers, subject.memory.read)
        if call is None:
            raise NotWaiting("works, or is about to")
        key = (subject.pid, tid)
        remembered = self._remembered.pop(key, None)
        name = call.name
        if name != RESTART:
            remembered = None
        elif remembered is not None and remembered.isOf(call):
            name = remembered.name
        else:
            remembered = None
            name = self._processor.loaded(call, subject.memory.read)
            if not name:
                raise NotWaiting("goes on with a call whose name is not known")
        if call.lost:
            return self._anyEpoll(subject, name)
        wait = decode(name, call.arguments, subject.memory.read, subject.clock)
        if not wait.relative:
            return wait
        # From the beginning of the look: never later than it was asked for.
        since, at = self._since, None
        if wait.within is not None:
            if remembered is not None and remembered.at is not None:
                # The kernel counts from the first time; so do we.
                wait = evolve(wait, within=max(min(remembered.at - since, wait.within), 0))
            assert wait.within is not None
            at = since + wait.within
        # Without a time, too: poll(2) is restarted all the same, and its name is not shown then.
        self._remembered[key] = _Remembered(call.arguments, call.at, name, at)
        return wait

    def _anyEpoll(self, subject: Subject, name: str) -> Wait:
        """Which epoll it is has been lost: it may be any of the subject's."""
        if not name.startswith("epoll"):
            raise NotWaiting(f"is in {name}, and its arguments are not known any more")
        found = []
        for fd in map(int, os.listdir(f"/proc/{subject.pid}/fd")):
            if describeLink(os.readlink(f"/proc/{subject.pid}/fd/{fd}")).kind == "epoll":
                found.append((fd, select.EPOLLIN))
        return Wait(name, tuple(found))

    def _label(self, subject: Subject, tid: int) -> str:
        try:
            name = threadStat(subject.pid, tid).name
        except (Gone, OSError):
            name = subject.name
        return f"{name}[{tid}]"

    def _setTime(self, adopted: Adopted, subjects: Sequence[Subject]) -> None:
        since = self._since
        timed = []
        for subject in subjects:
            alone = subject.onlyTime
            for tid, wait in subject.waits.items():
                if wait.within is not None:
                    label = f"{self._name}/{subject.name}[{tid}] {wait.call} timeout"
                    timed.append(Timed(subject.pid, tid, label, since + wait.within, alone))
        first = self._deadlines.earliest(timed, since)
        adopted.whenClosed(lambda: self._deadlines.resumed(time.monotonic_ns()))
        if first is not None:
            adopted.wakeAt(first.at, first.label)

    def _releaseLater(self) -> None:
        if self._releasing is None and self._tracer.releaseLate():
            self._releasing = self._clock.callLater(0.01, self._releaseAgain)

    def _releaseAgain(self) -> None:
        self._releasing = None
        self._releaseLater()


class _Look:
    """Runs the steps of a look, a slice at a time."""

    _log = Logger()

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
        except Exception:
            # Whatever it is, the container has to run again.
            self._log.failure("a look into a container failed")
            self.result.errback()
