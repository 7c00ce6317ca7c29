"""The record of the batch in flight: a killed process loses, doubles and reorders nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.inflight import PACKETS, Record
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls
from support.places import ROOT
from tests.channels.killing import LEAST

# Or others take the time from what is killed, and it is never met in the middle of anything.
pytestmark = pytest.mark.punctual

KILLS = int(os.environ.get("CHANPROXY_TEST_KILLS", "150"))


@pytest.mark.parametrize("kind", ["seqpacket", "stream"])
def test_killed(kind: str) -> None:
    """Killed at random instants under full load, and each batch finished from the record."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.channels.killing", kind, str(KILLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    sent, received, finished = (
        int(re.findall(rf"{word} (\d+)", result.stdout)[0])
        for word in ("sent", "received", "finished")
    )
    assert sent == received > KILLS
    # Some of them have to hit the dangerous middle, or the test shows nothing.
    assert finished >= LEAST, result.stdout


def test_staleEntries() -> None:
    """What a larger batch stored before is not taken for this one's."""
    source, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    record = Record()
    record.begin(PACKETS, 10, 1, 2)
    for entry in range(10):
        record.send.lengths[entry] = record.take.lengths[entry] = 1
    record.end()
    for number in range(5):
        writing.send(b"%d" % number)
    record.begin(PACKETS, 3, 1, 2)
    record.send.lengths[0] = record.send.lengths[1] = 1
    record.take.lengths[0] = 1
    source.recv(1)
    assert (record.source, record.sink) == (1, 2)
    assert record.finish(source) == 1
    assert record.source is None
    assert record.finish(source) == 0
    assert source.recv(1) == b"2"
    source.close()
    writing.close()


def test_successorOpensIt() -> None:
    """Another mapping of the same memfd sees what is in flight; something else is refused."""
    descriptor = Record.newDescriptor()
    again = os.dup(descriptor)
    first = Record(descriptor)
    first.begin(PACKETS, 1, 7, 8)
    second = Record(again)
    assert (second.source, second.sink) == (7, 8)
    first.end()
    assert second.source is None
    other = os.memfd_create("other")
    with pytest.raises(OSError, match="no record"):
        Record(other)
    os.close(other)


def test_inherited(reactor: ChanproxyReactor) -> None:
    """After a predecessor that had peeked: empty packets among what it saw are not skipped."""
    source, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    expected = [b"%d" % n if n % 3 else b"" for n in range(100)]
    for data in expected:
        writing.send(data)
    source.setsockopt(socket.SOL_SOCKET, calls.SO_PEEK_OFF, 0)
    for _ in range(64):
        source.recv(10, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    channel = SeqpacketChannel(reactor, source, PeekBuffer())
    channel.inherited()
    got: list[bytes] = []
    sizes = []
    while batch := channel.peek():
        sizes.append(len(batch))
        got += [bytes(data) for data, _ in batch.messages()]
        channel.take(len(batch))
    assert got == expected
    assert sizes == [1] * 64 + [36]
    source.close()
    writing.close()
