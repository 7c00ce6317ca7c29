"""
Foresight: looks at a container that runs, and tells whether a freeze would succeed and do no harm.

A freeze is felt: some calls end early, and one that does not finish stops others for nothing.  What
a thread is doing can be seen before.  The same rounds of looks are what the observer learns from.
Changes nothing, and duplicates nothing; knows nothing of freezers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import ExitStack

from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.connections import Connections, Watched
from chanproxy.adopt.cutshort import Cut
from chanproxy.adopt.deadlines import Timed, lookAfterOthers
from chanproxy.adopt.decode import decode, mayWait
from chanproxy.adopt.habits import Seen
from chanproxy.adopt.inflight import refuseAwaited
from chanproxy.adopt.observer import Sight
from chanproxy.adopt.slices import Listing
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.threads import (
    Glance,
    Gone,
    clockOf,
    position,
    threadsOf,
    threadStat,
)
from chanproxy.adopt.times import Times
from chanproxy.adopt.waits import MOST_ENTRIES, TIMES, Clock, Entries, NotWaiting, Tables
from chanproxy.words import named


class Foresight:
    """
    Looks at one container, again and again.

    @ivar leavesRings: what io_urings do is of no interest.
    """

    def __init__(
        self,
        times: Times,
        listing: Listing,
        connections: Connections,
        leavesRings: bool = False,
    ) -> None:
        """@param listing: of the container's processes."""
        self.leavesRings = leavesRings
        self._times = times
        self._connections = connections
        self._listing = listing
        self._clocks: dict[int, Clock] = {}
        self._tables = Tables()
        self._numbers: dict[int, tuple[int, ...]] = {}
        # What threads wait on, each once; kept by what is known of them, from round to round.
        self._waited: dict[tuple[int, ...], tuple[int, ...]] = {}

    def round(self, refuse: bool) -> Generator[None, None, list[Timed]]:
        """
        Look at each thread once.

        Gives L{None} where others may have their turn.

        @param refuse: whether it matters what is found; otherwise it is only learnt from.
        @return: those threads that wait for a time.
        @raise StillBusy: one of them works, or would be harmed.
        @raise FreezerError: the processes cannot be listed.
        """
        now = time.monotonic_ns()
        pids = set((yield from self._listing()))
        self._times.observer.keepOnly(pids)
        self._waited = {waited: waited for waited in self._times.observer.waited()}
        # What is kept from earlier rounds has its part of what all may have.
        kept = sum(len(waited) for waited in self._waited if len(waited) > 1)
        self._tables, self._numbers = Tables(MOST_ENTRIES - kept), {}
        self._clocks = {pid: clock for pid, clock in self._clocks.items() if pid in pids}
        timed: list[Timed] = []
        seen: dict[int, dict[int, Seen]] = {}
        for pid in pids:
            try:
                seen[pid] = yield from self._lookAt(pid, now, refuse, timed)
            except (Gone, PermissionError):
                # Whoever may not be looked into is named by the look at the frozen container.
                continue
        self._times.observer.roundDone(now)
        if refuse:
            yield from self._whoWaits(seen)
        return lookAfterOthers(timed, seen)

    def _lookAt(
        self, pid: int, now: int, refuse: bool, timed: list[Timed]
    ) -> Generator[None, None, dict[int, Seen]]:
        tids = threadsOf(pid)
        self._times.observer.keepThreads(pid, set(tids))
        memory = Glance(pid, self._times.reading)
        seen: dict[int, Seen] = {}
        try:
            for tid in tids:
                try:
                    tables = self._tables if refuse else TIMES
                    look = self._times.observer.look
                    seen[tid], sight = look(pid, tid, memory, self._clockOf(pid), now, tables)
                    if refuse:
                        self._check(pid, tid, seen[tid], sight, memory)
                except Gone:
                    seen.pop(tid, None)
                yield None
        finally:
            memory.close()
        if refuse:
            alone = all(each.onlyTime and each.timing is not None for each in seen.values())
            for tid, each in seen.items():
                found = self._timed(pid, tid, each, alone)
                if found is not None:
                    timed.append(found)
        return seen

    def _whoWaits(self, seen: dict[int, dict[int, Seen]]) -> Generator[None, None, None]:
        """@raise StillBusy: somebody waits for an answer."""
        with ExitStack() as stack:
            watched = []
            for pid, threads in seen.items():
                try:
                    pidfd = os.pidfd_open(pid)
                    stack.callback(os.close, pidfd)
                    label = f"{named(threadStat(pid, pid).name)}[{pid}]"
                except (Gone, ProcessLookupError):
                    continue
                waited = {id(each.descriptors): each.descriptors for each in threads.values()}
                every = {fd for each in waited.values() for fd in each}
                watched.append(Watched(pid, label, pidfd, tuple(every)))
            yield from refuseAwaited(self._connections, watched)

    def _clockOf(self, pid: int) -> Clock:
        clock = self._clocks.get(pid)
        if clock is None:
            clock = self._clocks[pid] = clockOf(pid)
        return clock

    def _check(self, pid: int, tid: int, seen: Seen, sight: Sight | None, memory: Glance) -> None:
        """
        @param sight: where it was found just now, if it was looked for.
        @raise StillBusy: it works, or a freeze would harm it.
        """
        if seen.calm == seen.ran and not seen.held:
            return
        stat = threadStat(pid, tid)
        # What has ended, or is the kernel's own, or stopped by a signal, waits for nothing that a
        # freeze could harm.
        if not stat.asleepForGood and stat.state not in "Tt":
            label = f"{named(stat.name)}[{tid}]"
            if seen.held:
                raise StillBusy(f"busy: {label} has been thawed, and has not run yet")
            if stat.state == "D":
                raise StillBusy(f"busy: {label} waits for a disk, or otherwise uninterruptibly")
            clock = self._clockOf(pid)
            if sight is None:
                sight = self._times.observer.sight(pid, tid, memory, clock, self._tables)
            if sight is None or sight.where.number < 0:
                raise StillBusy(f"busy: {label}")
            where = sight.where
            name = self._times.nameOf(pid, tid, where.number, where.arguments)
            if name != RESTART:
                if not mayWait(name):
                    raise StillBusy(f"busy: {label} is in {name}, which cannot be watched")
                try:
                    if sight.error is not None:
                        raise sight.error
                    # One that the kernel has restarted is in a call of another name.
                    wait = sight.wait or decode(
                        name, where.arguments, memory.read, clock, self._tables
                    )
                except NotWaiting as error:
                    raise StillBusy(f"busy: {label} {error}") from None
                except PermissionError:
                    raise
                except OSError as error:
                    raise StillBusy(f"busy: {label}: its memory cannot be read: {error}") from error
                seen.onlyTime = wait.onlyTime
                seen.descriptors = self._shared(wait.descriptors)
        else:
            if stat.isRingWorker and not self.leavesRings:
                raise StillBusy(f"busy: {named(stat.name)}[{tid}] works for an io_uring")
            # A worker shows the call that it was made in, for ever.
            seen.timing, seen.onlyTime, seen.descriptors = None, True, ()
        seen.calm = seen.ran

    def _shared(self, entries: Entries) -> tuple[int, ...]:
        """The numbers of descriptors: one object for all threads that wait on the same."""
        known = self._numbers.get(id(entries))
        if known is None:
            numbers = tuple(fd for fd, _ in entries)
            known = self._waited.setdefault(numbers, numbers)
            # Of tables only: those live as long as this round.
            if len(entries) > 1:
                self._numbers[id(entries)] = known
        return known

    def _timed(self, pid: int, tid: int, seen: Seen, alone: bool) -> Timed | None:
        timing = seen.timing
        if timing is None:
            return None
        begun = seen.begun
        if timing.end is not None:
            at, length = timing.end, timing.end - begun
        else:
            assert timing.length is not None
            length = timing.length
            asked = (timing.call, timing.argument, length)
            end = self._times.cutShort.end(pid, tid, *asked)
            ended = timing.expired is not None
            at = (seen.since if ended else begun) + length if end is None else end
            if end is None and timing.expired is not None and not seen.period:
                self._times.cutShort.foresee(pid, tid, Cut(*asked, at, timing.expired))
        where = position(pid, tid)
        if where is not None and self._times.processor.name(where.number) == RESTART:
            known = self._times.restarted.of(pid, tid, where.arguments)
            if known is not None and known.at is not None:
                at = known.at
        period = seen.period if seen.isHabit(timing) else 0
        label = (
            f"{self._times.name}/{named(threadStat(pid, tid).name)}[{tid}] {timing.call} timeout"
        )
        return Timed(pid, tid, label, at, length, alone, period)
