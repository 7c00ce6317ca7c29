"""
Entering: which processes a container has, and whether each of their threads may be waiting.

Nothing is stopped for it: so whoever works is found out before anything is taken.  Knows nothing of
what they wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence

from attrs import frozen

from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.decode import mayWait
from chanproxy.adopt.slices import Listing
from chanproxy.adopt.socketlimits import RECEIVING
from chanproxy.adopt.subject import StillBusy, Subject
from chanproxy.adopt.threads import Gone, Memory, clockOf, position, threadsOf, threadStat
from chanproxy.adopt.times import Times
from chanproxy.adopt.waits import Clock
from chanproxy.kernel import calls
from chanproxy.words import named

_ENDED = frozenset(
    ("epoll_wait", "epoll_pwait", "epoll_pwait2", "rt_sigtimedwait", "io_uring_enter", *RECEIVING)
)
"""Calls that a freeze ends, so that their time has to be known from before."""

_EACH = 2
"""Descriptors that a look keeps open for each process: itself, and its memory."""


@frozen
class Members:
    """
    Who is in a container.

    @ivar listing: of its processes.
    @ivar hidden: how many of them are not listed.
    @ivar blind: accept those that may not be looked into.
    """

    listing: Listing
    hidden: Callable[[], int] = lambda: 0
    blind: bool = False


class Entering:
    """
    For one container, look after look.

    @ivar members: who is in it.
    @ivar rings: threads that work for an C{io_uring} are no reason to stay awake.
    """

    def __init__(self, members: Members, times: Times, rings: bool, stopped: bool) -> None:
        """
        @param times: what is known of the times that its threads wait for.
        @param stopped: the container is frozen when it is looked at.
        """
        self.members = members
        self._times = times
        self.rings = rings
        self._stopped = stopped

    def list(self, spare: int) -> Generator[None, None, Sequence[int]]:
        """
        All of them.

        @param spare: how many descriptors a look may open for itself.
        """
        pids = yield from self.members.listing()
        if _EACH * len(pids) > spare:
            raise StillBusy(
                f"busy: it has {len(pids)} processes, and to look into them takes {_EACH} "
                f"descriptors each; {spare} may be taken; raise the limit (ulimit -n)"
            )
        if not pids:
            raise StillBusy("none of its processes can be seen from here")
        hidden = 0 if self.members.blind else self.members.hidden()
        if hidden:
            raise StillBusy(
                f"{hidden} of its processes cannot be seen from this pid namespace; "
                'or write unseen = "blind", and they are left out'
            )
        self._times.keepOnly(set(pids))
        return pids

    def enter(self, pid: int, since: int) -> Subject | None:
        """
        Open a process, and list its threads.

        @param since: nanoseconds (C{CLOCK_MONOTONIC}) when the look began.
        @return: None when it has ended, or is left out.
        """
        name = ""
        try:
            stat = threadStat(pid, pid)
            name = stat.name
            threads = threadsOf(pid)
            if stat.state in "ZX":
                threads.remove(pid)
            if not threads:
                return None
            # A look that may be refused, before anything is opened.
            position(pid, threads[0])
            memory = Memory(pid, threads[0], self._times.reading)
            return Subject(pid, name, memory, _clockAt(pid, since), threads)
        except Gone:
            return None
        except PermissionError:
            if not self.members.blind:
                raise StillBusy(
                    f"{named(name)}[{pid}] may not be looked into: that takes CAP_SYS_PTRACE; "
                    'or write unseen = "blind", and it is left out'
                ) from None
            return None
        except OSError as error:
            raise StillBusy(f"{named(name)}[{pid}]: {error.strerror}") from error

    def sightAll(self, subject: Subject) -> None:
        """A cheap first look: whoever is in no call that waits works."""
        for tid in list(subject.threads):
            try:
                if not self._isThere(subject, tid):
                    subject.threads.remove(tid)
                elif not calls.sameTable(subject.memory.thread, tid):
                    raise StillBusy(f"{subject.labelOf(tid)} has a table of descriptors of its own")
            except Gone:
                subject.threads.remove(tid)

    def _isThere(self, subject: Subject, tid: int) -> bool:
        """
        Whether a thread waits in a call, as far as can be seen without stopping it for a look.

        @return: False when it has ended, is stopped by a signal, or is none of the program's own.
        @raise StillBusy: it works.
        """
        where = position(subject.pid, tid)
        number = -1 if where is None else where.number
        name = self._times.processor.name(number)
        # A worker for rings shows the call that it was made in, for ever.
        if name == "io_uring_enter" and threadStat(subject.pid, tid).isRingWorker:
            number = -1
        if number >= 0 and (name == RESTART or mayWait(name)):
            if self._stopped and name in _ENDED and self._times.moved(subject.pid, tid):
                subject.moved.add(tid)
            return True
        stat = threadStat(subject.pid, tid)
        # One that is stopped waits for SIGCONT; that it goes on is looked for while it sleeps.
        if stat.isRingWorker and not self.rings:
            raise StillBusy(f"busy: {named(stat.name)}[{tid}] works for an io_uring")
        if stat.asleepForGood or stat.state == "T":
            return False
        if number >= 0:
            raise StillBusy(
                f"busy: {named(stat.name)}[{tid}] is in {name}, which cannot be watched"
            )
        # One that has stopped only just now may count as running still: its registers tell.
        unknown = self._stopped if where is None else self._times.processor.forgetful
        if not unknown:
            raise StillBusy(f"busy: {named(stat.name)}[{tid}]")
        return True


def _clockAt(pid: int, since: int) -> Clock:
    """A process's clocks as they were when the look began: it takes milliseconds."""
    clock = clockOf(pid)
    return lambda number: clock(number) - (time.monotonic_ns() - since)
