"""
Replied: strict request and reply; each message back says that one that came in is handled.

Knows one counter; looks at nothing.
"""

from __future__ import annotations

from zope.interface import implementer

from chanproxy.counter import MessageCounter
from chanproxy.handled import Ledger
from chanproxy.interfaces import IHandledPolicy


@implementer(IHandledPolicy)
class Replied:
    """Takes off what it counted itself and never more: a container may also speak unasked."""

    def __init__(self, ledger: Ledger, counter: MessageCounter) -> None:
        self._ledger = ledger
        self._counter = counter
        self._owed = 0

    def counted(self, count: int) -> None:
        """Requests were added to the counter."""
        self._ledger.activity += count
        self._owed += count

    def sending(self, waiting: int) -> None:
        """How many counted requests the container's socket has not accepted."""

    def answered(self, count: int) -> None:
        """Replies have gone to the remote."""
        replies = min(count, self._owed)
        if replies:
            self._owed -= replies
            self._counter.handled(replies)

    def close(self) -> None:
        """The channel has ended."""
        self._owed = 0
