"""
TurnedAway: whoever connects for a container that is paused is told so, and waits for nothing.

A peer that speaks HTTP first gets an answer in words; each other one sees that the connection ends
at once.  Knows one channel; knows nothing of why it is turned away.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from chanproxy.carry.opening import REQUEST, Opening, mayBecomeRequest

PATIENCE = 1.0
"""Seconds that a peer has to speak first, and then to read its answer."""


class TurnedAway(Opening):
    """One peer."""

    def __init__(
        self,
        clock: IReactorTime,
        why: str,
        came: Callable[[Opening], None],
        left: Callable[[Opening], None],
    ) -> None:
        """@param why: a sentence, for a peer that can read it."""
        super().__init__(clock, PATIENCE, came, left)
        self._why = why

    def connectionMade(self) -> None:
        """It may speak first."""
        super().connectionMade()
        if self._channel.family != "bytes":
            self._end()

    def spoken(self, said: bytes, ended: bool) -> bool:
        """See L{Opening}."""
        if REQUEST.match(said):
            self.answer(self._inWords(), len(said))
        elif ended or not mayBecomeRequest(said):
            self._end()
        else:
            return True
        return False

    def _inWords(self) -> bytes:
        body = f"{self._why}\n".encode(errors="backslashreplace")
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body

    def expired(self) -> None:
        """See L{Opening}."""
        self._end()
