"""
CutShort: waits with a limit that our freezes end with C{EINTR}.

As after SIGSTOP and SIGCONT, C{epoll_wait}, C{recv} with C{SO_RCVTIMEO} and some others give
C{EINTR} at the thaw.  A program that looks at the clock asks for what is left; one that merely asks
again asks for the whole time, and would never see the end of it.  So that end is remembered, and
when it comes, asleep or awake, the call is given the result that the kernel would have given.

Knows threads by their numbers; knows nothing of freezing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from attrs import define, evolve
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.adopt.decode import decode, mayWait
from chanproxy.adopt.processors import Processor
from chanproxy.adopt.reading import Reading
from chanproxy.adopt.socketlimits import RECEIVING, limitIn
from chanproxy.adopt.threads import Glance, Gone, isInFreezer, position, switchesOf
from chanproxy.adopt.tracing import CannotTrace, Releasing, Tracer
from chanproxy.adopt.waits import TIMES, NotWaiting
from chanproxy.kernel.processes import ProcessStatus

SOON = 20_000_000
"""
Nanoseconds that a thread is given to ask again after a thaw.  The later it is seen to have done so,
the more it may have done in between.
"""


@define
class Cut:
    """
    One wait.

    @ivar call: its name.
    @ivar argument: the first of the call's.
    @ivar asked: nanoseconds, as its arguments have it; None when they do not.
    @ivar end: nanoseconds (C{CLOCK_MONOTONIC}) when it would have been over.
    @ivar result: what it is given then.
    @ivar habit: nobody waits for that time; but its thread is to have its turn in a breath.
    @ivar counts: how often its thread may have waited when it asks again: once that is seen, one
        only.  Without any it is not known, and its time begins anew.
    @ivar settled: it is stopped by a freeze, and not by a look any more.
    """

    call: str
    argument: int
    asked: int | None
    end: int
    result: int
    habit: bool = False
    counts: tuple[int, ...] = ()
    settled: bool = False


class CutShort:
    """The calls of one container that a freeze has interrupted, or will."""

    def __init__(
        self,
        clock: IReactorTime,
        processor: Processor,
        tracer: Tracer,
        reading: Reading | None = None,
    ) -> None:
        """@param reading: the container's."""
        self._reading = reading or Reading()
        self._clock = clock
        self._processor = processor
        self._tracer = tracer
        self._cuts: dict[tuple[int, int], Cut] = {}
        self._foreseen: dict[tuple[int, int], Cut] = {}
        self._call: IDelayedCall | None = None
        self._pause = SOON
        self._releasing = Releasing(clock, tracer)

    def end(self, pid: int, tid: int, call: str, argument: int, asked: int | None) -> int | None:
        """When a frozen thread's wait would be over, if it is one that was cut short before."""
        cut = self._cuts.get((pid, tid))
        if cut is None or (cut.call, cut.argument, cut.asked) != (call, argument, asked):
            return None
        return cut.end

    def note(self, pid: int, tid: int, cut: Cut, until: int) -> None:
        """
        A frozen thread's wait will be cut short.

        @param until: as long it may take to stop again after a look: nanoseconds
            (C{CLOCK_MONOTONIC}).
        """
        self._cuts[pid, tid] = cut
        self._count(pid, tid, cut, until)

    def recount(self, processes: Collection[int], until: int) -> None:
        """Likewise all that is known of some, after a look that has ended in its middle."""
        for key, cut in self._cuts.items():
            if key[0] in processes:
                cut.settled = False
                self._count(*key, cut, until)

    def _count(self, pid: int, tid: int, cut: Cut, until: int) -> None:
        while not self._settle(pid, tid, cut):
            if time.monotonic_ns() >= until:
                with suppress(Gone, OSError):
                    # To stop again counts as a wait; it may be thawed before that.
                    count = switchesOf(pid, tid)
                    cut.counts = (count + 1, count + 2)
                break

    def foresee(self, pid: int, tid: int, cut: Cut) -> None:
        """Should there be a freeze now, a running thread's wait would be cut short."""
        with suppress(Gone, OSError):
            # To be stopped counts as a wait, as does asking again; a thaw may come before both, or
            # when it has been interrupted and has not stopped yet.
            count = switchesOf(pid, tid)
            cut.counts, cut.settled = (count, count + 1, count + 2), True
            self._foreseen[pid, tid] = cut

    def _settle(self, pid: int, tid: int, cut: Cut) -> bool:
        """Count, if it has stopped again after a look."""
        with suppress(Gone, OSError):
            if not cut.settled and isInFreezer(pid, tid):
                cut.counts, cut.settled = (switchesOf(pid, tid) + 1,), True
        return cut.settled

    def settle(self) -> bool:
        """
        Count what could not be counted before; the container is frozen.

        @return: whether each has stopped again; otherwise, call again in a moment.
        """
        settled = [self._settle(*key, cut) for key, cut in self._cuts.items()]
        return all(settled)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._cuts)

    def forget(self, gone: Callable[[tuple[int, int]], bool]) -> None:
        """Those for which that is so."""
        self._cuts = {key: cut for key, cut in self._cuts.items() if not gone(key)}

    def thawing(
        self, ready: Collection[tuple[int, int]], every: Collection[tuple[int, int]]
    ) -> None:
        """
        It is about to be thawed: forget those whose wait has been ended by what it was for.

        They ask again as well, but find it at once, and what they ask for then is a new wait.

        @param ready: processes and the descriptors of theirs that are ready.
        @param every: those that are watched; an epoll's members may be in its place.
        """
        processes = {pid for pid, _ in ready}
        for key, cut in list(self._cuts.items()):
            mine = (key[0], cut.argument)
            if cut.call == "rt_sigtimedwait":
                ended = _hasSignal(*key, cut.argument, self._reading)
            else:
                ended = mine in ready or (mine not in every and key[0] in processes)
            if ended:
                del self._cuts[key]

    def review(self) -> None:
        """
        The container runs: forget those that were over, or were not asked for again.

        Should there be a freeze now that ends before anybody has looked, the others are asked for
        once more.
        """
        self._foreseen.clear()
        for key, cut in list(self._cuts.items()):
            again = self._asksAgain(*key, cut)
            if again is False:
                del self._cuts[key]
            elif again:
                self.foresee(*key, evolve(cut))

    def resumed(self) -> None:
        """The container runs again: see to each end that comes."""
        self._pause = SOON
        self._again()

    def freezing(self) -> None:
        """The container is about to be frozen: what was foreseen comes true."""
        self.stop()
        self._cuts |= self._foreseen
        self._foreseen.clear()

    def stop(self) -> None:
        """See to no end any more.  Idempotent."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def close(self) -> None:
        """Likewise, nor to those that have not stopped: whoever has the tracer lets go of them."""
        self.stop()
        self._releasing.stop()

    def _again(self) -> None:
        self.stop()
        now = time.monotonic_ns()
        times = [max(cut.end, now + SOON) for cut in self._cuts.values() if not cut.habit]
        if any(len(cut.counts) > 1 for cut in self._cuts.values()):
            times.append(now + self._pause)
            self._pause *= 2
        if times:
            self._call = self._clock.callLater((min(times) - now) / 1e9, self._look)

    def _look(self) -> None:
        self._call = None
        now = time.monotonic_ns()
        for key, cut in list(self._cuts.items()):
            due = cut.end <= now and not cut.habit
            # To see that it has is to know its count, before there are more reasons for that.
            again = self._asksAgain(*key, cut) if due or len(cut.counts) > 1 else None
            if due and again is not None:
                del self._cuts[key]
            if due and again:
                self._complete(key[1], cut)
        self._again()

    def endNow(self, breath: bool) -> None:
        """
        The container is frozen, and about to be thawed: what is over ends as it would have.

        @param breath: it is thawed for nothing but such times.  Otherwise, those of habits are left
            alone: whoever has an event has a turn, and nothing is to come before the thaw.
        """
        now = time.monotonic_ns()
        ended = [key for key, cut in self._cuts.items() if cut.end <= now]
        for key in [key for key in ended if breath or not self._cuts[key].habit]:
            self._complete(key[1], self._cuts.pop(key))

    def _complete(self, tid: int, cut: Cut) -> None:
        def finished(words: Sequence[int]) -> list[int] | None:
            return self._processor.finished(words, cut.call, cut.result)

        try:
            self._tracer.change(tid, finished)
        except CannotTrace:
            # If it has just not stopped yet, it is given that as soon as it does.
            self._releasing.begin()

    def _asksAgain(self, pid: int, tid: int, cut: Cut) -> bool | None:
        """
        Whether a running thread has done nothing since but ask for the same again.

        @return: None when it has not run yet, or runs.
        """
        memory = Glance(pid, self._reading)
        try:
            if isInFreezer(pid, tid) or position(pid, tid) is None:
                return None
            count = switchesOf(pid, tid)
            if count not in cut.counts:
                return False
            where = position(pid, tid)
            if where is None or where.number < 0 or where.arguments[0] != cut.argument:
                return False
            name = self._processor.name(where.number)
            if name != cut.call or not mayWait(name):
                return False
            within = decode(name, where.arguments, memory.read, _noClock, TIMES).within
            if name in RECEIVING:
                within = limitIn(memory.pidfd, cut.argument, name)
            if within != cut.asked:
                return False
            cut.counts = (count,)
            return True
        except (Gone, NotWaiting, OSError):
            return False
        finally:
            memory.close()


def _hasSignal(pid: int, tid: int, address: int, reading: Reading) -> bool:
    """Whether one of a set of signals waits for a thread; if that is not known, one does."""
    try:
        wanted = int.from_bytes(reading.read(pid, address, 8), sys.byteorder)
        shared, own = ProcessStatus.read(pid), ProcessStatus.readThread(pid, tid)
        pending = -1 if shared is None else shared.pending
        return bool(wanted & (pending | (0 if own is None else own.pending)))
    except OSError:
        return True


def _noClock(number: int) -> int:
    raise OSError("none of these calls is for an instant")
