"""A reactor under the test's control: time stands still, and descriptors are polled when told."""

from __future__ import annotations

import select
from collections.abc import Callable

from twisted.internet.interfaces import (
    IDelayedCall,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from zope.interface import implementer

from chanproxy.interfaces import PollingReactor


@implementer(PollingReactor)
class FakeReactor(Clock):
    """A clock that also has readers, so that real eventfds and epolls can be used."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: list[IReadDescriptor] = []

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """As Twisted's; time never stands still for a delay that is lost in rounding."""
        if delay > 0:
            delay = max(delay, 1e-9)
        return super().callLater(delay, callable, *args, **kw)

    def turn(self, count: int = 3) -> None:
        """Go round: read what is readable now, and no more."""
        for _ in range(count):
            poller = select.poll()
            byDescriptor = {reader.fileno(): reader for reader in self._readers}
            for fd in byDescriptor:
                poller.register(fd, select.POLLIN)
            for fd, _events in poller.poll(0):
                reader = byDescriptor[fd]
                if reader in self._readers:
                    reader.doRead()

    def run(self, seconds: float) -> None:
        """Let time pass: each delayed call at its own time, and a turn after each."""
        end = self.seconds() + seconds
        self.turn()
        while True:
            times = [call.getTime() for call in self.getDelayedCalls()]
            upcoming = min(times, default=end)
            if upcoming >= end:
                break
            self.advance(max(upcoming - self.seconds(), 0))
            self.turn()
        self.advance(max(end - self.seconds(), 0))
        self.turn()

    def addReader(self, reader: IReadDescriptor) -> None:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""
        if reader not in self._readers:
            self._readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""
        if reader in self._readers:
            self._readers.remove(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""
        raise NotImplementedError("nothing under test writes")

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""
        removed: list[IReadDescriptor | IWriteDescriptor] = list(self._readers)
        self._readers.clear()
        return removed

    def getReaders(self) -> list[IReadDescriptor]:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""
        return list(self._readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        """See L{twisted.internet.interfaces.IReactorFDSet}."""
        return []
