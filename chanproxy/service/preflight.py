"""
Preflight: what would keep a service from starting, found without changing anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from chanproxy import config
from chanproxy.adopt.rights import whyNotAdopt
from chanproxy.config import Problem
from chanproxy.config.changes import Piece, piecesOf
from chanproxy.config.checking import problemsOf
from chanproxy.config.tables import join
from chanproxy.config.together import whyNotApart
from chanproxy.endpoints.addresses import Address, SocketAddress
from chanproxy.freezers import isOurs, makeFreezer, stops
from chanproxy.interfaces import (
    AnyReactor,
    ChanproxyReactor,
    FreezerError,
    IExclusiveFreezer,
    IFreezer,
    expectReactor,
)
from chanproxy.kernel.rundirectory import openDirectory, runtimeDirectory
from chanproxy.manager.access import Access, AccessError
from chanproxy.service.startable import whyNotDiscovered, whyNotStartable
from chanproxy.words import brief, plainPath

PREDECESSOR = 0.5
"""
Seconds: what a service had that was killed is free when the last of its processes has ended, which
may be some moments after the service itself, or many on a busy machine.
"""


def preflight(configuration: config.Configuration, reactor: AnyReactor) -> list[Problem]:
    """
    Look for what would keep the service from starting, without changing anything.

    Waits for up to C{PREDECESSOR} seconds for what may pass.

    @return: all problems found; with their lines, if the configuration is from a file.
    @raise TypeError: the reactor has not what is needed.
    """
    reactor = expectReactor(reactor)
    if wrong := problemsOf(configuration):
        return wrong
    end = time.monotonic() + PREDECESSOR
    while True:
        problems = _problems(configuration, reactor)
        if time.monotonic() > end or not any(each.passing for each in problems):
            return list(configuration.located(problems))
        time.sleep(0.02)


def _problems(configuration: config.Configuration, reactor: ChanproxyReactor) -> list[Problem]:
    checks = Checks(reactor)
    checks.records(configuration.containers)
    for container in configuration.containers:
        checks.container(container)
    problems = checks.problems
    problems += whyNotDiscovered(configuration)
    try:
        Access(configuration.access)
    except AccessError as error:
        problems += error.problems
    for key, address in configuration.sockets.items():
        if address is None or madeByUs(address):
            continue
        if (taken := address.whyNotBindable()) is not None:
            problems.append(Problem(key, taken, passing=True))
    return problems


class Checks:
    """
    What would keep some things from starting, found one by one, without changing anything.

    @ivar problems: all that were found.
    """

    def __init__(
        self,
        reactor: ChanproxyReactor,
        places: Mapping[str, str] | None = None,
        freed: Iterable[str] = (),
        closes: Callable[[Address], bool] = lambda address: False,
    ) -> None:
        """
        @param places: what is frozen by containers that stay, by the keys that name it.
        @param freed: what is ours to freeze till then, and will not be.
        @param closes: whether it is we who listen at an address, and till then only.
        """
        self._reactor = reactor
        self._places = dict(places or {})
        self._freed = {str(number): place for number, place in enumerate(freed)}
        self._closes = closes
        self.problems: list[Problem] = []

    def records(self, containers: Iterable[config.Container]) -> None:
        """Whether what will be frozen can be written down."""
        if not any(stops(container.freezer) for container in containers):
            return
        try:
            os.close(openDirectory(runtimeDirectory(), make=False))
        except FileNotFoundError:
            pass
        except FreezerError as error:
            self._note("records", str(error))

    def piece(self, piece: Piece) -> None:
        """A container, or what listens for one that is there."""
        if isinstance(piece.what, config.Container):
            self.container(piece.what)
        elif isinstance(piece.what, config.Channel):
            self._channel(piece, piece.what)
        elif not self._closes(piece.what) and (wrong := piece.what.whyNotBindable()):
            self._note(piece.path, wrong, passing=True)

    def container(self, container: config.Container) -> None:
        """A container, and what listens for it."""
        path = join("containers", container.name)
        self._freezer(container, f"{path}.freezer")
        wrong = whyNotAdopt() if container.adoption is not None else None
        if wrong is not None:
            self._note(f"{path}.wake-on", wrong)
        for each in piecesOf(container):
            self.piece(each)

    def _freezer(self, container: config.Container, path: str) -> None:
        try:
            freezer = makeFreezer(container.freezer, self._reactor)
            freezer.check()
            place = placeOf(freezer)
            clash = whyNotApart(place, self._places) if place else None
            taken = None
            if clash is None and container.suspend != "dry-run":
                # What is ours, or around or inside it, is in no other hands.
                ours = bool(place) and whyNotApart(place, self._freed) is not None
                taken = None if ours else _whyInHands(freezer)
        except Exception as error:
            self._note(path, whyFailed(container.freezer, error))
            return
        if clash is not None:
            self._note(path, clash)
        elif taken is not None:
            self._note(path, taken, passing=True)
        elif place:
            self._places[path] = place

    def _channel(self, piece: Piece, channel: config.Channel) -> None:
        free = self._closes(channel.listen)
        for key, wrong in whyNotStartable(self._reactor, channel, free):
            self._note(f"{piece.path}.{key}", wrong, passing=key == "listen")

    def _note(self, path: str, wrong: str, passing: bool = False) -> None:
        self.problems.append(Problem(path, wrong, passing=passing))


def whyFailed(spec: str, error: Exception) -> str:
    """
    What is wrong with a freezer that has raised something.

    @raise Exception: that very error, if it is none that a freezer may raise, and one of ours.
    """
    if isinstance(error, (FreezerError, ValueError)):
        return str(error)
    if isOurs(spec):
        raise error
    from chanproxy.plugins import failed

    return str(failed(f"the freezer {brief(spec)} of a plugin", error))


def placeOf(freezer: IFreezer) -> str:
    """
    What no two containers have in common; empty, when nothing is stopped.

    @raise FreezerError: it cannot be known.
    """
    exclusive: IExclusiveFreezer | None = IExclusiveFreezer(freezer, None)
    if exclusive is not None:
        return exclusive.place()
    return plainPath(freezer.spec) if stops(freezer.spec) else ""


def _whyInHands(freezer: IFreezer) -> str | None:
    """Whether another service has it, in words."""
    exclusive: IExclusiveFreezer | None = IExclusiveFreezer(freezer, None)
    if exclusive is not None:
        try:
            exclusive.claim()
        except FreezerError as error:
            return str(error)
        exclusive.release()
    return None


def madeByUs(address: SocketAddress) -> bool:
    """Whether a socket's directory is the runtime directory, still to be made."""
    directory = os.path.dirname(address.file or "")
    return directory == runtimeDirectory() and not os.path.exists(directory)
