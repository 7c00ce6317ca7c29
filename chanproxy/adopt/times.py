"""
Times: when the waits of frozen threads are over, and what has to be done about each before a thaw.

What a freeze does to a call's time depends on the call.  Some count from their beginning (C{poll},
C{nanosleep}, futexes) or wait for an instant: nothing has to be done.  Some go on with what was
left at the freeze (C{select}, C{ppoll}); that is written anew.  Some end with C{EINTR}
(C{epoll_wait}, C{recv} with a limit); those that are merely asked for again are seen to later.

Knows threads and their calls; knows nothing of freezers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from chanproxy.adopt.calls import GOING_ON, RESTART
from chanproxy.adopt.cutshort import Cut, CutShort
from chanproxy.adopt.deadlines import Deadlines, Timed, lookAfterOthers
from chanproxy.adopt.habits import Timing
from chanproxy.adopt.observer import Observer
from chanproxy.adopt.processors import Call, Processor, processor
from chanproxy.adopt.reading import Reading
from chanproxy.adopt.restarted import Call as BeforeRestart
from chanproxy.adopt.restarted import Restarted
from chanproxy.adopt.rests import Rests
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.threads import switchesOf
from chanproxy.adopt.tracing import Tracer
from chanproxy.adopt.waits import NotWaiting, Wait

_PATIENCE = 200_000
"""
Nanoseconds in which threads stop again after a look, as a rule; those that take longer are counted
a moment later.
"""

AT_ONCE = 5_000_000
"""Nanoseconds for the same, when the container is to be thawed at once."""


@frozen
class Times:
    """What is known of the times of one container."""

    name: str
    processor: Processor
    tracer: Tracer
    observer: Observer
    restarted: Restarted
    cutShort: CutShort
    deadlines: Deadlines
    reading: Reading

    @classmethod
    def make(cls, name: str, clock: IReactorTime, threshold: float) -> Times:
        """@param threshold: see L{Deadlines}."""
        known = processor()
        assert known is not None, "see whyNotAdopt"
        restarted, tracer = Restarted(), Tracer()
        observer = Observer(known, restarted)
        reading = Reading()
        cutShort = CutShort(clock, known, tracer, reading)
        deadlines = Deadlines(threshold)
        return cls(name, known, tracer, observer, restarted, cutShort, deadlines, reading)

    def keepOnly(self, pids: set[int]) -> None:
        """Forget processes that are gone."""
        self.observer.keepOnly(pids)
        self.restarted.keepOnly(pids)

    def moved(self, pid: int, tid: int) -> bool:
        """Whether a thread that was frozen just now has run since it was observed before that."""
        seen = self.observer.of(pid, tid)
        # To stop in the freezer is one more wait.
        return seen is None or seen.switches < 0 or switchesOf(pid, tid) != seen.switches + 1

    def nameOf(self, pid: int, tid: int, number: int, arguments: Sequence[int]) -> str:
        """The name of a call that a thread is in; of a restarted one, what it was before."""
        name = self.processor.name(number)
        known = self.restarted.of(pid, tid, arguments) if name == RESTART else None
        return name if known is None else known.name

    def resolved(self, subject: Subject, tid: int, call: Call) -> Call:
        """
        What a restarted call was before.

        @raise NotWaiting: it is not known.
        @raise OSError: the process's memory cannot be read.
        """
        known = self.restarted.of(subject.pid, tid, call.arguments)
        name = known.name if known is not None else self._seenAs(subject.pid, tid, call)
        name = name or self.processor.loaded(call, subject.memory.code)
        if not name:
            raise NotWaiting("goes on with a call whose name is not known")
        return evolve(call, name=name)

    def _seenAs(self, pid: int, tid: int, call: Call) -> str:
        """What a thread was in when it was last looked at while it ran, if it can be that."""
        seen = self.observer.of(pid, tid)
        timing = None if seen is None else seen.waited.timing
        return timing.call if timing is not None and timing.mayBe(call.arguments) else ""

    def ofAll(self, subjects: Sequence[Subject], since: int, stopped: bool) -> list[Timed]:
        """
        Every thread that waits for a time.

        @param since: nanoseconds (C{CLOCK_MONOTONIC}) when the look began.
        @param stopped: they are frozen.
        """
        found = []
        for subject in subjects:
            alone = subject.onlyTime
            for tid, wait in subject.waits.items():
                if wait.within is not None:
                    timed = self._timed(subject, tid, wait, since, alone, stopped)
                    found.append(timed)
                elif stopped:
                    self._remember(subject, tid, wait, None)
        return lookAfterOthers(found, [subject.pid for subject in subjects])

    def _timed(
        self, subject: Subject, tid: int, wait: Wait, since: int, alone: bool, stopped: bool
    ) -> Timed:
        assert wait.within is not None
        pid, call = subject.pid, subject.calls[tid]
        left = wait.rest is not None or (stopped and wait.overwritten)
        at = self._end(subject, tid, wait, since, left)
        seen = self.observer.of(pid, tid)
        begun = since if seen is None else seen.begun
        length = wait.within if wait.relative else at - begun
        period = 0
        timing = self._timing(call, wait, since)
        if seen is not None and seen.timing is not None and timing.isLike(seen.timing):
            # What is left of a time that was longer is as good as that.
            length = max(length, seen.timing.length or 0)
            whole = seen.timing if left else timing
            period = seen.period if seen.isHabit(whole) else 0
        if stopped:
            self._remember(subject, tid, wait, at)
        return Timed(pid, tid, self._label(subject, tid, wait), at, length, alone, period)

    def _timing(self, call: Call, wait: Wait, since: int) -> Timing:
        timing = Timing.of(wait, call.arguments[0], since)
        assert timing is not None
        return timing

    def _label(self, subject: Subject, tid: int, wait: Wait) -> str:
        return f"{self.name}/{subject.labelOf(tid)} {wait.call} timeout"

    def _end(self, subject: Subject, tid: int, wait: Wait, since: int, left: bool) -> int:
        """
        When the container has to run for a wait to be over in time.

        @param left: its time is what was left when it was frozen.
        """
        pid, call = subject.pid, subject.calls[tid]
        assert wait.within is not None
        if left or not wait.relative:
            return since + wait.within
        restarted = self.restarted.of(pid, tid, call.arguments)
        if restarted is not None and restarted.name == call.name and restarted.at is not None:
            return restarted.at
        cut = self.cutShort.end(pid, tid, call.name, call.arguments[0], wait.within)
        if cut is not None and tid not in subject.moved:
            return cut
        # One that is ended by us must not end early; any other wakes early and ends by itself.
        latest = wait.expired is not None
        return self._begun(subject, tid, wait, since, latest) + wait.within

    def _begun(self, subject: Subject, tid: int, wait: Wait, since: int, latest: bool) -> int:
        """When a thread began to wait, at the earliest or at the latest."""
        pid, call = subject.pid, subject.calls[tid]
        seen = self.observer.of(pid, tid)
        if seen is None:
            return since
        waited, timing = seen.waited, seen.waited.timing
        # Of one that the kernel has restarted, only when it began may be known.
        same = waited.restarted is not None or (
            timing is not None
            and (timing.call, timing.argument, timing.length)
            == (call.name, call.arguments[0], wait.within)
        )
        if same and tid not in subject.moved:
            return waited.since if latest else waited.begun
        # It has run between that look and the freeze.
        if latest:
            return since
        return seen.since if seen.earlier is None else waited.begun

    def _remember(self, subject: Subject, tid: int, wait: Wait, at: int | None) -> None:
        call = subject.calls[tid]
        if wait.call in GOING_ON:
            known = BeforeRestart(call.arguments, call.name, at)
            self.restarted.remember(subject.pid, tid, known)

    def beforeThaw(self, rests: Rests, subjects: Sequence[Subject], since: int) -> None:
        """See to it that what the thaw does to times is made good."""
        for subject in subjects:
            for tid, wait in subject.waits.items():
                if wait.rest is not None and wait.within is not None:
                    seen = self.observer.of(subject.pid, tid)
                    written = _ignore if seen is None else seen.written
                    end = since + wait.within
                    try:
                        rests.add(subject.pid, subject.memory.thread, wait.rest, end, written)
                    except OSError as error:
                        raise StillBusy(f"{subject.label}: {error.strerror}") from error
        noted = self._noteAll(subjects, since, time.monotonic_ns() + _PATIENCE)
        self.cutShort.forget(lambda key: key not in noted)

    def noteKnown(self, subjects: Sequence[Subject], since: int) -> None:
        """
        Note the waits that the thaw will cut short, as far as they are known: a look has ended in
        its middle.  Of those that it has not got to it is known what was foreseen.
        """
        until = time.monotonic_ns() + AT_ONCE
        noted = self._noteAll(subjects, since, until)
        seen = {(each.pid, tid) for each in subjects for tid in (*each.waits, *each.moved)} - noted
        self.cutShort.forget(lambda key: key in seen)
        self.cutShort.recount({each.pid for each in subjects if each.traced}, until)

    def _noteAll(self, subjects: Sequence[Subject], since: int, until: int) -> set[tuple[int, int]]:
        """@param until: as long threads may take to stop again."""
        keys = set()
        for subject in subjects:
            for tid, wait in subject.waits.items():
                call = subject.calls[tid]
                if wait.expired is None or wait.within is None or call.lost:
                    continue
                key = (subject.pid, tid)
                asked, argument = wait.within, call.arguments[0]
                end = self.cutShort.end(*key, call.name, argument, asked)
                seen = self.observer.of(*key)
                habit = seen is not None and bool(seen.period)
                if end is None or tid in subject.moved:
                    end = self._begun(subject, tid, wait, since, latest=True) + wait.within
                cut = Cut(call.name, argument, asked, end, wait.expired, habit)
                self.cutShort.note(*key, cut, until)
                keys.add(key)
        return keys


def _ignore(nanoseconds: int) -> None:
    pass
