"""
Waits: what a thread waits for, once its call has been decoded.

Knows no calls and no memory.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable

from attrs import evolve, frozen

Clock = Callable[[int], int]
"""Nanoseconds by the number of a clock, C{CLOCK_MONOTONIC} and so on; raises OSError."""

MOST_POLLED = 65536
"""Descriptors of one poll(2) or select(2) that are looked at; more is called busy."""

MOST_ENTRIES = 2 * MOST_POLLED
"""
Of all that the threads of a container poll and select, those of equal tables counted once: twice
what a container may be watched by.  Some 20 megabytes while they are looked at.
"""

Entries = tuple[tuple[int, int], ...]
"""Numbers of descriptors, each with its poll events."""

FOR_SIGNALS = ("pause", "rt_sigsuspend", "rt_sigtimedwait")
"""Calls that a signal ends, and nothing else but time."""


class NotWaiting(Exception):
    """The thread waits for nothing that can be watched; the text says what it does."""


class Tables:
    """
    What the threads of one container poll, in one look: equal tables are one, and all together have
    a limit.

    @ivar skipped: they are of no interest, and not even read.
    """

    def __init__(self, most: int = MOST_ENTRIES, skipped: bool = False) -> None:
        """@param most: entries of all that differ."""
        self.skipped = skipped
        self._most = most
        self._count = 0
        self._known: dict[Hashable, Entries] = {}

    def of(self, raw: Hashable, make: Callable[[], Entries]) -> Entries:
        """
        The entries of a table.

        @param raw: the table, as the kernel was given it.
        @raise NotWaiting: there are too many.
        """
        known = self._known.get(raw)
        if known is None:
            known = make()
            self._count += len(known)
            if self._count > self._most:
                raise NotWaiting(
                    "polls, with the container's other threads, more descriptors than are "
                    f"looked at, {MOST_ENTRIES} in all"
                )
            self._known[raw] = known
        return known


TIMES = Tables(skipped=True)
"""For those who want to know of a call's time only."""


@frozen
class Children:
    """
    Which children a process waits for.

    @ivar kind: C{any}, C{pid} or C{group}.
    @ivar value: the process or group, as seen in the waiting process's own pid namespace; 0 stands
        for its own group.
    @ivar stops: also for those that are stopped by a signal, or go on.
    """

    kind: str
    value: int = 0
    stops: bool = False


@frozen
class Rest:
    """
    Where the kernel writes what is left of a time when a freeze interrupts the call; when the
    thread runs again, the call begins anew with what stands there.

    @ivar address: of two words, seconds and a part of a second.
    @ivar unit: nanoseconds that one of the second word is.
    """

    address: int
    unit: int


@frozen
class Wait:
    """
    What one thread waits for; any of it ends the wait.

    @ivar call: the call's name.
    @ivar descriptors: numbers in its process, each with its poll events.
    @ivar within: nanoseconds from now after which the wait ends by itself; None: never.
    @ivar relative: C{within} is the time that was asked for, of which some has passed already.
    @ivar rest: set for a call that begins anew with what is left.
    @ivar overwritten: C{within} is what is left, once a freeze has interrupted the call; it goes on
        all the same.
    @ivar expired: set for a call that a freeze ends with C{EINTR}: what it gives when its time is
        over.
    """

    call: str
    descriptors: Entries = ()
    within: int | None = None
    relative: bool = False
    children: Children | None = None
    rest: Rest | None = None
    overwritten: bool = False
    expired: int | None = None

    @property
    def onlyTime(self) -> bool:
        """Nothing but time or another thread ends it."""
        return not self.descriptors and self.children is None and self.call not in FOR_SIGNALS

    def limited(self, within: int) -> Wait:
        """
        The same for a call on a socket that has a limit of its own, in nanoseconds.

        @raise NotWaiting: a freeze would harm it.
        """
        if self.call == "connect":
            raise NotWaiting("is in connect with a limit, which a freeze would cut short")
        return evolve(self, within=within, relative=True, expired=-errno.EAGAIN)
