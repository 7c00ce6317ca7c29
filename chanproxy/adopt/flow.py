"""
Flow: what the kernel notes of one TCP connection, and what follows from it over time.

Numbers in, seconds out; knows no processes and no clock.
"""

from __future__ import annotations

import struct

from attrs import define, frozen

STREAM_GAP = 5.0
"""Seconds between two things that are sent, up to which more is expected to follow."""

STREAM_MORE = 0.5
"""Seconds, beyond twice the gap, until more is not expected any more."""

ESTABLISHED, CLOSE_WAIT, LISTEN = 1, 8, 10
"""C{net/tcp_states.h}."""

UNSURE = 5.0
"""Seconds for which a request is waited on that may have been answered within one tick."""

OPEN = frozenset((ESTABLISHED, CLOSE_WAIT))
"""Data can go to the peer, also when none will come from it any more."""

_TICK = 0.02
"""Seconds that two instants differ by at least; the kernel's clock has ticks of up to 10 ms."""

# struct tcp_info, linux/tcp.h: the last data that was sent, the last acknowledgement (which says
# nothing), the last data that was received, in milliseconds ago.
_WHEN, _WHEN_AT = struct.Struct("=III"), 44
# Bytes that were acknowledged and received.
_COUNTS, _COUNTS_AT = struct.Struct("=QQ"), 120
# How often data came and went; and of the latter, how often again.
_PIECES, _PIECES_AT = struct.Struct("=II"), 152
_AGAIN, _AGAIN_AT = struct.Struct("=I"), 100
# Bytes not sent yet; and those sent, and sent again.
_WAITING, _WAITING_AT = struct.Struct("=I"), 144
_SENT, _SENT_AT = struct.Struct("=QQ"), 200


@frozen
class Flow:
    """
    What the kernel notes.

    @ivar sent: seconds since data went last, or since the connection began.
    @ivar received: seconds since data came last, or since the connection began.
    @ivar bytesIn: that ever came.
    @ivar bytesOut: that ever went, or are about to.
    @ivar piecesIn: packets of data that ever came.
    @ivar piecesOut: that ever went; 0 from a kernel that does not count them.
    """

    state: int
    sent: float
    received: float
    bytesIn: int
    bytesOut: int
    piecesIn: int = 0
    piecesOut: int = 0

    @classmethod
    def parse(cls, info: bytes) -> Flow | None:
        """From C{struct tcp_info}; None from a kernel that counts no bytes, before Linux 4.1."""
        if len(info) < _COUNTS_AT + _COUNTS.size:
            return None
        sent, _, received = _WHEN.unpack_from(info, _WHEN_AT)
        bytesOut, bytesIn = _COUNTS.unpack_from(info, _COUNTS_AT)
        if len(info) >= _SENT_AT + _SENT.size:
            ever, again = _SENT.unpack_from(info, _SENT_AT)
            bytesOut = ever - again + _WAITING.unpack_from(info, _WAITING_AT)[0]
        # The end of what the peer sends counts as a byte, and as no data.
        bytesIn -= info[0] == CLOSE_WAIT
        piecesIn = piecesOut = 0
        if len(info) >= _PIECES_AT + _PIECES.size:
            piecesIn, piecesOut = _PIECES.unpack_from(info, _PIECES_AT)
            piecesOut -= _AGAIN.unpack_from(info, _AGAIN_AT)[0]
        times = sent / 1000, received / 1000
        return cls(info[0], *times, bytesIn, bytesOut, piecesIn, piecesOut)


def counts(info: bytes) -> bytes:
    """What stays the same in C{struct tcp_info} as long as nothing comes and nothing goes."""
    return info[:1] + info[120:136] + info[144:148] + info[200:216]


@define
class Flowing:
    """
    A connection that came in, over time.  All times are seconds by the caller's clock.

    @ivar gap: seconds between the last two times that data was seen to go, with none from the peer
        in between; None without such.
    """

    gap: float | None = None
    _bytesIn: int | None = None
    _bytesOut: int = 0
    _pieces: tuple[int, int] = (0, 0)
    _unsure: bool = False
    _asked: float | None = None
    _silenced: bool = False
    _sentAt: float | None = None

    def seen(self, flow: Flow, now: float) -> None:
        """Take note of what the connection shows at a moment."""
        first = self._bytesIn is None
        went = first or flow.bytesOut != self._bytesOut
        came = not first and flow.bytesIn != self._bytesIn
        # Nothing was ever sent: whatever came waits, within one tick of the connection's begin too.
        waits = flow.bytesIn > 0 and (not flow.bytesOut or flow.received < flow.sent)
        if not went:
            # Data that was sent again is no answer, though the kernel takes it for data sent.
            waits = waits or came or self._asked is not None
        self._unsure = not waits and went and self._mayWait(flow)
        waits = waits or self._unsure
        if not waits:
            self._asked = None
        elif went or self._asked is None:
            self._asked = now - flow.received
        if went:
            self._silenced = False
        self._noteSent(flow, now, went and not waits)
        self._bytesIn, self._bytesOut = flow.bytesIn, flow.bytesOut
        self._pieces = flow.piecesIn, flow.piecesOut

    def _mayWait(self, flow: Flow) -> bool:
        """
        Whether there is one request more than there are answers.

        Who asks again as soon as it has its answer does so within the same tick of the kernel's
        clock, and then the times do not tell what came first.  A request and an answer are a packet
        each, as a rule.
        """
        if flow.received != flow.sent or (self._bytesIn is None and flow.piecesIn > 3):
            return False
        more = flow.piecesIn - self._pieces[0] - (flow.piecesOut - self._pieces[1])
        return 1 <= more + (self._asked is not None) <= 2

    def _noteSent(self, flow: Flow, now: float, went: bool) -> None:
        sentAt, cameAt = now - flow.sent, now - flow.received
        if not went:
            if self._sentAt is not None and cameAt > self._sentAt + _TICK:
                self._sentAt = self.gap = None
        elif not flow.bytesOut:
            return
        elif self._sentAt is None or cameAt > self._sentAt + _TICK:
            # The first that went after the peer's last data: its answer, as a rule.
            self._sentAt, self.gap = sentAt, None
        elif sentAt > self._sentAt + _TICK:
            gap = sentAt - self._sentAt
            self._sentAt, self.gap = sentAt, gap if gap <= STREAM_GAP else None

    @property
    def quiet(self) -> bool:
        """Nothing follows from it, as long as nothing comes and nothing goes."""
        return self.gap is None and (self._asked is None or self._silenced)

    def unanswered(self, now: float) -> float | None:
        """For how many seconds the peer has waited for an answer; None if it does not."""
        if self._unsure and self._asked is not None and now - self._asked > UNSURE:
            self._silenced = True
        return None if self._asked is None or self._silenced else max(now - self._asked, 0.0)

    def silenced(self) -> None:
        """It is not waited for any more, until something is sent."""
        self._silenced = True

    def streaming(self, now: float) -> float | None:
        """For how many seconds more is expected to go, by the pace so far; None if it is not."""
        if self.gap is None or self._sentAt is None:
            return None
        left = self._sentAt + 2 * self.gap + STREAM_MORE - now
        return left if left > 0 else None
