"""
Comers: notices processes that are moved into a frozen container.

They are frozen there, and whoever moved them waits, as with C{docker exec}.  Knows the freezer as a
list of processes; nothing of how a container is resumed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.interfaces import FreezerError, IFreezer
from chanproxy.kernel.processes import ProcessStatus, parentOf

STIRS = 0.02
"""Seconds between lists of the processes at least, however often the freezer says that it stirs."""


class Comers:
    """
    Who is in one container, for one sleep after another.

    @ivar pids: of the processes, as last listed.
    @ivar listedAt: when that was, in the clock's seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        freezer: IFreezer,
        cameIn: Callable[[str], None],
        unlisted: Callable[[Exception], object],
    ) -> None:
        """
        @param cameIn: called with a reason to wake when the freezer has told of somebody; never
            from within L{start}.
        @param unlisted: called with the error when the processes cannot be listed.
        """
        self._clock = clock
        self._freezer = freezer
        self._cameIn = cameIn
        self._unlisted = unlisted
        self._call: IDelayedCall | None = None
        self._hidden = 0
        self._known = False
        self.pids: list[int] = []
        self.listedAt = 0.0

    def beforeFreeze(self) -> None:
        """Whoever is not there now has come in."""
        self._known = False
        # If it cannot be listed, that is told when it sleeps.
        with contextlib.suppress(FreezerError, OSError):
            self._list()

    def start(self) -> str:
        """It is frozen; the reason to wake that somebody has come in already, or nothing."""
        # Before the list: whoever comes in from now on is heard of.
        self._freezer.watchStirs(self._stirs)
        return self._look(mayBeBorn=True)

    def stop(self) -> None:
        """Listen no more.  Idempotent."""
        self._freezer.watchStirs(None)
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def look(self) -> str:
        """The reason to wake that somebody has come in since the last list, or nothing."""
        return self._look(mayBeBorn=False)

    def _look(self, mayBeBorn: bool) -> str:
        self.listedAt = self._clock.seconds()
        known, before, hidden = self._known, self.pids, self._hidden
        try:
            self._list()
            for pid in set(self.pids).difference(before) if known else ():
                status = ProcessStatus.read(pid)
                # Before the freeze was complete, one of them may have had a child.
                born = mayBeBorn and parentOf(pid) in self.pids
                if status is not None and not born:
                    return f"{status.name}[{pid}] came in"
        except (FreezerError, OSError) as error:
            self._unlisted(error)
            return ""
        more = known and self._hidden > hidden and not mayBeBorn
        return "a process came in that is not seen from here" if more else ""

    def _list(self) -> None:
        self.pids = list(self._freezer.processes())
        self._known = True
        with contextlib.suppress(FreezerError, OSError):
            self._hidden = self._freezer.hiddenProcesses()

    def _stirs(self) -> None:
        """Something has happened inside, of which the freezer knows no more."""
        if self._call is None:
            wait = self.listedAt + STIRS - self._clock.seconds()
            self._call = self._clock.callLater(max(wait, 0), self._listAgain)

    def _listAgain(self) -> None:
        self._call = None
        reason = self.look()
        if reason:
            self._cameIn(reason)
