"""
Deaths: tells of the ends of processes, by a pidfd for each.

Knows nothing of what follows from an end.
"""

from __future__ import annotations

import functools
import os
import select
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet

from chanproxy.container.looks import Watched
from chanproxy.kernel.poller import Poller


class Deaths:
    """
    In one container, for one sleep after another.

    @ivar told: of all that are watched; if not, they have to be looked for.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        ended: Callable[[Watched], None],
        unusable: Callable[[OSError], None],
    ) -> None:
        """
        @param ended: called with a process that has ended.
        @param unusable: called with the error, when there are no pidfds to be had: from then on
            none is watched until the next sleep.
        """
        self._ended = ended
        self._unusable = unusable
        self._poller = Poller(reactor)
        self._watched: list[Watched] = []
        self.told = True

    def start(self) -> None:
        """A sleep begins: try anew."""
        self.told = True

    def open(self, pid: int) -> int:
        """
        A pidfd, which is given to L{watch} or closed; -1, if there are none.

        @raise ProcessLookupError: there is no such process.
        """
        if self.told:
            try:
                # Python sets O_CLOEXEC.
                return os.pidfd_open(pid)
            except ProcessLookupError:
                raise
            except OSError as error:
                self._without(error)
        return -1

    def watch(self, process: Watched) -> None:
        """Tell when it ends, and own its pidfd from now on; harmless without one."""
        if process.pidfd < 0:
            return
        self._watched.append(process)
        try:
            ended = functools.partial(self._happened, process)
            self._poller.watch(process.pidfd, select.EPOLLIN, ended)
        except OSError as error:
            self._without(error)

    def stop(self) -> None:
        """Watch no more.  Idempotent."""
        for process in self._watched:
            self._poller.unwatch(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        self._watched.clear()

    def _without(self, error: OSError) -> None:
        # All are given back: others of this service are in more need of them.
        self.told = False
        self.stop()
        self._unusable(error)

    def _happened(self, process: Watched, _: int) -> None:
        self._ended(process)
