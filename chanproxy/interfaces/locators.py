"""
Locators: where a container is now, by the name that its runtime knows it by.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


@frozen
class Location:
    """
    Where a container is.

    @ivar cgroup: its directory, the topmost that is the container's alone; empty: it is nowhere.
    @ivar why: why it is nowhere, in words that follow its name.
    @ivar watchdog: seconds within which it has to say that it lives; 0: it need not.
    """

    cgroup: str = ""
    why: str = "is not found yet"
    watchdog: float = 0.0


class IFollower(Interface):
    """Who is told of a container; nothing of this may wait."""

    def moved(location: Location) -> None:
        """It is there from now on."""

    def expected(what: str) -> None:
        """
        Somebody is about to do something with it for which it has to run.

        @param what: in words: C{docker exec}.
        """


class ILocator(Interface):
    """
    What knows where a container is, under which name, and whose hand is on it.

    It changes nothing, and freezes nothing.
    """

    spec = Attribute("The configuration string: C{docker:web}.")

    mayWait = Attribute(
        "Whether who runs it may be kept waiting for a thaw when it looks whether it is frozen."
    )

    def check() -> None:
        """
        Look whether it could be found, without asking anybody who may not answer.

        A container, or a runtime, that is not there yet is no error.

        @raise FreezerError: it never will, as things are; the text says what to do.
        """

    def follow(follower: IFollower) -> None:
        """Tell from now on: where it is as soon as that is known, and whenever it changes."""

    def leave() -> None:
        """Tell no more.  Idempotent."""

    def locate() -> Location:
        """
        Find it now, blocking, without a reactor: for recovery.

        @raise FreezerError: it is not known where it is.
        """


class IStartingLocator(ILocator):
    """One whose runtime can be told to start and stop the container."""

    def start() -> Deferred[None]:
        """
        Have it run.  Idempotent.

        @return: fires when it runs, and is healthy, where its runtime knows that; fails with
            L{FreezerError}, which says why it does not.  Cancellable, which stops nothing.
        """

    def stop() -> Deferred[None]:
        """
        Have it end, in its own time.  Idempotent.

        @return: fires when it has; fails with L{FreezerError}.
        """
