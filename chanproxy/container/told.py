"""
Told: what follows when the kernel tells of signals to the processes of a frozen container.

A look does, soon and not too often; without signals there is nothing to do, but for two things that
are done once in each sleep.  Knows nothing of how the kernel is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.container.cadence import RESERVE, SHORTEST, Cadence
from chanproxy.container.comers import STIRS
from chanproxy.container.looks import Looks, Watched
from chanproxy.container.pendingsignals import BRIEF, PendingSignals
from chanproxy.container.signaltrace import SignalTrace

AT_ONCE = 16
"""So many threads are looked at before it is seen what that has taken."""

FORGETS = 2 * BRIEF + 0.01
"""Seconds asleep after which L{PendingSignals.new} has forgotten a timer that has not ticked."""


class Told:
    """
    One container's signals, for one sleep after another.

    @ivar running: it is told of all signals that come.
    """

    def __init__(
        self,
        clock: IReactorTime,
        trace: SignalTrace,
        signals: PendingSignals,
        looks: Looks,
        cadence: Cadence,
        found: Callable[[str], None],
    ) -> None:
        """
        @param cadence: what the looks may take.
        @param found: called with the reason to wake, after which it wants to be stopped; never from
            within L{begin} and L{start}.
        """
        self._clock = clock
        self._trace = trace
        self._signals = signals
        self._looks = looks
        self._cadence = cadence
        self._found = found
        self.running = False
        self._watched: dict[int, Watched] = {}
        self._pids: Sequence[int] = ()
        # By process: threads that signals came for; None for any.
        self._came: dict[int, set[int | None]] = {}
        self._lookedAt = -SHORTEST
        self._round: list[tuple[Watched, int]] = []
        self._calls: dict[Callable[[], None], IDelayedCall] = {}

    def begin(self, pids: Sequence[int]) -> bool:
        """
        From now on it is told, and they are looked at afterwards, so that nothing is missed.

        @return: whether it is so; if not, they have to be looked at again and again.
        """
        self.running = self._trace.watch(pids, self._told)
        self._pids = pids if self.running else ()
        return self.running

    def start(self, watched: Iterable[Watched], waiting: Iterable[tuple[int, int]]) -> None:
        """
        Each process has been looked at.

        @param watched: of those given to L{begin}, the ones that live.
        @param waiting: threads and their processes, to be looked at before others.
        """
        self._watched = {each.pid: each for each in watched}
        # Signals for single threads that came before they were told of.
        first = [(self._watched[pid], tid) for tid, pid in waiting if pid in self._watched]
        known = {tid for _, tid in first}
        others = self._looks.othersOf(list(self._watched.values()))
        self._round = [*first, *(each for each in others if each[1] not in known)]
        if self._round:
            self._later(self._goRound, SHORTEST)
        if self._signals.ticking():
            self._later(self._forget, self._looks.since + FORGETS - self._clock.seconds())

    def stop(self) -> None:
        """It is told no more.  Idempotent."""
        self.running = False
        self._trace.unwatch(self._pids)
        self._pids = ()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        self._watched = {}
        self._came = {}
        self._round = []

    def _later(self, what: Callable[[], None], delay: float) -> None:
        if what not in self._calls:
            self._calls[what] = self._clock.callLater(max(delay, 0), self._now, what)

    def _now(self, what: Callable[[], None]) -> None:
        del self._calls[what]
        what()

    def _told(self, pid: int, tid: int | None) -> None:
        self._came.setdefault(pid, set()).add(tid)
        # What is told of is not told again before it was looked at, however many signals come.
        pause = STIRS if self._cadence.canAfford() else self._cadence.interval()
        wait = self._lookedAt + pause - self._clock.seconds()
        if wait > 0:
            self._later(self._look, wait)
        elif self._look not in self._calls:
            self._look()

    def _look(self) -> None:
        came, self._came = self._came, {}
        self._lookedAt = self._clock.seconds()
        affordable = self._cadence.canAfford()
        self._cadence.begin()
        found = ""
        for pid, tids in came.items():
            # First: what comes from now on is told of again.
            self._trace.clear(pid)
            process = self._watched.get(pid)
            if process is None:
                continue
            threads = [(process, tid) for tid in tids if tid is not None]
            if None in tids:
                threads = [(process, pid), *self._looks.othersOf([process])]
            found = self._looks.threads(threads) or found
        # What it takes has to be saved up again.  Until that is done, it comes no more often than
        # looks that nobody has told to come.
        if affordable:
            self._cadence.endExtra()
        self._cadence.end()
        if found:
            self._found(found)

    def _goRound(self) -> None:
        found = ""
        while self._round and not found and self._cadence.canAfford(RESERVE):
            self._cadence.begin()
            found = self._looks.threads(self._round[:AT_ONCE])
            del self._round[:AT_ONCE]
            self._cadence.endExtra()
        if found:
            self._found(found)
        elif self._round:
            self._later(self._goRound, SHORTEST)

    def _forget(self) -> None:
        """Timers that have not ticked wake again."""
        ticking = ((pid, tid) for pid, tid, _ in self._signals.ticking())
        threads = [(self._watched[pid], tid) for pid, tid in ticking if pid in self._watched]
        found = self._looks.threads(threads)
        if found:
            self._found(found)
