"""
Placed: the freezer of the cgroup where a container is at the time.

Knows nothing of how that is found.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.files import Breadth
from chanproxy.interfaces import ChanproxyReactor, FreezerError, FreezerNotReady
from chanproxy.interfaces.locators import Location


class Placed:
    """
    What is asked of it once holds wherever the container is.

    @ivar freezer: of where it is, as of the last L{settle}; None: it is nowhere.
    @ivar location: where it is by now.
    """

    _log = Logger()

    def __init__(self, spec: str, reactor: ChanproxyReactor, breadth: Breadth | None) -> None:
        self._spec = spec
        self._reactor = reactor
        self._breadth = breadth
        self._claims = False
        self._told: Callable[[int | None], None] | None = None
        self._stirred: Callable[[], None] | None = None
        self.location = Location()
        self.freezer: CgroupFreezer | None = None

    def settle(self) -> None:
        """Have a freezer for where it is by now; to be called while it is not frozen."""
        where, freezer = self.location.cgroup, self.freezer
        if freezer is not None and freezer.spec == f"cgroup:{where}":
            return
        if freezer is not None:
            freezer.release()
        self.freezer = self._made(where) if where else None

    def _made(self, where: str) -> CgroupFreezer | None:
        made = CgroupFreezer(where, self._reactor, self._breadth)
        made.tellFreezes(self._told)
        made.watchStirs(self._stirred)
        try:
            made.check()
            if self._claims:
                self._take(made)
        except FreezerError as error:
            self.location = Location(why=f"cannot be frozen: {error}")
            self._log.error("{spec}: {error}", spec=self._spec, error=error)
            return None
        return made

    def _take(self, freezer: CgroupFreezer) -> None:
        freezer.claim()
        if freezer.thawLeft():
            self._log.warn("{spec}: left frozen by a chanproxy that died; thawed", spec=self._spec)

    def nowhere(self) -> FreezerNotReady:
        """What to say when there is nothing to freeze."""
        return FreezerNotReady(f"{self._spec}: {self.location.why}")

    def claim(self) -> None:
        """
        Claim each cgroup that it is in, from now on.

        @raise FreezerError: the one where it is has been claimed by somebody else.
        """
        if self.freezer is not None:
            self._take(self.freezer)
        self._claims = True

    def release(self) -> None:
        """Claim none any more.  Idempotent."""
        self._claims = False
        if self.freezer is not None:
            self.freezer.release()

    def tellFreezes(self, told: Callable[[int | None], None] | None) -> None:
        """See L{IThawedByDescriptor.tellFreezes}."""
        self._told = told
        if self.freezer is not None:
            self.freezer.tellFreezes(told)

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        """See L{IFreezer.watchStirs}."""
        self._stirred = stirred
        if self.freezer is not None:
            self.freezer.watchStirs(stirred)
