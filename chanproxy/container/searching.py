"""
Search: looks for signals to frozen processes again and again, where the kernel does not tell of
them; see L{chanproxy.container.told}.

Knows the freezer only as what has used the processor for some time; nothing of when to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from chanproxy.container.cadence import RESERVE, Cadence
from chanproxy.container.comers import Comers
from chanproxy.container.looks import Looks, Watched
from chanproxy.container.pendingsignals import PendingSignals
from chanproxy.interfaces import FreezerError, IFreezer

AT_ONCE = 16
"""So many threads or processes are looked at before it is seen what that has taken."""


class Search:
    """
    In one container, for one sleep after another.

    Each look lists who has come in, if that is due, and looks where something may have happened;
    all else has its turn, as far as there is time.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        interval: float,
        freezer: IFreezer,
        comers: Comers,
        signals: PendingSignals,
        looks: Looks,
        cadence: Cadence,
    ) -> None:
        """@param interval: seconds after which all has had its turn, if there is time for it."""
        self._clock = clock
        self._interval = interval
        self._freezer = freezer
        self._comers = comers
        self._signals = signals
        self._looks = looks
        self._cadence = cadence
        self._watched: Sequence[Watched] = ()
        self._waiting: Mapping[int, int] = {}
        self._roundAt = 0.0
        self._used: int | None = None
        self._stirred = False
        # Those still to be looked at; a process is its main thread.
        self._round: list[tuple[Watched, int]] = []

    def start(self, watched: Sequence[Watched], waiting: Mapping[int, int]) -> None:
        """
        All have been looked at, after L{hasRun} was asked.

        @param watched: processes; the watch's own list.
        @param waiting: threads, and their processes, that each look has to look at.
        """
        self._watched, self._waiting = watched, waiting
        self._stirred = False
        self._roundAt = self._looks.since - self._interval

    def stop(self) -> None:
        """Forget whom to look at.  Idempotent."""
        self._watched, self._waiting, self._round = (), {}, []

    def look(self) -> str:
        """One look; the reason to wake, or nothing."""
        now = self._clock()
        self._cadence.begin()
        stirred = self.hasRun()
        late = now - self._comers.listedAt >= self._interval
        found = self._comers.look() if late else ""
        ticking = {tid: pid for pid, tid, _ in self._signals.ticking()}
        apart = {**ticking, **self._waiting}
        for process in self._watched:
            if stirred is None or process.deaf or process.pid in ticking:
                found = self._looks.process(process) or found
            if apart:
                tids = [tid for tid, pid in apart.items() if tid != pid == process.pid]
                found = self._looks.threads([(process, tid) for tid in tids]) or found
        self._cadence.end()
        self._stirred = self._stirred or bool(stirred)
        return found or self._lookFurther(now)

    def lookIf(self, hasRun: bool | None) -> str:
        """
        Look at all where something has run that may not have been told of; see L{look}.

        @param hasRun: see L{hasRun}.
        """
        self._stirred = self._stirred or bool(hasRun)
        return self._lookWhereRun() if self._stirred or self._round else ""

    def _lookFurther(self, now: float) -> str:
        """Look where something has stirred, and in turn at all else, as far as there is time."""
        due = not self._round and now - self._roundAt >= self._interval
        if due and not (self._stirred and self._cadence.canAfford()):
            # What no thread has noticed; and who knows how exactly a freezer counts.
            self._roundAt = now
            processes = ((each, each.pid) for each in self._watched)
            self._round = [*processes, *self._looks.othersOf(self._watched)]
        return self._lookWhereRun()

    def _lookWhereRun(self) -> str:
        """Look where something has stirred, and go on with the round, as far as there is time."""
        cadence, found = self._cadence, ""
        stirred = self._stirred and cadence.canAfford()
        if stirred:
            self._stirred = False
            cadence.begin()
            for process in self._watched:
                found = self._looks.process(process) or found
            self._round = self._looks.othersOf(self._watched)
            cadence.endExtra()
        while self._round and not found and (stirred or cadence.canAfford(RESERVE)):
            cadence.begin()
            found = self._looks.threads(self._round[:AT_ONCE])
            del self._round[:AT_ONCE]
            cadence.endExtra()
        return found

    def hasRun(self) -> bool | None:
        """
        Whether anything inside has run since this was last asked; None: it is not known.

        A signal that a frozen thread does not block makes it run, just to stop again.  So one
        figure tells of all threads that a signal may have come, for the price of one.
        """
        before = self._used
        try:
            self._used = self._freezer.cpuTime()
        except (FreezerError, OSError):
            self._used = None
        return None if before is None or self._used is None else self._used != before
