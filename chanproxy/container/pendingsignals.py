"""
PendingSignals: which of the signals that wait for frozen processes are a reason to wake them.

Remembers across sleeps what has woken a container before: a program may leave a signal that it
blocks pending for ever, and may have a timer that ticks for ever, and that is no reason to stay
awake for ever.  Knows nothing of who looks, and of how often.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from attrs import define, field

from chanproxy.kernel.processes import ProcessStatus, maskOf, namesOf, startTime, timerSignals

_NEEDLESS = maskOf(signal.SIGSTOP, signal.SIGKILL)
"""
To be stopped, there is no need to wake; a freezer may stop by this very signal.  Who is killed is
on the way to its end, frozen or not, and that is what tells.
"""

TIMERS = maskOf(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
"""Signals of C{alarm(2)} and C{setitimer(2)}."""

BRIEF = 1.0
"""Seconds: a timer whose signal ends sleeps sooner than that, again and again, ticks."""

TICKS = 3
"""After so many such sleeps in a row, with no other reason to wake between, it is passed over."""

_ANY = ~0


@define
class _Memory:
    """
    What is remembered of a thread.

    @ivar started: when it started; tells it from a later one of that id.
    @ivar pending: what was pending when last looked at.
    @ivar ended: signals of timers that end this sleep.
    @ivar ticks: how many sleeps in a row a timer's signal has ended, by the signal's number.
    """

    pid: int
    started: int
    pending: int = 0
    ended: int = 0
    ticks: dict[int, int] = field(factory=dict)

    @property
    def passedOver(self) -> int:
        """Signals of timers that tick."""
        return maskOf(*(number for number, count in self.ticks.items() if count >= TICKS))


class PendingSignals:
    """The signals of one container's processes."""

    def __init__(self, passedOver: int, unreadable: Callable[[OSError], object]) -> None:
        """
        @param passedOver: signals that never wake, as a bit mask.
        @param unreadable: called with the error of a look that failed.
        """
        self._passedOver = passedOver | _NEEDLESS
        self._unreadable = unreadable
        # By thread; a process's own signals are those of its main thread.
        self._known: dict[int, _Memory] = {}

    def began(self, pids: Iterable[int]) -> None:
        """A sleep has begun, of these processes."""
        # Whoever is not looked at now may be another process next time.
        inside = set(pids)
        self._known = {tid: each for tid, each in self._known.items() if each.pid in inside}

    def ended(self) -> None:
        """The sleep is over."""
        for memory in self._known.values():
            # Something else has ended it: what counts is one tick after the other.
            memory.ticks = {
                number: count
                for number, count in memory.ticks.items()
                if count >= TICKS or (count and memory.ended & maskOf(number))
            }
            memory.ended = 0

    def taken(self) -> None:
        """The processes run: forget signals that have been taken since they woke them."""
        for tid, memory in list(self._known.items()):
            try:
                status = self._status(memory.pid, tid)
                if status is not None:
                    memory.pending &= status.pending
                elif not self._isThere(tid, memory):
                    del self._known[tid]
                    continue
                else:
                    memory.pending = 0
            except OSError as error:
                self._unreadable(error)
                continue
            if not memory.pending and not memory.ticks:
                del self._known[tid]

    @staticmethod
    def _status(pid: int, tid: int) -> ProcessStatus | None:
        return ProcessStatus.read(pid) if tid == pid else ProcessStatus.readThread(pid, tid)

    @staticmethod
    def _isThere(tid: int, memory: _Memory) -> bool:
        return startTime(tid) == memory.started

    def deaf(self, status: ProcessStatus) -> bool:
        """
        Whether a signal can come for a process without any of its threads noticing.

        Any other wakes a thread, frozen as it is, for the moment in which it stops again: the
        container has used the processor.
        """
        passed = self._passedOver | status.ignored
        return bool(status.state not in "SR" or status.blocked & ~passed)

    def new(self, pid: int, tid: int, status: ProcessStatus | None, asleep: float) -> int:
        """
        The signals that are a reason to wake, as a bit mask.

        @param status: of the thread; None: no signal waits for it.
        @param asleep: seconds since the sleep began.
        """
        memory = self._known.get(tid)
        pending = 0 if status is None else status.pending
        if memory is not None and asleep >= 2 * BRIEF:
            # A timer that ticks would have done so by now.
            memory.ticks = {n: c for n, c in memory.ticks.items() if pending & maskOf(n)}
        if status is None or not pending:
            if memory is not None:
                memory.pending = 0
                if not memory.ticks:
                    del self._known[tid]
            return 0
        try:
            started = startTime(tid)
            if memory is None or memory.started != started:
                memory = self._known[tid] = _Memory(pid, started)
            # A thread that merely waits is sent what it does not block as soon as it is thawed.
            # So this one is new, even if the like of it was seen before.  It shows as running for
            # the moment in which a signal makes it stop anew.
            lasting = status.blocked if status.state in "SR" else _ANY
            new = pending & ~status.ignored & ~self._passedOver & ~(memory.pending & lasting)
            memory.pending = pending
            new &= ~memory.passedOver
            timers = new & (TIMERS | timerSignals(pid)) if new else 0
        except OSError as error:
            self._unreadable(error)
            return 0
        memory.ended |= timers
        for number in _numbers(timers):
            memory.ticks[number] = memory.ticks.get(number, 0) + 1 if asleep < BRIEF else 0
        return new

    def ticking(self) -> list[tuple[int, int, list[str]]]:
        """
        The timers that are passed over: process, thread, and names of their signals.

        These have to be looked at each time: once they tick no more, they are as others.
        """
        return sorted(
            (memory.pid, tid, namesOf(memory.passedOver))
            for tid, memory in self._known.items()
            if memory.passedOver
        )


def _numbers(mask: int) -> Iterable[int]:
    return (number for number in range(1, mask.bit_length() + 1) if mask >> (number - 1) & 1)
