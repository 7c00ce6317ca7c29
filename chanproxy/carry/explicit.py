"""
The policy C{explicit}: whoever holds the counter reads it down.

Knows nothing of who that is.
"""

from __future__ import annotations

from zope.interface import implementer

from chanproxy.carry.ledger import Ledger
from chanproxy.interfaces import IHandledPolicy


@implementer(IHandledPolicy)
class Explicit:
    """Whoever holds the counter's descriptor reads it down: nothing to look at."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        self._ledger.activity += count

    def sending(self, waiting: int) -> None:
        """How many counted messages the container's socket has not accepted."""

    def answered(self, count: int) -> None:
        """Replies say nothing here."""

    def close(self) -> None:
        """The channel has ended."""
