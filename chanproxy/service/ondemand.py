"""
OnDemand: a container that does not run is started by who connects to it, and stopped when it has
slept for long.

Knows runtimes by what a freezer can have started; knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import config
from chanproxy.container import Container
from chanproxy.interfaces import FreezerError, IFreezer, IStartableFreezer
from chanproxy.words import safe

T = TypeVar("T")

AGAIN = 0.05
"""
Seconds between tries to connect to what has just been started: nobody tells when its program
listens.
"""

PAUSE = 1.0
"""Seconds between two starts, at least: one that ends at once is not started all the time."""


class OnDemand:
    """
    Of one container.

    @ivar table: what is configured; may be changed.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        container: Container,
        freezer: IStartableFreezer,
        table: config.Container,
    ) -> None:
        self.table = table
        self._clock = clock
        self._container = container
        self._freezer = freezer
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._waits: list[Deferred[None]] = []
        # When it was started, and until when its program may not listen yet.
        self._at = -PAUSE
        self._until = 0.0
        self._call: IDelayedCall | None = None
        container.suspension.addWatcher(self._changed)

    @property
    def _wanted(self) -> bool:
        return self.table.onDemand == "start"

    async def reach(self, connect: Callable[[], Deferred[T]]) -> T:
        """
        Connect to it when it runs, and when its program listens.

        @param connect: called again as long as it fails and was started a moment ago.
        @raise FreezerError: it cannot be started, or not in time.
        """
        end = self._clock.seconds() + self.table.startLimit
        while True:
            if self._wanted:
                await self._running()
            try:
                return await connect()
            except ConnectError:
                if self._clock.seconds() >= min(end, self._until):
                    raise
            await deferLater(self._clock, AGAIN)

    def _running(self) -> Deferred[None]:
        """Fires when it runs; one start for all who wait, once it is stopped that is being."""
        if self._starting is None and self._stopping is None:
            if self._freezer.processes():
                return succeed(None)
            self._start()
        waits: Deferred[None] = Deferred(self._waits.remove)
        self._waits.append(waits)
        return waits

    def _start(self) -> None:
        limit, now = self.table.startLimit, self._clock.seconds()
        self._log.info("{name}: somebody connects: started", name=self._container.name)
        pause = max(self._at + PAUSE - now, 0.0)
        self._at = now + pause
        self._until = now + limit
        waited: Deferred[None] = deferLater(self._clock, pause)
        self._starting = starting = waited.addCallback(lambda _: self._freezer.start())
        starting.addTimeout(limit, self._clock)
        starting.addErrback(self._late, limit)
        starting.addBoth(self._started)

    def _late(self, failure: Failure, limit: float) -> None:
        failure.trap(TimeoutError)
        spec = self._freezer.spec
        raise FreezerError(f"{spec}: it does not run, or is not healthy, within {limit:g} s")

    def _started(self, result: Failure | None) -> None:
        self._starting = None
        self._tell(result)

    def _tell(self, result: Failure | None) -> None:
        if isinstance(result, Failure):
            self._until = 0.0
        waits, self._waits = self._waits, []
        for each in waits:
            each.callback(result)

    # Stopped.

    def _changed(self, state: str, reasons: tuple[str, ...]) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if state == "asleep" and self._wanted and self.table.stopAfter:
            self._call = self._clock.callLater(self.table.stopAfter, self._stop)

    def _stop(self) -> None:
        self._call = None
        if self._container.suspension.paused is not None:
            return
        self._log.info(
            "{name}: stopped after {seconds:g} s asleep; who connects starts it",
            name=self._container.name,
            seconds=self.table.stopAfter,
        )
        self._stopping = stopping = self._freezer.stop()
        stopping.addErrback(self._notStopped).addBoth(self._isStopped)

    def _notStopped(self, failure: Failure) -> None:
        failure.trap(FreezerError)
        self._log.error(
            "{name}: not stopped: {why}",
            name=self._container.name,
            why=safe(failure.getErrorMessage()),
        )

    def _isStopped(self, result: Failure | None) -> None:
        self._stopping = None
        if self._waits:
            self._start()
        if isinstance(result, Failure):
            self._log.failure("{name}: not stopped", result, name=self._container.name)

    def end(self) -> None:
        """Its container leaves: start and stop it no more.  Idempotent."""
        self._container.suspension.removeWatcher(self._changed)
        self._changed("awake", ())
        starting = self._starting
        if starting is not None:
            starting.cancel()
        # Who waits until it is stopped.
        self._tell(Failure(CancelledError()))


def reach(demand: OnDemand | None, connect: Callable[[], Deferred[T]]) -> Deferred[T]:
    """Connect to what may have to be started first; see L{OnDemand.reach}."""
    return connect() if demand is None else Deferred.fromCoroutine(demand.reach(connect))


class Demands:
    """Those of all containers that something can start."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._all: dict[str, OnDemand] = {}

    def add(self, container: Container, freezer: IFreezer, table: config.Container) -> None:
        """One more, if something can start it."""
        startable: IStartableFreezer | None = IStartableFreezer(freezer, None)
        if startable is not None:
            self._all[table.name] = OnDemand(self._clock, container, startable, table)

    def get(self, name: str) -> OnDemand | None:
        """That of a container."""
        return self._all.get(name)

    def change(self, table: config.Container) -> None:
        """By another table from now on."""
        if table.name in self._all:
            self._all[table.name].table = table

    def remove(self, name: str) -> None:
        """It leaves.  Idempotent."""
        if name in self._all:
            self._all.pop(name).end()
