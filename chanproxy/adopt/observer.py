"""
Observer: what is seen of a container's threads while they run: since when each of them waits, and
which of them come back by themselves, again and again, with nothing to do.

Looks at counters of the kernel's, and at a thread only if it has run since the last look.  Knows
nothing of freezing, and not what any of this is good for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from attrs import frozen

from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.decode import decode, mayWait
from chanproxy.adopt.habits import NEVER, Seen, Timing, Waited
from chanproxy.adopt.lastran import lastRan
from chanproxy.adopt.processors import Processor
from chanproxy.adopt.restarted import Restarted
from chanproxy.adopt.socketlimits import RECEIVING, limitIn
from chanproxy.adopt.threads import (
    Glance,
    Position,
    isInFreezer,
    position,
    switchesOf,
    threadStat,
    timesRun,
)
from chanproxy.adopt.waits import TIMES, Clock, NotWaiting, Tables, Wait


@frozen
class Sight:
    """
    Where a thread was found, and what it waits for there.

    @ivar wait: None, when it does not wait, or goes on with an earlier call.
    @ivar error: why there is no C{wait}: L{NotWaiting}, or OSError for memory that cannot be read.
    """

    where: Position
    wait: Wait | None = None
    error: Exception | None = None


class Observer:
    """What is known of one container's threads: since when each waits, and what for."""

    def __init__(self, processor: Processor, restarted: Restarted) -> None:
        self._processor = processor
        self._restarted = restarted
        self._seen: dict[int, dict[int, Seen]] = {}
        self._looked = 0
        self._round = 0

    def of(self, pid: int, tid: int) -> Seen | None:
        """What is known of a thread."""
        return self._seen.get(pid, {}).get(tid)

    def waited(self) -> Iterable[tuple[int, ...]]:
        """What all threads waited on when that was last looked at, each object once."""
        seen = (each for threads in self._seen.values() for each in threads.values())
        return {id(each.descriptors): each.descriptors for each in seen}.values()

    def keepOnly(self, pids: set[int]) -> None:
        """Forget processes that are gone."""
        for pid in [pid for pid in self._seen if pid not in pids]:
            del self._seen[pid]

    def keepThreads(self, pid: int, tids: set[int]) -> None:
        """Forget threads that are gone."""
        seen = self._seen.get(pid, {})
        for tid in [tid for tid in seen if tid not in tids]:
            del seen[tid]

    def resumed(self, by: tuple[int, int] | None, disturbed: bool) -> None:
        """
        The container runs again, after a freeze.

        @param by: the process and thread for whose time that was; None: it was for nobody's.
        @param disturbed: it was for something else than time.
        """
        self._looked = time.monotonic_ns()
        for pid, threads in self._seen.items():
            for tid, seen in threads.items():
                seen.stopped()
                if by == (pid, tid):
                    seen.sleptUntil()
                elif disturbed:
                    seen.disturbed()

    def look(
        self,
        pid: int,
        tid: int,
        memory: Glance,
        clock: Clock,
        now: int,
        tables: Tables = TIMES,
    ) -> tuple[Seen, Sight | None]:
        """
        Look at a thread.

        @param memory: the process's.
        @param clock: the process's.
        @param now: nanoseconds (C{CLOCK_MONOTONIC}) when this round of looks began.
        @param tables: of this round, where it matters what else than time it waits for.
        @return: what is known of it now; and where it is, if it had to be looked at for that.
        @raise Gone: there is no such thread.
        @raise OSError: we may not look into it.
        """
        threads = self._seen.setdefault(pid, {})
        seen = threads.get(tid)
        ran = timesRun(pid, tid)
        if seen is not None and seen.ran == ran:
            seen.sighted = now
            return seen, None
        if isInFreezer(pid, tid):
            # What it waits for begins only when it runs.
            if seen is None:
                seen = threads[tid] = Seen(NEVER, now, None, now, sighted=self._round)
            seen.held = True
            return seen, None
        # It may have run until it was looked at, which is later than the round began.
        since = time.monotonic_ns()
        waited = None
        earlier = self._round if seen is None else seen.sighted
        if seen is None or seen.ran == NEVER:
            seen = threads[tid] = Seen(ran, now, self._looked or None, since)
        else:
            waited = seen.waited
            seen.before = max(seen.looked, self._looked)
            seen.ran, seen.looked, seen.since, seen.held = ran, now, since, False
        sight = self.sight(pid, tid, memory, clock, tables)
        seen.sighted, seen.earlier = now, None
        if sight is not None:
            self._learn(pid, tid, seen, sight, waited, earlier)
        if sight is None or sight.where.number < 0:
            # It shows what it waits for the next time, and that may be the same.
            seen.sighted, seen.earlier = earlier, waited or Waited(earlier or None, since)
        return seen, sight

    def _learn(
        self,
        pid: int,
        tid: int,
        seen: Seen,
        sight: Sight,
        waited: Waited | None,
        earlier: int,
    ) -> None:
        """
        It has run, and was looked at.

        @param waited: what it waited for before; None: it was not known.
        @param earlier: nanoseconds of the last look at it before the freezes since then; 0: none.
        """
        where, timing = sight.where, None
        if sight.wait is not None:
            timing = Timing.of(sight.wait, where.arguments[0], time.monotonic_ns())
        still = timing is not None and seen.isStill(timing)
        restarted = self._processor.name(where.number) == RESTART
        if waited is not None and (still or (restarted and self._goesOn(pid, tid, where, waited))):
            seen.goesOn(waited)
            return
        seen.restarted = where.arguments if restarted else None
        seen.switches = switchesOf(pid, tid) if timing is not None else -1
        seen.returned(timing, seen.switches)
        if restarted:
            # It has begun before the freeze that has made this of it.
            seen.before = earlier or None
        elif waited is None and not self._looked and timing is not None:
            seen.before = self._startOf(pid, tid, timing)
            if timing.expired is not None:
                # Its end will have to be told by us, so it counts from the latest that it may be.
                seen.since = min(lastRan(pid, tid) or seen.since, seen.since)

    def _startOf(self, pid: int, tid: int, timing: Timing) -> int | None:
        """
        When a thread began to live, that was there before the first look at all.

        It may have begun to wait then; unless its time would be over already.
        """
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        started = threadStat(pid, tid).started - boot
        over = timing.length is None or started + timing.length <= time.monotonic_ns()
        return None if over else started

    def _goesOn(self, pid: int, tid: int, where: Position, waited: Waited) -> bool:
        """Whether a call that the kernel has restarted is the one that it was in before."""
        timing = waited.timing
        if timing is None:
            return waited.restarted == where.arguments
        known = self._restarted.of(pid, tid, where.arguments)
        if known is not None:
            return known.name == timing.call
        # What has frozen it was given up before it could be looked at.
        return timing.mayBe(where.arguments)

    def roundDone(self, now: int) -> None:
        """Each thread has been looked at in the round that began then."""
        self._looked = self._round = now

    def sight(
        self, pid: int, tid: int, memory: Glance, clock: Clock, tables: Tables
    ) -> Sight | None:
        """
        Look where a thread is; nothing is learnt from that.

        @return: None when it runs, or cannot be asked for the moment.
        @raise Gone: there is no such thread.
        @raise OSError: we may not look into it.
        """
        where = position(pid, tid)
        if where is None:
            return None
        name = self._processor.name(where.number)
        if where.number < 0 or not mayWait(name):
            return Sight(where)
        try:
            wait = decode(name, where.arguments, memory.read, clock, tables)
            wait = _limited(wait, memory)
        except (NotWaiting, OSError) as error:
            return Sight(where, error=error)
        return Sight(where, wait)


def _limited(wait: Wait, memory: Glance) -> Wait:
    """
    The same with the limit of its socket, if that has one.

    @raise NotWaiting: a freeze would harm it.
    @raise OSError: whether it would is not known.
    """
    if wait.call not in RECEIVING and wait.call != "connect":
        return wait
    try:
        limit = limitIn(memory.pidfd, wait.descriptors[0][0], wait.call)
    except OSError:
        if wait.call in RECEIVING:
            # Closed by another thread, say: it is harmed by no freeze, and only its time not known.
            return wait
        raise
    return wait if limit is None else wait.limited(limit)
