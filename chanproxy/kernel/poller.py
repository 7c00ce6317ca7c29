"""
One epoll nested in the reactor, for events that reactors do not offer: edges, hang-ups, EPOLLPRI.

An epoll object is itself readable when one of its descriptors has an event, so any reactor that
reads descriptors can drive it.  Knows nothing of what it watches.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_NOTHING: dict[int, Callable[[int], None]] = {}

ROUND = 64
"""Descriptors of one round; by level, the others come in the next."""

FEW, ROUNDS, BRIEF = 4, 8, 0.0002
"""
While no round has more than so many descriptors, up to so many rounds follow each other before the
reactor has its turn, if they take no longer than so many seconds together.  Its turn costs more
than a small message, and on one processor the answer is there as soon as something was sent.
Whoever has much to carry leaves the next turn to the reactor.
"""


@implementer(IReadDescriptor)
class Poller:
    """
    Calls a function for the events of a descriptor, while there is anything to watch.

    Descriptors stay the caller's: L{unwatch} before closing one.
    """

    __slots__ = ("__weakref__", "_callbacks", "_epoll", "_reactor")

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        # Shared by all that watch nothing, as most do that a channel has: so they cost little.
        self._callbacks: dict[int, Callable[[int], None]] = _NOTHING

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """
        Call C{callback(events)} for each of the events, until L{unwatch}.

        @param events: C{select.EPOLL*}; C{EPOLLERR} and C{EPOLLHUP} always come as well.
        @raise OSError: the descriptor cannot be polled (C{EPERM}), or resources are short.  It is
            not watched then.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        if not self._callbacks:
            self._callbacks = {}
            self._reactor.addReader(self)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Watch C{fd} no longer; harmless when it is not watched."""
        if self._callbacks.pop(fd, None) is None or self._epoll is None:
            return
        self._epoll.unregister(fd)
        if not self._callbacks:
            self._callbacks = _NOTHING
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    def fileno(self) -> int:
        """The epoll's own descriptor."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log lines."""
        return "chanproxy poller"

    def doRead(self) -> None:
        """The reactor says that something is up."""
        end = monotonic() + BRIEF
        for _ in range(ROUNDS):
            if self._epoll is None:
                return
            happened = self._epoll.poll(0, ROUND)
            for fd, events in happened:
                callback = self._callbacks.get(fd)
                if callback is None:
                    # An earlier callback of this round unwatched it.
                    continue
                try:
                    callback(events)
                except Exception:
                    self._log.failure("a watcher of descriptor {fd} failed", fd=fd)
                    self.unwatch(fd)
            if not 0 < len(happened) <= FEW or monotonic() > end:
                return

    def connectionLost(self, reason: Failure) -> None:
        """The reactor disconnects all its readers: it is being torn down."""
        for fd in list(self._callbacks):
            self.unwatch(fd)
