"""
Adopter: everything by which one container wakes by its own sockets, built and wired.

Knows a freezer only as a list of processes, and of the container's life cycle only its states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.adopt.adopted import Place
from chanproxy.adopt.connections import Connections
from chanproxy.adopt.deadlines import BRIEF, WORTH
from chanproxy.adopt.drywatch import DryWatch
from chanproxy.adopt.entering import Members
from chanproxy.adopt.foresight import Foresight
from chanproxy.adopt.inspector import Inspector
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.sampler import Sampler
from chanproxy.adopt.settings import Adoption
from chanproxy.adopt.slices import Sliced, listingOf
from chanproxy.adopt.times import Times
from chanproxy.adopt.usage import Usage
from chanproxy.interfaces import IFreezer
from chanproxy.wake.source import SourceGroup

SETTLING = 0.01
"""Seconds after which each thread has stopped again that was looked at, as a rule."""


class Adopter:
    """All that one container needs to wake by its own sockets."""

    def __init__(
        self,
        name: str,
        reactor: IReactorTime,
        freezer: IFreezer,
        adoption: Adoption,
        place: Place,
        stopped: bool = True,
    ) -> None:
        """
        @param place: where what is found is adopted.
        @param stopped: see L{Inspector}.
        """
        self._reactor = reactor
        self._freezer = freezer
        self._adoption = adoption
        self._stopped = stopped
        self._settling: IDelayedCall | None = None
        self._freezing: int | None = None
        self._label = ""
        self._whose: tuple[int, int] | None = None
        self._times = times = Times.make(name, reactor, adoption.timeouts)
        times.reading.prepare()
        self._connections = connections = Connections(name, adoption.unanswered)
        ignored = Ignored(adoption.ignore)
        rings = "io_uring" in ignored.kinds()
        listing = listingOf(freezer)
        self._foresight = Foresight(times, listing, connections, rings)
        self._sampler = Sampler(reactor, times.observer, self._foresight, freezer.cpuTime)

        self._inspector = Inspector(
            reactor,
            Members(listing, freezer.hiddenProcesses, adoption.unseen == "blind"),
            times,
            ignored,
            place,
            stopped,
            connections,
        )

    def set(self, adoption: Adoption) -> None:
        """
        Have other settings, from the next look on; what it has learnt is kept.

        To be called while the container is awake; what L{usage} has returned keeps the old ones.
        """
        self._adoption = adoption
        self._times.deadlines.threshold = adoption.timeouts
        self._connections.unanswered = adoption.unanswered
        ignored = Ignored(adoption.ignore)
        self._foresight.leavesRings = "io_uring" in ignored.kinds()
        self._inspector.set(ignored, adoption.unseen == "blind")

    @property
    def passedOver(self) -> tuple[str, ...]:
        """The times that are housekeeping, and do not wake it; in words."""
        return self._times.deadlines.passedOver

    @property
    def signalWaiters(self) -> tuple[tuple[int, int], ...]:
        """See L{Inspector}."""
        return self._inspector.signalWaiters

    def usage(self) -> Usage:
        """Tells whether the container works."""
        return Usage(
            self._reactor,
            self._freezer.cpuTime,
            self._freezer.processes,
            self._adoption.busyCpu,
            self._adoption.busySwitches,
        )

    def dryWatch(self, linger: float, woken: Callable[[str], None]) -> DryWatch:
        """See L{DryWatch}."""
        return DryWatch(self._reactor, linger, self.usage(), self._inspector.look, woken)

    def foresee(self) -> Deferred[None]:
        """
        Look at the running container: whether it could be frozen, and that would do no harm.

        @return: fails with L{StillBusy} or L{NotYet}.  Cancellable.
        """
        return Sliced(self._reactor, self._foresee()).result

    def _foresee(self) -> Generator[None, None, None]:
        self._times.cutShort.review()
        timed = yield from self._foresight.round(refuse=True)
        self._times.deadlines.earliest(timed, time.monotonic_ns())

    def look(self) -> Deferred[SourceGroup]:
        """Look into the frozen container; see L{Inspector.look}."""
        return self._inspector.look(self._freezing).addCallback(self._looked)

    def _looked(self, found: SourceGroup) -> SourceGroup:
        self._label, self._whose = found.label, found.whose
        return found

    def stateChanged(self, state: str, reasons: tuple[str, ...] = ()) -> None:
        """The container's state, and why; see L{chanproxy.container.suspension}."""
        settling, self._settling = self._settling, None
        if settling is not None and settling.active():
            settling.cancel()
        # What has been asleep is worth to be frozen again for less.
        worth = BRIEF if state in ("breathing", "refreezing") else WORTH
        # What was far enough right before the freeze is not too near right after it.
        self._times.deadlines.worth = worth // (2 if state in ("suspending", "refreezing") else 1)
        if state in ("suspending", "refreezing", "pausing"):
            self._freezing = time.monotonic_ns()
            self._sampler.stop()
            self._times.cutShort.freezing()
        elif state == "asleep" and self._stopped:
            self._settle(SETTLING)
        elif state in ("breathing", "resuming"):
            own = bool(self._label) and reasons == (self._label,)
            self._times.observer.resumed(
                self._whose if own else None, state == "resuming" and not own
            )
            self._times.cutShort.resumed()
        elif state == "awake" or not self._stopped:
            self._sampler.start()

    def _settle(self, pause: float) -> None:
        def again() -> None:
            if not self._times.cutShort.settle():
                self._settle(2 * pause)

        self._settling = self._reactor.callLater(pause, again)

    def close(self) -> None:
        """Let go of all threads, and look no more."""
        self.stateChanged("")
        self._sampler.stop()
        self._times.cutShort.close()
        self._inspector.close()
