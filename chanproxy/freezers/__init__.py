"""
Freezers: what really stops and starts a container, made from a configuration string.

Knows the kinds by name only; each kind is a module of its own.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor, IFreezer


@implementer(IFreezer)
class NullFreezer:
    """Stops nothing: for containers that are only to be counted, or that stop by themselves."""

    spec = "none"

    def __init__(self) -> None:
        self._disturbed: list[Deferred[str]] = []

    def check(self) -> None:
        """Nothing can be wrong."""

    def whenReady(self) -> Deferred[None]:
        """Fires at once."""
        return succeed(None)

    def freeze(self) -> Deferred[None]:
        """Fires at once."""
        return succeed(None)

    def thaw(self) -> Deferred[None]:
        """Cancels L{whenDisturbed}, then fires at once."""
        disturbed, self._disturbed = self._disturbed, []
        for waiting in disturbed:
            waiting.cancel()
        return succeed(None)

    def thawNow(self) -> None:
        """Nothing is stopped."""

    def whenDisturbed(self) -> Deferred[str]:
        """Never fires; L{thaw} cancels it."""
        waiting: Deferred[str] = Deferred(self._forget)
        self._disturbed.append(waiting)
        return waiting

    def _forget(self, waiting: Deferred[str]) -> None:
        if waiting in self._disturbed:
            self._disturbed.remove(waiting)

    def unfrozenTasks(self) -> list[str]:
        """No task is expected to stop."""
        return []


def makeFreezer(spec: str, reactor: ChanproxyReactor) -> IFreezer:
    """
    Make the freezer that a configuration string names.

    @param spec: C{cgroup:PATH} or C{none}.
    @raise ValueError: anything else; the text is a sentence for the user.
    """
    kind, colon, argument = spec.partition(":")
    if kind == "none" and not colon:
        return NullFreezer()
    if kind == "cgroup":
        if not argument:
            raise ValueError(
                "The freezer 'cgroup' needs the path of a cgroup, such as cgroup:editor."
            )
        return CgroupFreezer(argument, reactor)
    raise ValueError(f"Unknown freezer {spec!r}: the known ones are cgroup:PATH and none.")
