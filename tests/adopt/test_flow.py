"""What follows from the kernel's figures for one connection, without any."""

from __future__ import annotations

import struct

import pytest

from chanproxy.adopt.flow import CLOSE_WAIT, ESTABLISHED, Flow, Flowing


def info(sent: int, received: int, bytesIn: int, bytesOut: int, state: int = ESTABLISHED) -> bytes:
    """C{struct tcp_info}."""
    text = bytearray(232)
    text[0] = state
    struct.pack_into("=III", text, 44, sent, 0, received)
    struct.pack_into("=Q", text, 128, bytesIn)
    struct.pack_into("=QQ", text, 200, bytesOut, 0)
    return bytes(text)


def flow(*figures: int) -> Flow:
    """What the kernel notes."""
    found = Flow.parse(info(*figures))
    assert found is not None
    return found


def test_parse() -> None:
    """Bytes that wait count as sent, those sent again do not, and an end is no data."""
    text = bytearray(info(1500, 20, 100, 1000, CLOSE_WAIT))
    struct.pack_into("=I", text, 144, 50)
    struct.pack_into("=Q", text, 208, 30)
    assert Flow.parse(bytes(text)) == Flow(CLOSE_WAIT, 1.5, 0.02, 99, 1020)
    # Older kernels count what was acknowledged.
    struct.pack_into("=Q", text, 120, 77)
    older = Flow.parse(bytes(text[:136]))
    assert older is not None
    assert older.bytesOut == 77
    assert Flow.parse(bytes(text[:100])) is None


def test_sentAgain() -> None:
    """An answer that is sent once more does not answer the next question."""
    flowing = Flowing()
    flowing.seen(flow(10, 20, 10, 10), 100.0)
    assert flowing.unanswered(100.0) is None
    flowing.seen(flow(1010, 5, 20, 10), 101.0)
    assert flowing.unanswered(101.0) == pytest.approx(0.005)
    flowing.seen(flow(1, 1005, 20, 10), 102.0)
    assert flowing.unanswered(102.0) == pytest.approx(1.005)
    flowing.seen(flow(1, 2005, 20, 20), 103.0)
    assert flowing.unanswered(103.0) is None


def test_slowSends() -> None:
    """What is sent more seldom than each five seconds is no stream; nor is a greeting."""
    flowing = Flowing()
    flowing.seen(flow(0, 0, 0, 0), 100.0)
    flowing.seen(flow(0, 1000, 0, 10), 101.0)
    assert flowing.streaming(101.0) is None
    flowing.seen(flow(0, 7000, 0, 20), 107.0)
    assert flowing.streaming(107.0) is None
    flowing.seen(flow(0, 9000, 0, 30), 109.0)
    assert flowing.streaming(109.0) == pytest.approx(4.5)
    flowing.seen(flow(4600, 13600, 0, 30), 113.6)
    assert flowing.streaming(113.6) is None
