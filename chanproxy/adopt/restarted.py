"""
Restarted: calls that a freeze interrupts and the kernel goes on with under another name.

C{poll}, C{nanosleep} and a few others count from their beginning, and after a thaw show as
C{restart_syscall}, with the arguments that they were made with.  Knows threads by their numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import frozen


@frozen
class Call:
    """
    One, as it was before.

    @ivar at: nanoseconds (C{CLOCK_MONOTONIC}) when it is over; None: never.
    """

    arguments: tuple[int, ...]
    name: str
    at: int | None


class Restarted:
    """The calls of one container that begin anew after a freeze."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Call] = {}

    def of(self, pid: int, tid: int, arguments: Sequence[int]) -> Call | None:
        """What a thread's restarted call was, if it was seen before."""
        known = self._known.get((pid, tid))
        return known if known is not None and known.arguments == tuple(arguments) else None

    def remember(self, pid: int, tid: int, call: Call) -> None:
        """Should it be restarted, that is what it was."""
        self._known[pid, tid] = call

    def forget(self, pid: int, tid: int) -> None:
        """It is in another call now."""
        self._known.pop((pid, tid), None)

    def keepOnly(self, pids: Collection[int]) -> None:
        """Forget processes that are gone."""
        self._known = {key: call for key, call in self._known.items() if key[0] in pids}
