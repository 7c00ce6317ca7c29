"""
Keeping: a service's history, if it has one: which containers there are, and where it is written.

Knows the configuration's words for that; nothing of what is in the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from chanproxy import config
from chanproxy.config.history import AUTO, OFF
from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.history.figures import Tally
from chanproxy.wake.history.keeper import Keeper
from chanproxy.wake.history.place import historyFile


class Keeping:
    """
    The history of one service.

    @ivar automatic: whether there is one if nobody says where, or that there is to be none.
    @ivar tally: what containers add to, once it is started; L{None} when nothing is kept.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        history: config.History,
        containers: Callable[[], Mapping[str, Container]],
    ) -> None:
        """@param containers: those that run, by name."""
        self._reactor = reactor
        self._history = history
        self._containers = containers
        self._keeper: Keeper | None = None
        self._used = 0
        self.automatic = False
        self.tally: Tally | None = None

    def prepare(self) -> None:
        """Before the first container is made: there is something to add to."""
        path = self._history.path
        if path == AUTO:
            path = historyFile() if self.automatic else OFF
        if path == OFF:
            return
        try:
            # Only for those who have a history: it brings all of SQLite.
            from chanproxy.wake.history.store import Store
        except ImportError as error:
            self._log.warn("history: nothing is kept: {why}", why=error)
            return
        self.tally = tally = Tally()
        store = Store(path, self._history.keepDays, self._history.maxBytes)
        self._keeper = Keeper(self._reactor, store, tally, self._gather)

    def start(self) -> None:
        """When all of them are made: write what they add."""
        self._used = time.process_time_ns()
        if self._keeper is not None:
            self._keeper.start()

    def _gather(self) -> Iterator[None]:
        return self._gatherOf(list(self._containers().values()))

    def _gatherOf(self, containers: Collection[Container]) -> Iterator[None]:
        used = time.process_time_ns()
        passed, self._used = used - self._used, used
        for container in containers:
            # Of one that is suspended only when asked, that would be a look at all of its sources.
            why = container.why if container.mode in ("auto", "dry-run") else ""
            container.account.accrue(passed // len(containers), why)
            yield None

    def end(self, containers: Collection[Container]) -> None:
        """These are thawed, and about to be stopped, all that there are."""
        if self._keeper is not None:
            for _ in self._gatherOf(containers):
                pass

    def stop(self) -> Deferred[None]:
        """
        When all have stopped, or the start has failed.

        @return: fires when all is written, or takes too long.
        """
        keeper, self._keeper = self._keeper, None
        self.tally = None
        return succeed(None) if keeper is None else keeper.stop()
