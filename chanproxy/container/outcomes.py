"""
Outcomes: how a suspend can end, and who is told what becomes of a container.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import define

from chanproxy.words import listed


class WakeLocksExist(Exception):
    """
    Something keeps the container awake; it was not suspended.

    @ivar names: of all that was signalled.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(listed(names))
        self.names = tuple(names)


class SuspendFailure(Exception):
    """The freezer could not suspend the container; it is awake.  The text says why."""


class NotIdle(SuspendFailure):
    """
    The container is at work; it runs.  The text names the thread, or its wait.

    @ivar again: seconds after which another try makes sense; None: it is not known.
    """

    def __init__(self, text: str, again: float | None = None) -> None:
        super().__init__(text)
        self.again = again


class AlreadySuspended(Exception):
    """The container is on its way to sleep, asleep, or waking: one suspend at a time."""


class Paused(Exception):
    """
    The container is paused: nothing but that it is unpaused wakes it.

    @ivar by: who has paused it.
    """

    def __init__(self, by: str) -> None:
        super().__init__(f"it is paused by {by}")
        self.by = by


@define(frozen=True)
class Resumed:
    """
    How a suspend ended.

    @ivar asleep: nanoseconds between falling asleep and waking, suspend of the host included.
    @ivar reasons: the names of all that was signalled, or what else woke it.
    """

    asleep: int
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All of them in one text, for people: see L{listed}."""
        return listed(self.reasons)


class IStateWatcher(Protocol):
    """Told of each change, in order, after the fact."""

    def __call__(self, state: str, reasons: tuple[str, ...]) -> None: ...


def failed(cause: BaseException | None) -> SuspendFailure:
    """What a suspend fails with that something else has ended."""
    error = SuspendFailure(str(cause))
    error.__cause__ = cause
    return error
