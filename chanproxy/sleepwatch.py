"""
SleepWatch: notices that a frozen container's processes die, are sent signals, or become more.

A frozen process does not answer a signal, and nothing can be polled for that: it is looked for.
Knows the freezer only as a list of processes that have used the processor for some time, and
nothing of how a container is resumed.
"""

from __future__ import annotations

import functools
import os
import select
from collections.abc import Callable, Iterable

from attrs import define
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from chanproxy._cadence import RESERVE, Cadence
from chanproxy._comers import Comers
from chanproxy._poller import Poller
from chanproxy._processes import ProcessStatus, namesOf, otherThreads
from chanproxy.interfaces import FreezerError, IFreezer, PollingReactor
from chanproxy.pendingsignals import TIMERS, PendingSignals

__all__ = ["TIMERS", "SleepWatch"]

AT_ONCE = 16
"""So many threads or processes are looked at before it is seen what that has taken."""


@define
class _Watched:
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


class SleepWatch:
    """One container's watch, used for one sleep after another."""

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
        @param interval: seconds between looks for signals, at the most; 0: signals are not looked
            for.
        @param most: as many processes are watched.
        @param woken: called with the reason, at most once for each L{start}, and never from
            within it; the watch has stopped then.
        @param passedOver: signals that never wake it, as a bit mask.
        """
        self._name = name
        self._reactor = reactor
        self._freezer = freezer
        self._interval = interval
        self._most = most
        self._woken = woken
        self._signals = PendingSignals(passedOver, self._unreadable)
        self._cadence = Cadence(reactor.seconds, interval)
        self._poller = Poller(reactor)
        self._running = False
        self._usePidfds = True
        self._watched: list[_Watched] = []
        self._comers = Comers(reactor, freezer, self._wake, self._unlisted)
        self._since = self._roundAt = 0.0
        self._used: int | None = None
        self._stirred = False
        self._waiting: dict[int, int] = {}
        # Those still to be looked at; a process is its main thread.
        self._round: list[tuple[_Watched, int]] = []
        self._call: IDelayedCall | None = None
        self._warned: set[str] = set()

    @property
    def ticking(self) -> list[str]:
        """The timers whose signals do not wake it, because they tick: C{SIGALRM of python[12]}."""
        names = {each.pid: each for each in self._watched}
        return [
            f"{name} of {names.get(pid, pid)}"
            for pid, _, signals in self._signals.ticking()
            for name in signals
        ]

    def beforeFreeze(self) -> None:
        """The container runs still, and is about to be frozen."""
        self._signals.taken()
        self._comers.beforeFreeze()

    def start(self, waiting: Iterable[tuple[int, int]] = ()) -> None:
        """
        The container is frozen: begin to watch.  Idempotent.

        @param waiting: processes and threads that wait for signals which they block: nothing but a
            look at such a thread tells that one has come.
        """
        if self._running:
            return
        self._running = self._usePidfds = True
        self._waiting = {tid: pid for pid, tid in waiting if tid != pid}
        self._since = self._reactor.seconds()
        self._hasRun()
        found, pids = self._comers.start(), self._processes()
        self._signals.began(pids)
        for pid in pids:
            # Each of them, also after a reason was found: what is pending has to be remembered.
            reason = self._begin(pid)
            found = found or reason
        self._stirred = False
        self._roundAt = self._since - self._interval
        if found:
            self._call = self._reactor.callLater(0, self._wake, found)
        elif self._interval > 0:
            self._cadence.start()
            self._again()

    def stop(self) -> None:
        """Watch no more.  Idempotent."""
        if self._running:
            self._comers.stop()
            self._signals.ended()
            self._cadence.stop()
        self._running = False
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        self._closePidfds()
        self._watched.clear()
        self._round = []

    def _wake(self, reason: str) -> None:
        self.stop()
        self._woken(reason)

    def _processes(self) -> list[int]:
        """Those that are watched."""
        if self._most <= 0:
            return []
        pids = self._comers.pids
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
        """Look whether signals have come."""
        self._call = None
        now = self._reactor.seconds()
        self._cadence.begin()
        stirred = self._hasRun()
        late = now - self._comers.listedAt >= self._interval
        found = self._comers.look() if late else ""
        ticking = {tid: pid for pid, tid, _ in self._signals.ticking()}
        apart = {**ticking, **self._waiting}
        for process in self._watched:
            if stirred is None or process.deaf or process.pid in ticking:
                found = self._lookAt(process) or found
            if apart:
                tids = [tid for tid, pid in apart.items() if tid != pid == process.pid]
                found = self._lookAtThreads([(process, tid) for tid in tids]) or found
        self._cadence.end()
        self._stirred = self._stirred or bool(stirred)
        found = found or self._lookFurther(now)
        if found:
            self._wake(found)
        else:
            self._again()

    def _again(self) -> None:
        # Without a process, all that can happen is that one comes in.
        delay = self._cadence.delay() if self._watched else self._interval
        self._call = self._reactor.callLater(delay, self._look)

    def _lookFurther(self, now: float) -> str:
        """Look where something has stirred, and in turn at all else, as far as there is time."""
        cadence, found = self._cadence, ""
        stirred = self._stirred and cadence.canAfford()
        if stirred:
            self._stirred = False
            cadence.begin()
            for process in self._watched:
                found = self._lookAt(process) or found
            self._round = self._threads()
            cadence.endExtra()
        elif not self._round and now - self._roundAt >= self._interval:
            # What no thread has noticed; and who knows how exactly a freezer counts.
            self._roundAt = now
            self._round = [*((each, each.pid) for each in self._watched), *self._threads()]
        while self._round and not found and (stirred or cadence.canAfford(RESERVE)):
            cadence.begin()
            found = self._lookAtThreads(self._round[:AT_ONCE])
            del self._round[:AT_ONCE]
            cadence.endExtra()
        return found

    def _threads(self) -> list[tuple[_Watched, int]]:
        return [(each, tid) for each in self._watched for tid in self._others(each)]

    def _lookAtThreads(self, threads: list[tuple[_Watched, int]]) -> str:
        found = ""
        for process, tid in threads:
            if tid == process.pid:
                found = self._lookAt(process) or found
                continue
            try:
                status = ProcessStatus.readThread(process.pid, tid)
            except OSError as error:
                self._unreadable(error)
                continue
            found = self._signalled(process, status, tid) or found
        return found

    def _others(self, process: _Watched) -> list[int]:
        try:
            return otherThreads(process.pid) if process.threads > 1 else []
        except OSError as error:
            self._unreadable(error)
            return []

    def _hasRun(self) -> bool | None:
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

    def _signalled(
        self, process: _Watched, status: ProcessStatus | None, tid: int | None = None
    ) -> str:
        """The reason to wake that pending signals are, of a process or a thread of it."""
        if self._interval <= 0:
            return ""
        if tid is None and status is not None:
            process.deaf = self._signals.deaf(status)
            process.threads = status.threads
        asleep = self._reactor.seconds() - self._since
        new = self._signals.new(process.pid, tid or process.pid, status, asleep)
        if not new:
            return ""
        names = namesOf(new)
        are = "is" if len(names) == 1 else "are"
        # The process is what people know; the thread only tells it from the others.
        where = f"thread {tid} of {process}" if tid else process
        return f"{', '.join(names)} {are} pending for {where}"

    def _unlisted(self, error: Exception) -> None:
        text = "{name}: its processes are not watched: {error}"
        self._warnOnce("processes", text, error=error)

    def _unreadable(self, error: Exception) -> None:
        self._warnOnce("unreadable", "{name}: a look at a process failed: {error}", error=error)

    def _warnOnce(self, what: str, text: str, **details: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._log.warn(text, name=self._name, **details)
