"""
WakeSources: the registry of what keeps a container awake, or wakes it.

All sources of a container sit in one nested epoll, so one call looks at all of them, however many
there are.  Knows nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.counter import MessageCounter


class WakeSourceError(Exception):
    """A wake source cannot be added or removed; the registry is unchanged."""


@define(eq=False)
class WakeSource:
    """
    A counter that keeps its container awake while it is positive.

    @ivar name: what people read in a resume reason.
    @ivar wakeups: how often this source was signalled when the container was resumed.
    """

    name: str
    counter: MessageCounter
    wakeups: int = field(default=0, init=False)


@implementer(IReadDescriptor)
class WakeSources:
    """
    The wake sources of one container, keyed by kernel identity.

    Counters stay their owners': L{remove} one before closing it.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._byIdentity: dict[str, WakeSource] = {}
        self._byDescriptor: dict[int, WakeSource] = {}

    def __len__(self) -> int:
        return len(self._byIdentity)

    def __iter__(self) -> Iterator[WakeSource]:
        return iter(self._byIdentity.values())

    def add(self, name: str, counter: MessageCounter) -> WakeSource:
        """
        Register a counter.

        @raise WakeSourceError: it is registered already, under this or another name.
        """
        known = self._byIdentity.get(counter.identity)
        if known is not None:
            raise WakeSourceError(f"{name}: this counter is already registered as {known.name}")
        self._epoll.register(counter.fileno(), select.EPOLLIN)
        source = WakeSource(name, counter)
        self._byIdentity[counter.identity] = source
        self._byDescriptor[counter.fileno()] = source
        return source

    def remove(self, counter: MessageCounter) -> None:
        """
        Remove a counter, or any other duplicate of it.

        @raise WakeSourceError: it is not registered.
        """
        source = self._byIdentity.pop(counter.identity, None)
        if source is None:
            raise WakeSourceError(f"{counter.identity} is not registered")
        fd = source.counter.fileno()
        self._epoll.unregister(fd)
        del self._byDescriptor[fd]

    def signalled(self) -> list[WakeSource]:
        """The sources that keep the container awake at this instant: one look at all of them."""
        if not self._byDescriptor:
            return []
        return [
            self._byDescriptor[fd] for fd, _ in self._epoll.poll(0, max(len(self._byDescriptor), 1))
        ]

    def arm(self, callback: Callable[[list[WakeSource]], None]) -> None:
        """Call C{callback(sources)} once, from the reactor, as soon as any source is signalled."""
        self._callback = callback
        self._reactor.addReader(self)

    def disarm(self) -> None:
        """Forget L{arm}.  Idempotent."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        """The epoll's descriptor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log lines."""
        return "wake sources"

    def doRead(self) -> None:
        """The reactor says that a source is signalled."""
        sources = self.signalled()
        if sources:
            self.disarm()
            self._callback(sources)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is being torn down; nothing to give back."""

    def close(self) -> None:
        """Give back the epoll.  The registry cannot be used any more."""
        if not self._epoll.closed:
            self._reactor.removeReader(self)
            self._epoll.close()
