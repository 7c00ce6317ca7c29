"""
One wake source, and what is wrong with one.

Knows no registry.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred

from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.locks import WakeLock
from chanproxy.wake.statistics import SourceStatistics

EVENTS = {
    "in": select.EPOLLIN,
    "out": select.EPOLLOUT,
    "pri": select.EPOLLPRI,
    "rdhup": select.EPOLLRDHUP,
    "err": select.EPOLLERR,
    "hup": select.EPOLLHUP,
}
"""The poll events by their names, C{poll(2)} without the C{POLL}."""


class WakeSourceError(Exception):
    """A wake source cannot be added or removed; the registry is unchanged."""


class WakeSourceExists(WakeSourceError):
    """The same open file is registered already."""


class TooManyWakeSources(WakeSourceError):
    """As many as are allowed are registered."""


@define(eq=False)
class WakeSource:
    """
    Something pollable that keeps its container awake while it is signalled.

    @ivar name: what people read in a resume reason.
    @ivar descriptor: what is polled; the counter's own, or else the registry's.
    @ivar events: C{select.EPOLL*}; errors and hang-ups always count as well.
    @ivar counter: set when it is a message counter.
    @ivar adopted: it was found in the frozen container, and goes when that wakes.
    """

    name: str
    descriptor: int
    events: int
    counter: MessageCounter | None = None
    adopted: bool = False
    statistics: SourceStatistics = field(factory=SourceStatistics, init=False)

    @property
    def kind(self) -> str:
        """C{counter}, C{descriptor} or C{adopted}."""
        if self.adopted:
            return "adopted"
        return "descriptor" if self.counter is None else "counter"

    @property
    def eventCount(self) -> int:
        """See L{SourceStatistics}."""
        return self.statistics.eventCount if self.counter is None else self.counter.added

    def whenQuiet(self) -> Deferred[None] | None:
        """
        Wait until it is not signalled any more; cancellable.

        @return: L{None} when the kernel has no event for that: look now and then.
        """
        return None if self.counter is None else self.counter.whenZero()


Source = WakeSource | WakeLock


class SourceGroup(Protocol):
    """
    Sources that come and go together, found in a frozen container; see
    L{chanproxy.wake.sources.WakeSources.attach}.

    @ivar epoll: holds them all.
    """

    epoll: select.epoll

    def __len__(self) -> int:
        """How many they are."""

    @property
    def sources(self) -> list[WakeSource]:
        """All of them."""

    def poll(self) -> list[WakeSource]:
        """Those that are signalled now."""

    @property
    def label(self) -> str:
        """Which of the container's own times wakes it; empty for none."""

    @property
    def whose(self) -> tuple[int, int] | None:
        """The process and thread that wait for that."""

    @property
    def watchdog(self) -> float | None:
        """Seconds within which it has to report to a watchdog; L{None} without one."""

    def within(self) -> float | None:
        """Seconds from now until that time; L{None} without one."""

    def inside(self, source: WakeSource, until: float) -> tuple[list[str], int]:
        """
        What is in one of them that stands for many: the first ones in words, and how many.

        @param until: seconds of processor time (C{time.thread_time}), when it has taken too long.
        """

    def explain(self, signalled: Sequence[WakeSource], wokenAt: int) -> list[str]:
        """Names of those that were, with who is at the other end; some milliseconds after that."""

    def beforeThaw(self, breath: bool) -> None:
        """
        What has to be done right before the container runs again.

        @param breath: for a moment, and for nothing but time.
        """

    def close(self) -> None:
        """Close everything.  Idempotent."""
