"""
StartableFreezer: freezes wherever its locator says, and can have its container started and stopped.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from chanproxy.freezers.files import Breadth
from chanproxy.freezers.runtimes.located import LocatedFreezer
from chanproxy.interfaces import ChanproxyReactor, IStartableFreezer
from chanproxy.interfaces.locators import IStartingLocator


@implementer(IStartableFreezer)
class StartableFreezer(LocatedFreezer):
    """One container, by its name."""

    def __init__(
        self, locator: IStartingLocator, reactor: ChanproxyReactor, breadth: Breadth | None = None
    ) -> None:
        super().__init__(locator, reactor, breadth)
        self._starts = locator

    def start(self) -> Deferred[None]:
        """See L{IStartableFreezer.start}."""
        return self._starts.start()

    def stop(self) -> Deferred[None]:
        """See L{IStartableFreezer.stop}."""
        return self._starts.stop()
