"""
Looks: finds out whether signals that are a reason to wake wait for frozen processes.

Knows nothing of when to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define

from chanproxy.container.pendingsignals import PendingSignals
from chanproxy.kernel.processes import ProcessStatus, namesOf, otherThreads


@define
class Watched:
    """
    A process, while the container sleeps.

    @ivar pidfd: owned by the watch; -1 for none.
    @ivar stopped: a signal has stopped it, and SIGCONT has not come yet.
    @ivar deaf: see L{PendingSignals.deaf}.
    @ivar threads: how many it has.
    """

    pid: int
    name: str
    pidfd: int = -1
    stopped: bool = False
    deaf: bool = True
    threads: int = 1

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}]"


class Looks:
    """
    Looks at the processes of one container.  Each returns the reason to wake, or nothing.

    @ivar since: when this sleep began, in the clock's seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        signals: PendingSignals,
        heedless: bool,
        unreadable: Callable[[OSError], object],
    ) -> None:
        """
        @param heedless: signals are no reason.
        @param unreadable: called with the error of a look that failed.
        """
        self._clock = clock
        self._signals = signals
        self._heedless = heedless
        self._unreadable = unreadable
        self.since = 0.0

    def process(self, process: Watched) -> str:
        """Look at a process, and at its main thread."""
        try:
            status = ProcessStatus.read(process.pid)
        except OSError as error:
            # It may be readable the next time.
            self._unreadable(error)
            return ""
        if status is None or status.ended:
            # With a pidfd, that tells: /proc may hide a process that lives.
            return f"{process} ended" if process.pidfd < 0 else ""
        process.name = status.name
        if process.stopped and status.state != "T" and not self._heedless:
            return f"SIGCONT came for {process}"
        return self.signalled(process, status)

    def threads(self, threads: Iterable[tuple[Watched, int]]) -> str:
        """Look at threads; a process is its main thread."""
        found = ""
        for process, tid in threads:
            if tid == process.pid:
                found = self.process(process) or found
                continue
            try:
                status = ProcessStatus.readThread(process.pid, tid)
            except OSError as error:
                self._unreadable(error)
                continue
            found = self.signalled(process, status, tid) or found
        return found

    def othersOf(self, processes: Sequence[Watched]) -> list[tuple[Watched, int]]:
        """All threads but the main ones."""
        return [(each, tid) for each in processes for tid in self._others(each)]

    def _others(self, process: Watched) -> list[int]:
        try:
            return otherThreads(process.pid) if process.threads > 1 else []
        except OSError as error:
            self._unreadable(error)
            return []

    def signalled(
        self, process: Watched, status: ProcessStatus | None, tid: int | None = None
    ) -> str:
        """The reason to wake that pending signals are, of a process or a thread of it."""
        if self._heedless:
            return ""
        if tid is None and status is not None:
            process.deaf = self._signals.deaf(status)
            process.threads = status.threads
        asleep = self._clock() - self.since
        new = self._signals.new(process.pid, tid or process.pid, status, asleep)
        if not new:
            return ""
        names = namesOf(new)
        are = "is" if len(names) == 1 else "are"
        # The process is what people know; the thread only tells it from the others.
        where = f"thread {tid} of {process}" if tid else process
        return f"{', '.join(names)} {are} pending for {where}"
