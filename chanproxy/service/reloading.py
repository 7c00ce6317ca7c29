"""
Reloading: a service that runs follows another configuration, and what did not change goes on.

All is checked first.  What can be started beside what runs is started first, then what is to stop
is stopped, then comes the rest; so most of what can go wrong does so while nothing is lost.  What
goes wrong later is undone.  Knows what starts and stops by L{chanproxy.service.fleet}.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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
from chanproxy.config.setting import Setting, adjusted, asSet, settings
from chanproxy.config.tables import join
from chanproxy.endpoints.paths import PathSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.access import Access, AccessError, IAccess
from chanproxy.service.fleet import Fleet, running
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

TURN = 0.003
"""Seconds after which others have their turn."""

_STOPPED = Problem("reload", "the service does not run")


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
        return done.addErrback(self._refused)

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

    async def _say(self, reloaded: Reloaded) -> None:
        turns = Turns(self._reactor)
        for sentence in list(reloaded.sentences()) or ["nothing has changed"]:
            self._log.info("reloaded: {sentence}", sentence=sentence)
            await turns.leave()

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
        difference = Difference(self._inForce(), wanted, self._fleet.containers)
        problems += await self._whyNot(difference)
        if problems or access is None:
            raise ReloadError(wanted.located(problems))
        await self._follow(difference)
        self.configuration = difference.inForce
        self._fleet.write(self.configuration.containers)
        for each in self.served:
            each.limit(difference.limits)
            each.allow(access)
        await self._say(difference.reloaded)
        return difference.reloaded

    def _inForce(self) -> config.Configuration:
        """The configuration, with what was set since."""
        found = []
        for table in self.configuration.containers:
            written = self._fleet.written.get(table.name, table)
            found.append(asSet(table, written, self._fleet.tables.get(table.name, table)))
        return attrs.evolve(self.configuration, containers=tuple(found))

    def set(
        self, name: str, given: Mapping[str, Any], back: Collection[str]
    ) -> Deferred[tuple[Setting, ...]]:
        """
        Set keys of one container, when the reloads that were asked for before are done.

        @param given: by the keys' names, as in a file.
        @param back: keys that are to be again as they are written.
        @return: what has changed; fails with L{config.ConfigurationError}, or with L{KeyError}:
            there is no such container.
        """
        return self._one.run(lambda: self._set(name, given, back))

    def _set(
        self, name: str, given: Mapping[str, Any], back: Collection[str]
    ) -> tuple[Setting, ...]:
        fleet = self._fleet
        before, written = fleet.tables[name], fleet.written[name]
        after = adjusted(before, written, given, back)
        changed = settings(before, after)
        if changed:
            fleet.change(after, written)
        for each in changed:
            self._log.info(
                "{name}: {key} is set to {now}, and was {before}",
                name=name,
                key=each.key,
                now=safe(each.now),
                before=safe(each.before),
            )
        return changed

    def _away(self, function: Callable[[], T]) -> Deferred[T]:
        """Do something that may wait for others, such as a file's server or one with users."""
        threads: Any = self._reactor
        if not IReactorThreads.providedBy(threads):
            return Deferred.fromCoroutine(_at_once(function))
        return deferToThreadPool(threads, threads.getThreadPool(), function)

    async def _whyNot(self, difference: Difference) -> list[Problem]:
        """What would keep it from being followed, found without changing anything."""
        fleet, entering = self._fleet, difference.entering
        gone = {each.container for each in difference.leaving if each.isContainer}
        keys = {f"{join('containers', name)}.freezer" for name in gone}
        places = {path: place for path, place in fleet.places.items() if path not in keys}
        freed = [place for path, place in fleet.places.items() if path in keys]
        checks = Checks(self._reactor, places, freed, difference.closes)
        checks.records([each.what for each in entering if isinstance(each.what, config.Container)])
        turns = Turns(self._reactor)
        for piece in entering:
            if piece.isContainer and piece.container in fleet.containers.keys() - gone:
                checks.problems.append(_isAdded(piece))
            checks.piece(piece)
            await turns.leave()
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
            kept = (running(self._fleet, each) for each in self.configuration.containers)
            self.configuration = attrs.evolve(
                self.configuration, containers=tuple(each for each in kept if each is not None)
            )
            if not isinstance(error, StartError):
                self._log.failure("a reload failed")
                raise ReloadError([Problem("reload", f"failed: {error!r}")], lost) from error
            raise ReloadError(difference.inForce.located(error.problems), lost) from error


class Turns:
    """Leaves a turn of the reactor to others, whenever it has taken as much as it may."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._began = time.monotonic()

    async def leave(self) -> None:
        """To be called after each of many things."""
        if time.monotonic() - self._began > TURN:
            await deferLater(self._clock, 0)
            self._began = time.monotonic()


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
        self._written = dict(fleet.written)

    async def do(self) -> None:
        """@raise StartError: something could not be started; what was done is to be undone."""
        difference, fleet = self._difference, self._fleet
        self._limit(difference.limits)
        late: list[Piece] = []
        early: list[Piece] = []
        paths = {each.path for each in difference.leaving}
        # Two freezers may name one place in ways that only their makers know.
        apart = not any(each.isContainer for each in difference.leaving)
        for piece in difference.entering:
            waits = piece.path in paths or (piece.isContainer and not apart)
            waits = waits or any(map(difference.closes, piece.addresses))
            (late if waits else early).append(piece)
        await self._enter(early)
        self._left = difference.leaving
        await self._stop(difference.leaving)
        await self._free(late)
        await self._enter(late)
        turns = Turns(self._clock)
        for old, new in difference.kept:
            if new.name in fleet.containers:
                self._changed.append(old)
                fleet.change(new)
            await turns.leave()

    def _limit(self, limits: config.Limits) -> None:
        if limits != self._fleet.limits:
            self._fleet.limit(limits)

    async def _enter(self, pieces: Sequence[Piece]) -> None:
        problems: list[Problem] = []
        turns = Turns(self._clock)
        for piece in pieces:
            self._checkOpen()
            # While something else was waited for, others may have added and removed containers.
            if self._fleet.runs(piece):
                problems.append(_isAdded(piece))
            elif not piece.isContainer and piece.container not in self._fleet.containers:
                problems.append(Problem(piece.path, "its container was removed; reload again"))
            else:
                self._entered.append(piece)
                self._fleet.start(piece, problems)
            await turns.leave()
        self._checkOpen()
        if not problems:
            await self._begin(pieces, problems)
        if problems:
            raise StartError(problems)

    async def _begin(self, pieces: Sequence[Piece], problems: list[Problem]) -> None:
        turns = Turns(self._clock)
        for piece in pieces:
            if piece.isContainer and piece.container in self._fleet.containers:
                self._fleet.begin([piece.container], problems)
            await turns.leave()

    def _checkOpen(self) -> None:
        if not self._fleet.isOpen:
            raise StartError([_STOPPED])

    async def _stop(self, pieces: Sequence[Piece]) -> None:
        stopping = []
        turns = Turns(self._clock)
        for piece in pieces:
            # Whoever takes longer is not waited for, and may be in the way of what comes.
            stopping.append(self._fleet.stop(piece).addTimeout(STOPPING, self._clock))
            await turns.leave()
        for each in stopping:
            with contextlib.suppress(TimeoutError):
                await each
        self._checkOpen()

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
        self._checkOpen()

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
            if table.name in fleet.containers:
                fleet.change(table, self._written[table.name])
        back = [each for each in self._left if not fleet.runs(each)]
        with contextlib.suppress(StartError):
            await self._free(back)
        turns = Turns(self._clock)
        for piece in back:
            if fleet.isOpen and (piece.isContainer or piece.container in fleet.containers):
                fleet.start(piece, lost)
                if isinstance(piece.what, config.Container) and fleet.runs(piece):
                    fleet.change(piece.what, self._written[piece.container])
            await turns.leave()
        await self._begin(back, lost)
        if not fleet.isOpen:
            return [_STOPPED]
        return lost


def _sound(configuration: config.Configuration) -> config.Configuration:
    """@raise ConfigurationError: a program has filled it in with what a file may not say."""
    if wrong := problemsOf(configuration):
        raise config.ConfigurationError(wrong)
    return configuration


async def _at_once(function: Callable[[], T]) -> T:
    return function()


def _isAdded(piece: Piece) -> Problem:
    return Problem(
        piece.path,
        "is there already: it was added while the service runs",
        "remove that one (RemoveContainer), or choose another name",
    )
