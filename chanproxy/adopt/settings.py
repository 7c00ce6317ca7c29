"""
What can be set about adopting, with its defaults.

Knows numbers and words only.
"""

from __future__ import annotations

from attrs import frozen

from chanproxy.adopt.connections import UNANSWERED
from chanproxy.adopt.usage import BUSY_CPU, BUSY_SWITCHES

TIMEOUTS = 10.0
"""
Seconds, by default, from which on a time that a program waits for wakes it.

Servers look around every tenth of a second to every few seconds whether there is something to do
(redis ten times a second, a JVM twenty times); times that somebody would miss are mostly longer.
"""

SHORT_SLEEP = 1.0
"""
Seconds, by default: sleeps that are shorter again and again are not worth it.

A freeze and a thaw with the looks between them cost some milliseconds of a processor.
"""

BREATH = 15.0
"""
Seconds asleep, by default, after which a container breathes at the latest.

So late may be what nothing outside shows.  Watchdogs and leases mostly have thirty seconds or more.
"""


@frozen
class Adoption:
    """
    How a container wakes by its own sockets.

    @ivar timeouts: seconds; see L{chanproxy.adopt.deadlines.Deadlines}.
    @ivar ignore: see L{chanproxy.adopt.naming.Ignored}.
    @ivar unseen: what becomes of processes that may not be looked into: C{awake}: they keep it so;
        C{blind}: nothing of theirs wakes it.
    @ivar busyCpu: share of one processor above which it is at work.
    @ivar busySwitches: times a second that a thread may run without being at work.
    @ivar unanswered: seconds; see L{chanproxy.adopt.connections.Connections}.
    @ivar shortSleep: seconds; see L{chanproxy.container.idle.IdleWatch}.
    """

    timeouts: float = TIMEOUTS
    ignore: tuple[str, ...] = ()
    unseen: str = "awake"
    busyCpu: float = BUSY_CPU
    busySwitches: float = BUSY_SWITCHES
    shortSleep: float = SHORT_SLEEP
    unanswered: float = UNANSWERED
