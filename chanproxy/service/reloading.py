"""
Reloading: a service that runs follows another configuration, and what did not change goes on.

All is checked first.  What can be started beside what runs is started first, then what is to stop
is stopped, then comes the rest; so most of what can go wrong does so while nothing is lost.  What
goes wrong later is undone.  Knows what starts and stops by L{chanproxy.service.fleet}.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock, TimeoutError
from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy import config
from chanproxy.config import Problem, Reloaded, ReloadError, StartError
from chanproxy.config.changes import Difference, Piece
from chanproxy.config.checking import problemsOf
from chanproxy.config.tables import join
from chanproxy.endpoints.paths import PathSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.access import Access, AccessError, IAccess
from chanproxy.service.fleet import Fleet
from chanproxy.service.preflight import Checks
from chanproxy.words import safe

T = TypeVar("T")

STOPPING = 5.0
"""
Seconds that are waited for what is to listen no more; it takes a turn of the reactor, and of the
process that closes for us.
"""

AGAIN = 0.01
"""Seconds between looks whether what closes for us has done so."""

_STOPPED = Problem("reload", "the service has stopped")


class IServing(Protocol):
    """What serves clients; see L{chanproxy.manager.control.ControlFactory}."""

    def limit(self, limits: config.Limits) -> None: ...
    def allow(self, access: IAccess) -> None: ...


class Reloading:
    """
    Those of one service, one after the other.

    @ivar configuration: the one in force.
    @ivar served: all who are connected to the service itself, each by what serves them.
    """

    _log = Logger()

    def __init__(
        self, reactor: ChanproxyReactor, fleet: Fleet, configuration: config.Configuration
    ) -> None:
        """@param configuration: what the service was made with."""
        self.configuration = configuration
        self.served: list[IServing] = []
        self._reactor = reactor
        self._fleet = fleet
        self._one = DeferredLock()
        self._waits = False

    def reload(self, read: Callable[[], config.Configuration]) -> Deferred[Reloaded]:
        """
        Follow another configuration, when the reloads that were asked for before are done.

        @param read: gives it, in another thread; may raise L{config.ConfigurationError}.
        @return: fails with L{ReloadError}.
        """
        done: Deferred[Reloaded] = self._one.run(lambda: Deferred.fromCoroutine(self._reload(read)))
        return done.addCallbacks(self._taken, self._refused)

    def reloadSoon(self, read: Callable[[], config.Configuration]) -> Deferred[None] | None:
        """
        Likewise; one that is asked for before it begins is done by it as well.

        @return: fires when it is done, or refused; None: there was one that has not begun.
        """
        if self._waits:
            return None
        self._waits = True

        def begin() -> config.Configuration:
            self._waits = False
            return read()

        # How it went is in the log.
        done = self.reload(begin).addErrback(lambda failure: failure.trap(ReloadError))
        return done.addCallback(lambda _: None)

    def _taken(self, reloaded: Reloaded) -> Reloaded:
        sentences = list(reloaded.sentences())
        for sentence in sentences:
            self._log.info("reloaded: {sentence}", sentence=sentence)
        if not sentences:
            self._log.info("reloaded: nothing has changed")
        return reloaded

    def _refused(self, failure: Failure) -> Failure:
        if isinstance(failure.value, ReloadError):
            for sentence in failure.value.sentences:
                self._log.error("not reloaded: {sentence}", sentence=safe(sentence))
        else:
            self._log.failure("not reloaded", failure)
        return failure

    async def _reload(self, read: Callable[[], config.Configuration]) -> Reloaded:
        try:
            wanted = await self._away(lambda: _sound(read()))
        except config.ConfigurationError as error:
            raise ReloadError(error.problems) from None
        # Names of users are looked up anew, also when no table has changed.
        problems: list[Problem] = []
        access: Access | None = None
        try:
            access = await self._away(lambda: Access(wanted.access))
        except AccessError as error:
            problems += error.problems
        if not self._fleet.isOpen:
            raise ReloadError([_STOPPED])
        difference = Difference(self.configuration, wanted, self._fleet.containers)
        problems += self._whyNot(difference)
        if problems or access is None:
            raise ReloadError(wanted.located(problems))
        await self._follow(difference)
        self.configuration = difference.inForce
        for each in self.served:
            each.limit(difference.limits)
            each.allow(access)
        return difference.reloaded

    def _away(self, function: Callable[[], T]) -> Deferred[T]:
        """Do something that may wait for others, such as a file's server or one with users."""
        threads: Any = self._reactor
        if not IReactorThreads.providedBy(threads):
            return Deferred.fromCoroutine(_at_once(function))
        return deferToThreadPool(threads, threads.getThreadPool(), function)

    def _whyNot(self, difference: Difference) -> list[Problem]:
        """What would keep it from being followed, found without changing anything."""
        fleet = self._fleet
        entering = [each.what for each in difference.entering]
        containers = [each for each in entering if isinstance(each, config.Container)]
        gone = {each.name for each in map(_container, difference.leaving) if each is not None}
        places = {
            path: place
            for path, place in fleet.places.items()
            if path not in {f"{join('containers', name)}.freezer" for name in gone}
        }
        freed = [place for path, place in fleet.places.items() if path not in places]
        closed = [address for each in difference.leaving for address in each.addresses]
        checks = Checks(self._reactor, places, freed, closed)
        checks.records(containers)
        for container in containers:
            if container.name in fleet.containers and container.name not in gone:
                checks.problems.append(_isAdded(Piece(container.name, container)))
        for piece in difference.entering:
            checks.piece(piece)
        return checks.problems

    async def _follow(self, difference: Difference) -> None:
        """@raise ReloadError: it is undone."""
        step = _Step(self._reactor, self._fleet, difference)
        try:
            await step.do()
        except BaseException as error:
            if not self._fleet.isOpen:
                raise ReloadError([_STOPPED]) from error
            lost = await step.undo()
            kept = map(self._fleet.running, self.configuration.containers)
            self.configuration = attrs.evolve(
                self.configuration, containers=tuple(each for each in kept if each is not None)
            )
            if not isinstance(error, StartError):
                self._log.failure("a reload failed")
                raise ReloadError([Problem("reload", f"failed: {error!r}")], lost) from error
            raise ReloadError(difference.inForce.located(error.problems), lost) from error


class _Step:
    """From one configuration to another, and back."""

    def __init__(self, clock: IReactorTime, fleet: Fleet, difference: Difference) -> None:
        self._clock = clock
        self._fleet = fleet
        self._difference = difference
        self._limits = fleet.limits
        self._entered: list[Piece] = []
        self._left: list[Piece] = []
        self._changed: list[config.Container] = []

    async def do(self) -> None:
        """@raise StartError: something could not be started; what was done is to be undone."""
        difference, fleet = self._difference, self._fleet
        self._limit(difference.limits)
        late = [each for each in difference.entering if self._hasToWait(each)]
        self._enter([each for each in difference.entering if each not in late])
        self._left = difference.leaving
        await self._stop(difference.leaving)
        await self._free(late)
        self._enter(late)
        for old, new in difference.kept:
            self._changed.append(old)
            fleet.change(new)

    def _limit(self, limits: config.Limits) -> None:
        if limits != self._fleet.limits:
            self._fleet.limit(limits)

    def _hasToWait(self, piece: Piece) -> bool:
        """Whether it takes something that what leaves has, or might have."""
        leaving = self._difference.leaving
        if isinstance(piece.what, config.Container):
            # Two freezers may name one place in ways that only their makers know.
            if any(isinstance(each.what, config.Container) for each in leaving):
                return True
        elif any(each.path == piece.path for each in leaving):
            return True
        closed = [address for each in leaving for address in each.addresses]
        every = [*piece.addresses, *closed]
        names = {address.socketAmong(every) for address in closed} - {None}
        return any(address.socketAmong(every) in names for address in piece.addresses)

    def _enter(self, pieces: Sequence[Piece]) -> None:
        problems: list[Problem] = []
        for piece in pieces:
            # While something else was waited for, others may have added and removed containers.
            apart = not isinstance(piece.what, config.Container)
            if self._fleet.runs(piece):
                problems.append(_isAdded(piece))
            elif apart and piece.container not in self._fleet.containers:
                problems.append(Problem(piece.path, "its container was removed; reload again"))
            else:
                self._entered.append(piece)
                self._fleet.start(piece, problems)
        if not problems:
            self._begin(pieces, problems)
        if problems:
            raise StartError(problems)

    def _begin(self, pieces: Sequence[Piece], problems: list[Problem]) -> None:
        containers = [each.container for each in pieces if isinstance(each.what, config.Container)]
        self._fleet.begin(filter(self._fleet.containers.__contains__, containers), problems)

    async def _stop(self, pieces: Sequence[Piece]) -> None:
        for stopping in [self._fleet.stop(piece) for piece in pieces]:
            # Whoever takes longer is not waited for, and may be in the way of what comes.
            stopping.addTimeout(STOPPING, self._clock)
            with contextlib.suppress(TimeoutError):
                await stopping
        if not self._fleet.isOpen:
            raise StartError([_STOPPED])

    async def _free(self, pieces: Sequence[Piece]) -> None:
        """
        Wait until they can listen: where something may be unread, another process closes for us,
        and a name that is no file is taken until it has.  What is taken in the end says so.
        """
        every = (at for each in pieces for at in each.addresses)
        names = [at for at in every if isinstance(at, PathSpec) and at.abstract]
        end = self._clock.seconds() + STOPPING
        while self._clock.seconds() < end and any(at.whyNotBindable() for at in names):
            await deferLater(self._clock, AGAIN)

    async def undo(self) -> list[Problem]:
        """
        Go back as far as possible.

        @return: what could not be started again.
        """
        fleet = self._fleet
        with contextlib.suppress(StartError):
            await self._stop(self._entered[::-1])
        lost: list[Problem] = []
        if not fleet.isOpen:
            return [_STOPPED]
        self._limit(self._limits)
        for table in self._changed:
            fleet.change(table)
        back = [each for each in self._left if not fleet.runs(each)]
        await self._free(back)
        if not fleet.isOpen:
            return [_STOPPED]
        for piece in back:
            if isinstance(piece.what, config.Container) or piece.container in fleet.containers:
                fleet.start(piece, lost)
        self._begin(back, lost)
        return lost


def _sound(configuration: config.Configuration) -> config.Configuration:
    """@raise ConfigurationError: a program has filled it in with what a file may not say."""
    if wrong := problemsOf(configuration):
        raise config.ConfigurationError(wrong)
    return configuration


async def _at_once(function: Callable[[], T]) -> T:
    return function()


def _container(piece: Piece) -> config.Container | None:
    return piece.what if isinstance(piece.what, config.Container) else None


def _isAdded(piece: Piece) -> Problem:
    return Problem(
        piece.path,
        "is there already: it was added while the service runs",
        "remove that one (RemoveContainer), or choose another name",
    )
