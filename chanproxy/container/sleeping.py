"""
SleepWatch: notices that a frozen container's processes die, are sent signals, or become more.

A frozen process does not answer a signal, and nothing can be polled for that: either the kernel can
be made to tell of it, L{chanproxy.container.told}, or it is looked for again and again,
L{chanproxy.container.searching}.  Of a process's end its pidfd tells.
Knows nothing of how a container is resumed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from chanproxy.container.bounds import Bounds
from chanproxy.container.cadence import Cadence
from chanproxy.container.comers import Comers
from chanproxy.container.deaths import Deaths
from chanproxy.container.looks import Looks, Watched
from chanproxy.container.pendingsignals import TIMERS, PendingSignals
from chanproxy.container.searching import Search
from chanproxy.container.signaltrace import SignalTrace
from chanproxy.container.told import Told
from chanproxy.interfaces import IFreezer, PollingReactor
from chanproxy.kernel.processes import ProcessStatus, runtimeIn

__all__ = ["TIMERS", "SleepWatch"]

CHECKS = 1.0
"""
Seconds between looks whether a container has run at all, at the most, where signals are told of.
A process may be born in it, and there are kernels that run no program of ours at some interrupts.
"""

LISTS = 5
"""After so many times C{signal-interval} the processes are listed though nothing has run."""


class SleepWatch:
    """One container's watch, used for one sleep after another."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        reactor: PollingReactor,
        freezer: IFreezer,
        bounds: Bounds,
        woken: Callable[[str], None],
        trace: SignalTrace | None = None,
        passedOver: int = TIMERS,
    ) -> None:
        """
        @param bounds: how often signals are looked for, at the most, and how many processes are
            watched.
        @param passedOver: signals that never wake it, as a bit mask.
        @param woken: called with the reason, at most once for each L{start}, and never from
            within it; the watch has stopped then.
        @param trace: tells of signals, where it can; its owner closes it.
        """
        self._name = name
        self._reactor = reactor
        self._interval = interval = bounds.signalInterval
        self._most = bounds.watchedProcesses
        self._woken = woken
        self._signals = PendingSignals(passedOver, self._unreadable)
        self._cadence = Cadence(reactor.seconds, interval)
        self._looks = Looks(reactor.seconds, self._signals, interval <= 0, self._unreadable)
        parts = (self._signals, self._looks, self._cadence)
        self._trace = trace if interval > 0 else None
        self._told: Told | None = None
        if self._trace is not None:
            self._told = Told(reactor, self._trace, *parts, self._wake)
        self._deaths = Deaths(reactor, self._ended, self._withoutPidfds)
        self._running = False
        self._watched: list[Watched] = []
        self._comers = Comers(reactor, freezer, self._wake, self._unlisted)
        self._search = Search(reactor.seconds, interval, freezer, self._comers, *parts)
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

    @property
    def notices(self) -> str:
        """How signals are noticed: C{told}, C{looked_for}, or C{never}."""
        if self._interval <= 0:
            return "never"
        fellBack = self._running and self._told is not None and not self._told.running
        available = self._trace is not None and self._trace.available
        return "told" if available and not fellBack else "looked_for"

    def beforeFreeze(self) -> None:
        """The container runs still, and is about to be frozen."""
        self._signals.taken()
        self._comers.beforeFreeze()

    def start(self, waiting: Iterable[tuple[int, int]] = (), found: str = "") -> None:
        """
        The container is frozen: begin to watch.  Idempotent.

        @param waiting: processes and threads that wait for signals which they block: nothing but a
            look at such a thread tells that one has come.
        @param found: a reason to wake that is known already; empty: none is.
        """
        if self._running:
            return
        self._running = True
        self._deaths.start()
        apart = {tid: pid for pid, tid in waiting if tid != pid}
        self._looks.since = self._reactor.seconds()
        found, pids = self._comers.start() or found, self._processes()
        self._signals.began(pids)
        # Both before they are looked at: nothing comes in between unseen.
        told = self._told
        if told is None or not pids or not told.begin(pids):
            told = None
        self._search.hasRun()
        for pid in pids:
            # Look at each, also after a reason was found: what is pending has to be remembered.
            reason = self._begin(pid)
            found = found or reason
        if told is not None and (found or not self._deaths.told):
            # Who has died has to be looked for as well.
            told.stop()
            told = None
        if found:
            self._call = self._reactor.callLater(0, self._wake, found)
        elif told is not None:
            told.start(self._watched, apart.items())
            self._search.start(self._watched, apart)
            self._againTold()
        elif self._interval > 0:
            self._cadence.start()
            self._search.start(self._watched, apart)
            self._again()

    def stop(self) -> None:
        """Watch no more.  Idempotent."""
        if self._running:
            self._comers.stop()
            self._signals.ended()
            self._cadence.stop()
            if self._told is not None:
                self._told.stop()
        self._running = False
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        self._deaths.stop()
        self._watched.clear()
        self._search.stop()

    def _wake(self, reason: str) -> None:
        self.stop()
        self._woken(reason)

    def _processes(self) -> list[int]:
        """The processes that are watched."""
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
            pidfd = self._deaths.open(pid)
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
        process = Watched(pid, "?" if status is None else status.name, pidfd)
        process.stopped = status is not None and status.state == "T"
        self._watched.append(process)
        self._deaths.watch(process)
        if status is None:
            return ""
        runtime = runtimeIn(pid, status.name)
        if runtime:
            # Whoever has begun it waits for it, and knows nothing of us.
            return f"{runtime}[{pid}] is about to start a program"
        return self._looks.signalled(process, status)

    def _withoutPidfds(self, error: OSError) -> None:
        self._warnOnce(
            "pidfds",
            "{name}: its processes cannot be watched while it sleeps ({error}): one that ends is"
            " noticed {when}; raise the limit of open files",
            error=error,
            when=f"within {self._interval} s" if self._interval > 0 else "only when it wakes",
        )

    def _ended(self, process: Watched) -> None:
        self._wake(f"{process} ended")

    def _againTold(self) -> None:
        interval, now = min(self._interval, CHECKS), self._reactor.seconds()
        # All at the same moments, as the clock has them: see Cadence.delay.
        self._call = self._reactor.callLater(interval - now % interval, self._lookTold)

    def _lookTold(self) -> None:
        """Look at what may not have been told of."""
        self._call = None
        hasRun = self._search.hasRun()
        lists = self._interval * (LISTS if hasRun is False else 1)
        late = self._reactor.seconds() - self._comers.listedAt >= lists
        found = self._comers.look() if hasRun or late else ""
        found = found or self._search.lookIf(hasRun)
        if found:
            self._wake(found)
        else:
            self._againTold()

    def _look(self) -> None:
        """Look whether signals have come."""
        self._call = None
        found = self._search.look()
        if found:
            self._wake(found)
        else:
            self._again()

    def _again(self) -> None:
        # Without a process, all that can happen is that one comes in.
        delay = self._cadence.delay() if self._watched else self._interval
        self._call = self._reactor.callLater(delay, self._look)

    def _unlisted(self, error: Exception) -> None:
        text = "{name}: its processes are not watched: {error}"
        self._warnOnce("processes", text, error=error)

    def _unreadable(self, error: Exception) -> None:
        self._warnOnce("unreadable", "{name}: a look at a process failed: {error}", error=error)

    def _warnOnce(self, what: str, text: str, **details: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._log.warn(text, name=self._name, **details)
