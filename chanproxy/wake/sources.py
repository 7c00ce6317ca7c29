"""
WakeSources: the registry of what keeps a container awake, or wakes it.

All sources of a container sit in one nested epoll, so one call looks at all of them, however many
there are.  A second one around it is the gate: adding an epoll to another makes the kernel go
through all that is in it, opening a gate does not.  Knows nothing of freezers and of the
container's life cycle.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterable, Iterator

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.interfaces import PollingReactor
from chanproxy.kernel.foreign import closeForeign
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.files import ByIdentity
from chanproxy.wake.locks import LOCK_NAMES, WakeLocks
from chanproxy.wake.source import (
    Source,
    SourceGroup,
    TooManyWakeSources,
    WakeSource,
    WakeSourceError,
    WakeSourceExists,
)
from chanproxy.wake.statistics import bootNanoseconds

SOURCES = 32768
"""Sources of one container, by default."""

_GLANCE = 64
"""Events asked for at first; only when there are as many, all are asked for."""


class _Figures:
    """Keeps the statistics of sources, by what was signalled at the last look at them."""

    def __init__(self, nanoseconds: Callable[[], int]) -> None:
        self.nanoseconds = nanoseconds
        self.active: set[WakeSource] = set()

    def observe(self, found: Iterable[Source]) -> None:
        """Keep the figures of what was not looked at before as it is now."""
        now = self.nanoseconds()
        # What is adopted is gone at the next look, and has no figures that last.
        active = {s for s in found if isinstance(s, WakeSource) and not s.adopted}
        for source in active - self.active:
            source.statistics.activated(now)
            source.statistics.eventCount += 1
        for source in self.active - active:
            source.statistics.deactivated(now)
        self.active = active


class _Gate:
    """An epoll around others, for the reactor; what becomes ready in them shows when it is open."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._inside: list[select.epoll] = []
        self._events = 0

    def add(self, epoll: select.epoll) -> None:
        """@raise OSError: it is nested too deeply."""
        self._epoll.register(epoll.fileno(), self._events)
        self._inside.append(epoll)

    def remove(self, epoll: select.epoll) -> None:
        """It may be closed already."""
        self._inside.remove(epoll)
        if not epoll.closed:
            self._epoll.unregister(epoll.fileno())

    def open(self, opened: bool = True) -> None:
        """Costs the same, however much is in there.  Idempotent."""
        self._events = select.EPOLLIN if opened else 0
        for epoll in self._inside:
            if not epoll.closed:
                self._epoll.modify(epoll.fileno(), self._events)

    def fileno(self) -> int:
        """-1 when closed."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def close(self) -> None:
        """The others stay their owners'."""
        self._epoll.close()


@implementer(IReadDescriptor)
class WakeSources:
    """
    The wake sources of one container, found by kernel identity, and its wake locks.

    Counters stay their owners': L{remove} one before closing it.  After L{close} all that asks or
    changes something raises L{WakeSourceError}.

    @ivar limit: sources that can be registered; may be changed.
    @ivar locks: acquire and release wake locks here.
    @ivar seenAt: nanoseconds, when what is just being told of was seen; L{None}: nothing is.
    """

    def __init__(
        self,
        reactor: PollingReactor,
        limit: int = SOURCES,
        lockLimit: int = LOCK_NAMES,
        nanoseconds: Callable[[], int] = bootNanoseconds,
    ) -> None:
        """
        @param lockLimit: see L{WakeLocks}.
        """
        self._reactor = reactor
        self.limit = limit
        self._figures = _Figures(nanoseconds)
        self.locks = WakeLocks(reactor, lockLimit, nanoseconds)
        self._epoll = select.epoll()
        self._epoll.register(self.locks.fileno(), select.EPOLLIN)
        self._gate = _Gate()
        self._gate.add(self._epoll)
        self._reading = False
        self._byDescriptor: dict[int, WakeSource] = {}
        self._byIdentity: ByIdentity[WakeSource] = ByIdentity()
        self._callback: Callable[[list[Source]], None] | None = None
        self._group: SourceGroup | None = None
        self.seenAt: int | None = None

    def __len__(self) -> int:
        return len(self._byDescriptor)

    def __iter__(self) -> Iterator[WakeSource]:
        return iter(self._byDescriptor.values())

    def add(self, name: str, counter: MessageCounter) -> WakeSource:
        """
        Register a counter.

        @raise WakeSourceExists: it is registered already, under this or another name.
        @raise WakeSourceError: there are too many, or it is closed.
        """
        if counter.fileno() < 0:
            raise WakeSourceError(f"{name}: the counter is closed")
        return self._register(WakeSource(name, counter.fileno(), select.EPOLLIN, counter))

    def addDescriptor(self, name: str, descriptor: int, events: int) -> WakeSource:
        """
        Register anything that can be polled.

        @param descriptor: the caller's; the registry has a duplicate of its own.
        @param events: see L{chanproxy.wake.source.EVENTS}.  While any of them, an error or a
            hang-up is up, the container is kept awake.
        @raise WakeSourceExists: the same open file is registered already.
        @raise WakeSourceError: it cannot be polled, or there are too many.
        """
        try:
            source = WakeSource(name, os.dup(descriptor), events)
        except OSError as error:
            raise WakeSourceError(f"{name}: {error.strerror}") from error
        try:
            return self._register(source)
        except BaseException:
            closeForeign([source.descriptor])
            raise

    @property
    def closed(self) -> bool:
        """Whether nothing can be done with it any more."""
        return self._epoll.closed

    def expectOpen(self) -> None:
        """@raise WakeSourceError: it is closed."""
        if self.closed:
            raise WakeSourceError("the container of these wake sources has stopped: make another")

    def _register(self, source: WakeSource) -> WakeSource:
        self.expectOpen()
        if len(self) >= self.limit:
            raise TooManyWakeSources(
                f"{source.name}: {self.limit} wake sources are registered already; "
                "remove some, or raise limits.wake-sources"
            )
        try:
            known = self._byIdentity.add(source)
            if known is not source:
                raise WakeSourceExists(f"{source.name}: is already registered as {known.name}")
            try:
                self._epoll.register(source.descriptor, source.events)
            except OSError:
                self._byIdentity.remove(source)
                raise
        except OSError as error:
            raise WakeSourceError(f"{source.name}: {_explain(error)}") from error
        self._byDescriptor[source.descriptor] = source
        return source

    def find(self, descriptor: int) -> WakeSource | None:
        """
        What a descriptor, or any duplicate of it, is registered as.

        @raise WakeSourceError: the descriptor is not open.
        """
        self.expectOpen()
        try:
            return self._byIdentity.find(descriptor)
        except OSError as error:
            raise WakeSourceError(f"descriptor {descriptor}: {error.strerror}") from error

    def remove(self, which: WakeSource | MessageCounter | int) -> None:
        """
        Remove a source, by itself, its counter, or any duplicate of its descriptor.

        @raise WakeSourceError: it is not registered, or its counter is closed.
        """
        self.expectOpen()
        source: WakeSource | None
        if isinstance(which, MessageCounter) and which.fileno() < 0:
            raise WakeSourceError("the counter is closed; remove it before that")
        if isinstance(which, WakeSource):
            source = which if self._byDescriptor.get(which.descriptor) is which else None
        else:
            fd = which if isinstance(which, int) else which.fileno()
            # Its own counter is found without a look into /proc, which takes a descriptor.
            source = self._byDescriptor.get(fd) or self.find(fd)
        if source is None:
            raise WakeSourceError("it is not registered as a wake source")
        self._byIdentity.remove(source)
        del self._byDescriptor[source.descriptor]
        self._figures.active.discard(source)
        self._epoll.unregister(source.descriptor)
        if source.counter is None:
            closeForeign([source.descriptor])

    def __contains__(self, source: WakeSource) -> bool:
        return self._byDescriptor.get(source.descriptor) is source

    def signalled(self) -> list[Source]:
        """What keeps the container awake at this instant: one look at all of them."""
        self.expectOpen()
        found = self._look()
        self._figures.observe(found)
        return found

    def _look(self) -> list[Source]:
        ready = self._epoll.poll(0, _GLANCE)
        if len(ready) == _GLANCE:
            ready = self._epoll.poll(0, len(self) + 1)
        found: list[Source] = []
        for fd, _ in ready:
            if fd == self.locks.fileno():
                found += self.locks.held.values()
            else:
                found.append(self._byDescriptor[fd])
        if self._group is not None:
            found += self._group.poll()
        return found

    def attach(self, group: SourceGroup) -> None:
        """
        Have a group's sources count as well, until L{detach} or the next one.

        The group stays its owner's.  Attach it while it is empty: whatever is nested too deeply can
        then be told by name.
        """
        self.expectOpen()
        self.detach()
        self._gate.add(group.epoll)
        self._group = group

    def detach(self) -> None:
        """Forget the group, before it is closed or after.  Idempotent."""
        group, self._group = self._group, None
        if group is not None:
            self._gate.remove(group.epoll)

    @property
    def attached(self) -> list[WakeSource]:
        """The sources of the group, if there is one."""
        return [] if self._group is None else self._group.sources

    def inside(self, source: WakeSource, until: float) -> tuple[list[str], int]:
        """See L{SourceGroup.inside}; nothing, when it is none of a group's."""
        return ([], 0) if self._group is None else self._group.inside(source, until)

    @property
    def descriptors(self) -> int:
        """How many there are for all sources, those of the group as well."""
        return len(self) + (0 if self._group is None else len(self._group))

    def arm(self, callback: Callable[[list[Source]], None]) -> None:
        """Call C{callback(sources)} once, from the reactor, as soon as any source is signalled."""
        self.expectOpen()
        self._callback = callback
        self._gate.open()
        if not self._reading:
            self._reading = True
            self._reactor.addReader(self)

    def disarm(self) -> None:
        """Forget L{arm}.  Idempotent."""
        if self._callback is not None:
            self._callback = None
            self._gate.open(False)

    def fileno(self) -> int:
        """The gate's descriptor; -1 when closed."""
        return self._gate.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log lines."""
        return "wake sources"

    def doRead(self) -> None:
        """The reactor says that a source is signalled."""
        seen = self._figures.nanoseconds()
        found = self._look()
        callback = self._callback
        if found and callback is not None:
            self.disarm()
            self.seenAt = seen
            try:
                callback(found)
            finally:
                self.seenAt = None
            # Only now: the wake comes before all book-keeping.
            self._figures.observe(source for source in found if not _isGone(self, source))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is being torn down; nothing to give back."""

    def close(self) -> None:
        """Give back all descriptors.  The registry cannot be used any more.  Idempotent."""
        if self._epoll.closed:
            return
        self._callback = None
        self._reactor.removeReader(self)
        closeForeign([source.descriptor for source in self if source.counter is None])
        self._byDescriptor.clear()
        self.locks.close()
        self._gate.close()
        self._epoll.close()


def _isGone(sources: WakeSources, source: Source) -> bool:
    return isinstance(source, WakeSource) and source not in sources


def _explain(error: OSError) -> str:
    if error.errno == errno.EBADF:
        return "it was opened for its path alone (O_PATH), and cannot be polled"
    if error.errno == errno.EPERM:
        return "it cannot be polled: a file or directory is always ready; give a pipe or a socket"
    if error.errno == errno.ELOOP:
        return "it is an epoll in an epoll too often; register what is inside instead"
    if error.errno == errno.ENOSPC:
        return "the kernel's limit is reached; raise fs.epoll.max_user_watches"
    return error.strerror or str(error)
