"""
What a program inside a container imports to take part: counters, wake locks, its own suspend.

Needs the standard library only, and Python 3.9: containers are older than their hosts.  Blocking
and threadsafe; in L{chanproxy.guest.waking} is what asyncio programs need besides.  Speaks to the
control socket of a service, of which it must not know anything else.
"""

from __future__ import annotations

from chanproxy.guest._counters import Counter, CounterError, OwnedCounter, SharedCounter
from chanproxy.guest._errors import (
    AlreadySuspended,
    CallRefused,
    GuestError,
    ServiceGone,
    SuspendFailure,
    WakeLocksExist,
)
from chanproxy.guest._guest import Change, Guest, Resumed, Watch

__all__ = [
    "AlreadySuspended",
    "CallRefused",
    "Change",
    "Counter",
    "CounterError",
    "Guest",
    "GuestError",
    "OwnedCounter",
    "Resumed",
    "ServiceGone",
    "SharedCounter",
    "SuspendFailure",
    "WakeLocksExist",
    "Watch",
]
