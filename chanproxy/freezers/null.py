"""
NullFreezer: the freezer that freezes nothing.

Knows nothing of what the container is.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from chanproxy.interfaces import FreezerError, IFreezer


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

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        """Nobody is told: which processes there are is not known."""

    def unfrozenTasks(self) -> list[str]:
        """No task is expected to stop."""
        return []

    def processes(self) -> list[int]:
        """None: which they are is not known, and none is frozen."""
        return []

    def cpuTime(self) -> int:
        """See L{IFreezer.cpuTime}: it is not known."""
        raise FreezerError("none: it is not known what the container is")

    def hiddenProcesses(self) -> int:
        """See L{IFreezer.hiddenProcesses}: none is known of."""
        return 0
