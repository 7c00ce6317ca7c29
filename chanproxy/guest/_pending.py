"""
Which messages have been given out and are not handled yet: what the waking calls have in common.

Knows no event loop.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, TypeVar

S = TypeVar("S", bound="Pending")


class Handling(Protocol):
    """L{Counter} or L{OwnedCounter}."""

    def handled(self, count: int = 1) -> None: ...


class Pending:
    """Counts what was received; a C{with} marks all of it as handled at its end."""

    def __init__(self, counter: Handling, initial: int = 0) -> None:
        """@param initial: what the counter was made with: 1 is marked by the first call."""
        self._counter = counter
        self._pending = initial

    def _received(self) -> None:
        self._pending += 1

    def finish(self) -> None:
        """What was received so far is handled.  Idempotent."""
        pending, self._pending = self._pending, 0
        if pending:
            self._counter.handled(pending)

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()
