"""
Inputs: what can happen to a container, for its life cycle and for those who tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.python.failure import Failure

from chanproxy.wake.source import Source, SourceGroup


class LifeCycle(Protocol):
    """What can happen to a container."""

    def suspend(self) -> None:
        """Everything is quiet: stop it."""

    def frozen(self) -> None:
        """The freezer is done."""

    def looked(self, found: SourceGroup) -> None:
        """It was looked into, and waits for these."""

    def idle(self) -> None:
        """Nothing that it waits for has come meanwhile."""

    def interrupted(self, error: Exception) -> None:
        """The freezer failed, or it is at work, before it was asleep."""

    def signalled(self, sources: Sequence[Source]) -> None:
        """Something became positive that keeps it awake."""

    def breathe(self, reason: str) -> None:
        """Let it run for a moment."""

    def settled(self) -> None:
        """Each of its threads waits again."""

    def resume(self, reasons: tuple[str, ...]) -> None:
        """Wake it, unless it is paused."""

    def disturbed(self, reason: str) -> None:
        """Somebody else has thawed it, or it cannot be seen any more whether it is frozen."""

    def pause(self, by: str) -> None:
        """Stop it, whatever it has to do, until it is unpaused."""

    def unpause(self, reasons: tuple[str, ...]) -> None:
        """Wake it, if it is paused."""

    def thawed(self) -> None:
        """It runs."""

    def thawFailed(self, why: Failure) -> None:
        """It does not run yet."""
