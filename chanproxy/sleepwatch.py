"""
SleepWatch: notices that a frozen container's processes die or are sent signals.

A frozen process does not answer a signal, and nothing can be polled for that: it is looked for.
Knows the freezer only as a list of processes, and nothing of how a container is resumed.
"""

from __future__ import annotations

import functools
import os
import select
import signal
from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from chanproxy._poller import Poller
from chanproxy._processes import ProcessStatus, maskOf, namesOf, startTime
from chanproxy.interfaces import FreezerError, IFreezer, PollingReactor

_STOP = maskOf(signal.SIGSTOP)
"""To be stopped, there is no need to wake; a freezer may stop by this very signal."""

TIMERS = maskOf(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
"""Signals of a program's own timers."""

_ANY = ~0


@define
class _Watched:
    """
    A process, while the container sleeps.

    @ivar pidfd: owned by the watch; -1 for none.
    @ivar stopped: a signal has stopped it, and SIGCONT has not come yet.
    """

    pid: int
    name: str
    pidfd: int = -1
    stopped: bool = False

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}]"


class SleepWatch:
    """
    One container's watch, used for one sleep after another.

    It remembers across sleeps which pending signals have woken the container: a program may leave
    a signal that it blocks pending for ever, and that is no reason to stay awake for ever.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        reactor: PollingReactor,
        freezer: IFreezer,
        interval: float,
        most: int,
        woken: Callable[[str], None],
        passedOver: int = TIMERS,
    ) -> None:
        """
        @param interval: seconds between looks for signals; 0: signals are not looked for.
        @param most: as many processes are watched.
        @param woken: called with the reason, at most once for each L{start}, and never from
            within it; the watch has stopped then.
        """
        self._name = name
        self._reactor = reactor
        self._freezer = freezer
        self._interval = interval
        self._most = most
        self._woken = woken
        self._passedOver = passedOver | _STOP
        self._poller = Poller(reactor)
        self._running = False
        self._usePidfds = True
        self._watched: list[_Watched] = []
        self._inside: frozenset[int] | None = None
        self._call: IDelayedCall | None = None
        # By process: its start time, and what was pending when last looked at.
        self._known: dict[int, tuple[int, int]] = {}
        self._warned: set[str] = set()

    def start(self) -> None:
        """The container is frozen: begin to watch.  Idempotent."""
        if self._running:
            return
        self._running = self._usePidfds = True
        pids = self._processes()
        # Whoever is not looked at now may be another process next time.
        self._known = {pid: self._known[pid] for pid in pids if pid in self._known}
        found = ""
        for pid in pids:
            # Each of them, also after a reason was found: what is pending has to be remembered.
            reason = self._begin(pid)
            found = found or reason
        if found:
            self._call = self._reactor.callLater(0, self._wake, found)
        elif self._interval > 0:
            self._call = self._reactor.callLater(self._interval, self._look)

    def beforeFreeze(self) -> None:
        """The container runs still: forget signals that have been taken since they woke it."""
        for pid, (started, pending) in list(self._known.items()):
            try:
                status = ProcessStatus.read(pid)
            except OSError as error:
                self._unreadable(error)
                continue
            left = 0 if status is None else pending & status.pending
            if left:
                self._known[pid] = (started, left)
            else:
                del self._known[pid]

    def stop(self) -> None:
        """Watch no more.  Idempotent."""
        self._running = False
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        self._closePidfds()
        self._watched.clear()

    def _wake(self, reason: str) -> None:
        self.stop()
        self._woken(reason)

    def _processes(self) -> list[int]:
        self._inside = None
        if self._most <= 0:
            return []
        try:
            pids = list(self._freezer.processes())
        except (FreezerError, OSError) as error:
            self._warnOnce(
                "processes", "{name}: its processes are not watched: {error}", error=error
            )
            return []
        self._inside = frozenset(pids)
        if len(pids) > self._most:
            self._warnOnce(
                "most",
                "{name}: only {most} of its {count} processes are watched while it sleeps;"
                " raise watched-processes",
                most=self._most,
                count=len(pids),
            )
        return pids[: self._most]

    def _begin(self, pid: int) -> str:
        """Watch a process; return a reason to wake, or nothing."""
        # The pidfd comes first: it holds on to the process that is looked at next.
        try:
            pidfd = self._openPidfd(pid)
        except ProcessLookupError:
            return "a process ended"
        try:
            status = ProcessStatus.read(pid)
        except OSError as error:
            self._unreadable(error)
            status = None
        else:
            if status is None and pidfd < 0:
                return "a process ended"
        if status is not None and status.ended:
            # It was dead before the container slept, and its pidfd would say so for ever.
            if pidfd >= 0:
                os.close(pidfd)
            return ""
        # Without a status /proc hides it from us; the pidfd tells all the same.
        process = _Watched(pid, "?" if status is None else status.name, pidfd)
        process.stopped = status is not None and status.state == "T"
        self._watched.append(process)
        if pidfd >= 0:
            try:
                ended = functools.partial(self._ended, process)
                self._poller.watch(pidfd, select.EPOLLIN, ended)
            except OSError as error:
                self._withoutPidfds(error)
        return "" if status is None else self._signalled(process, status)

    def _openPidfd(self, pid: int) -> int:
        if self._usePidfds:
            try:
                # Python sets O_CLOEXEC.
                return os.pidfd_open(pid)
            except ProcessLookupError:
                raise
            except OSError as error:
                self._withoutPidfds(error)
        return -1

    def _withoutPidfds(self, error: OSError) -> None:
        # All are given back: others of this service are in more need of them.
        self._usePidfds = False
        self._closePidfds()
        self._warnOnce(
            "pidfds",
            "{name}: its processes cannot be watched while it sleeps ({error}): one that ends is"
            " noticed {when}; raise the limit of open files",
            error=error,
            when=f"within {self._interval} s" if self._interval > 0 else "only when it wakes",
        )

    def _closePidfds(self) -> None:
        for process in self._watched:
            if process.pidfd >= 0:
                self._poller.unwatch(process.pidfd)
                os.close(process.pidfd)
                process.pidfd = -1

    def _ended(self, process: _Watched, _: int) -> None:
        self._wake(f"{process} ended")

    def _look(self) -> None:
        """Look at each process again, and for others."""
        self._call = None
        found = self._cameIn()
        for process in self._watched:
            reason = self._lookAt(process)
            found = found or reason
        if found:
            self._wake(found)
        else:
            self._call = self._reactor.callLater(self._interval, self._look)

    def _cameIn(self) -> str:
        """The reason to wake that a process is which was moved into the container, or nothing."""
        if self._inside is None:
            return ""
        try:
            new = [pid for pid in self._freezer.processes() if pid not in self._inside]
            status = ProcessStatus.read(new[0]) if new else None
        except (FreezerError, OSError) as error:
            self._unreadable(error)
            return ""
        return f"{status.name}[{new[0]}] came in" if status is not None else ""

    def _lookAt(self, process: _Watched) -> str:
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
        if process.stopped and status.state != "T" and self._interval > 0:
            return f"SIGCONT came for {process}"
        return self._signalled(process, status)

    def _signalled(self, process: _Watched, status: ProcessStatus) -> str:
        """The reason to wake that a process's pending signals are, or nothing."""
        if self._interval <= 0:
            return ""
        if not status.pending:
            self._known.pop(process.pid, None)
            return ""
        try:
            started = startTime(process.pid)
        except OSError as error:
            self._unreadable(error)
            return ""
        knownStart, known = self._known.get(process.pid, (0, 0))
        if knownStart != started:
            known = 0
        self._known[process.pid] = (started, status.pending)
        # A thread that merely waits is sent what it does not block as soon as it is thawed.  So
        # this one is new, even if the like of it was seen before.
        lasting = status.blocked if status.state == "S" else _ANY
        new = status.pending & ~status.ignored & ~self._passedOver & ~(known & lasting)
        if not new:
            return ""
        names = namesOf(new)
        are = "is" if len(names) == 1 else "are"
        return f"{', '.join(names)} {are} pending for {process}"

    def _unreadable(self, error: Exception) -> None:
        self._warnOnce("unreadable", "{name}: a look at a process failed: {error}", error=error)

    def _warnOnce(self, what: str, text: str, **details: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._log.warn(text, name=self._name, **details)
