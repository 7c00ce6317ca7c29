"""
A service as those see it who ask it, wherever it is: what it can be asked, and what is made of the
answers.

Knows the manager's methods; knows not by which way a call goes.
"""

from __future__ import annotations

import contextlib
import select
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from chanproxy.guest import CallRefused, GuestError
from chanproxy.words import brief, meant

PATIENCE = 10.0
"""Seconds to wait for an answer that does not depend on what a container does."""

NOT_OURS = "what answers there is no chanproxy"

_UNKNOWN = ("ContainerNotFound", "PermissionDenied", "InvalidParameter")
"""What the manager says of a container that is not there, or has no such name as one can have."""


class Pending(ABC):
    """A call that is not answered yet, or again and again; on a connection of its own."""

    @abstractmethod
    def fileno(self) -> int:
        """Readable when there is an answer."""

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """
        Wait for the next one.

        @raise GuestError: it is an error, or the service has gone.
        """

    @abstractmethod
    def close(self) -> None:
        """Wait no more; what was asked for is done all the same.  Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def answered(waiting: Iterable[Pending], timeout: float | None = None) -> list[Pending]:
    """Those that have an answer; waits until there is one, or so many seconds."""
    known = {each.fileno(): each for each in waiting}
    poller = select.poll()
    for descriptor in known:
        poller.register(descriptor, select.POLLIN)
    ready = poller.poll(None if timeout is None else max(timeout * 1000, 0))
    return [known[descriptor] for descriptor, _ in ready]


class Listing(NamedTuple):
    """
    Containers, and what they do; entries are as C{ListContainers} gives them.

    @ivar now: when that was: nanoseconds (C{CLOCK_BOOTTIME}).
    @ivar leftAlone: those that want to sleep, and say so wrongly.
    """

    found: list[dict[str, Any]]
    now: int
    leftAlone: list[dict[str, Any]]


class Service(ABC):
    """
    One that runs.

    Connects with the first call, and anew after it has gone; each method raises L{GuestError}.

    @ivar place: where it is, for people.
    @ivar standing: calls are made by one connection, so that the next one tells whether the service
        has ended meanwhile.
    """

    standing = True

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """
        Make a call, and wait for its answer.

        @param parameters: those that are None are left out.
        """

    @abstractmethod
    def begin(self, method: str, more: bool = False, **parameters: Any) -> Pending:
        """
        Make a call whose answer may take its time.

        @param more: there may be any number of answers.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect.  Idempotent."""

    def containers(self) -> Listing:
        """Each container, with what it does."""
        found: list[dict[str, Any]] = []
        first: int | None = None
        while True:
            answer = self.call("ListContainers", details=True, first_container=first)
            found += answer["containers"]
            first = answer.get("next_container")
            if first is None:
                return Listing(found, answer["now"], answer.get("left_alone", []))

    def some(self, names: Sequence[str]) -> Listing:
        """
        As L{containers}, those of some names; of all, if there is none.

        @raise NoSuchContainer: there is none of such a name.
        """
        listing = self.containers()
        known = [each["name"] for each in listing.found]
        for name in names:
            if name not in known:
                raise NoSuchContainer(name, known)
        if not names:
            return listing
        return Listing([each for each in listing.found if each["name"] in names], listing.now, [])

    def describe(self, name: str) -> dict[str, Any]:
        """What C{Describe} says of one, with all its sources."""
        described: dict[str, Any] = {}
        first: int | None = None
        while True:
            answer = self.call("Describe", container=name, first_source=first)
            portion = answer["description"]
            sources = described.get("sources", []) + portion["sources"]
            described = {**(described or portion), "sources": sources}
            first = answer.get("next_source")
            if first is None:
                return described

    def described(self, names: Iterable[str]) -> Iterator[dict[str, Any]]:
        """As L{describe}, one after the other; without those that have gone meanwhile."""
        for name in names:
            try:
                description = self.describe(name)
            except CallRefused as error:
                if error.error != "ContainerNotFound":
                    raise
            else:
                yield description

    def sentence(self, error: CallRefused, name: str | None) -> str:
        """
        What to say about a refusal.

        @param name: the container that it is about; None: of none, or of several.
        """
        if name is not None and error.error in _UNKNOWN:
            # Whoever has access to some is not told which others there are.
            with contextlib.suppress(GuestError):
                known = [each["name"] for each in self.containers()[0]]
                if name not in known and (known or error.error != "PermissionDenied"):
                    return str(NoSuchContainer(name, known))
        return str(error)


class NoSuchContainer(Exception):
    """There is no container of a name; the text says which one may be meant."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        hint = meant(name, known) if known else "the service has none at all"
        super().__init__(f"there is no container {brief(name)}; {hint}")
