"""
Kinds of reasons: a few words for what the reasons of wakes and of refusals say in many.

For figures, of which there may not be one for each name that somebody chose.
"""

from __future__ import annotations

import re

from chanproxy.container import Container
from chanproxy.container.core import LONGEST, TIMEOUT

KINDS = (
    *("channel", "sockets", "time", "signal", "process", "lock", "alarm", "source", "busy"),
    *("other", "unseen"),
)
"""All of them; C{unseen} are those that went by between two looks."""

SOCKETS = (
    *("tcp", "udp", "unix", "vsock", "netlink", "socket", "pipe", "eventfd", "timerfd"),
    *("signalfd", "inotify", "pidfd", "epoll", "io_uring", "device", "file"),
)
"""What the names of a container's own descriptors begin with: L{chanproxy.adopt.naming.WORDS}."""

_SIGNAL = re.compile(r" pending for |^SIGCONT came for ")
_PROCESS = re.compile(r"\[\d+\] (ended|came in)$")


class Kinds:
    """Of the reasons of one container, by what it has at this moment."""

    def __init__(self, container: Container) -> None:
        self._prefix = f"{container.name}/"
        self._alarms = {*container.alarms.all(), *container.alarms.latest}
        self._locks = {lock.name for lock in container.sources.locks.all()}
        self._sources = {source.name: source.kind for source in container.sources}

    def of(self, reason: str) -> str:
        """
        The kind of a reason.

        @param reason: names with commas between them; the first one counts.
        """
        first = reason.partition(",")[0]
        if first in (TIMEOUT, LONGEST) or first.endswith(" timeout") or " is over in " in first:
            return "time"
        if _SIGNAL.search(first):
            return "signal"
        if _PROCESS.search(first):
            return "process"
        if first.startswith("busy"):
            return "busy"
        if first in self._alarms:
            return "alarm"
        if first in self._locks:
            return "lock"
        if first.startswith(self._prefix) or self._sources.get(first) == "counter":
            return "channel"
        if first in self._sources:
            return "source"
        if first.partition(" ")[0] in SOCKETS:
            return "sockets"
        return "other"
