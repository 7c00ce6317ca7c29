"""Messages on a stream, each with a zero byte behind it: which come, and what is kept of others."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.terminated import LOOK, TerminatedTransport
from chanproxy.channels.transport import MessageProtocol
from chanproxy.interfaces import ChannelBroken, ChanproxyReactor, MessageRefused
from chanproxy.kernel.closing import closer
from support.live import PATIENCE
from tests.shared.managing import Box, gone
from tests.shared.sides import asynchronous, sendWhenRoom, turns, until

MOST = 100_000


class Recorder(MessageProtocol):
    """Keeps what it hears, and goes on behind what is refused."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int]] = []
        self.refused: list[MessageRefused] = []
        self.ended = False
        self.lost: Deferred[None] = Deferred()

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        for fd in descriptors:
            assert not os.get_inheritable(fd)
            os.close(fd)
        self.messages.append((data, len(descriptors)))

    def messageRefused(self, error: MessageRefused) -> None:
        self.refused.append(error)
        self.transport.discard()

    def messagesEnded(self) -> None:
        self.ended = True
        MessageProtocol.messagesEnded(self)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost.callback(None)


class Ends:
    """
    A transport, and a plain socket behind it.

    @ivar other: that one, which does not block.
    """

    def __init__(self, reactor: ChanproxyReactor, most: int = MOST) -> None:
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.other.setblocking(False)
        self.protocol = Recorder()
        nowhere = UNIXAddress(None)
        self.transport = TerminatedTransport(reactor, ours, PeekBuffer(most), nowhere, nowhere)
        self.transport.begin(self.protocol)
        self._reactor = reactor

    async def hears(self, count: int) -> None:
        """Wait until so many messages have come."""
        await until(self._reactor, lambda: len(self.protocol.messages) >= count)

    async def close(self) -> None:
        """End it."""
        self.transport.close()
        self.other.close()
        await self.protocol.lost
        closer.drain(PATIENCE)


@asynchronous
async def test_whole(reactor: ChanproxyReactor) -> None:
    """However they are cut: many in one piece, one in many; also one that is empty."""
    ends = Ends(reactor)
    ends.other.send(b"a\0bb\0\0c")
    await ends.hears(3)
    ends.other.send(b"c\0")
    await ends.hears(4)
    long = b"x" * MOST
    await sendAll(reactor, ends.other, long + b"\0" + long + b"\0d\0")
    await ends.hears(7)
    expected = [b"a", b"bb", b"", b"cc", long, long, b"d"]
    assert ends.protocol.messages == [(each, 0) for each in expected]
    # The end of a stream in a message is an end.
    ends.other.send(b"half")
    await turns(reactor)
    ends.other.shutdown(socket.SHUT_WR)
    await until(reactor, lambda: ends.protocol.ended)
    assert len(ends.protocol.messages) == 7
    await ends.close()


async def sendAll(reactor: ChanproxyReactor, end: socket.socket, data: bytes) -> None:
    """Send as much as there is room for, until all of it is sent."""
    while data:
        try:
            data = data[end.send(data) :]
        except BlockingIOError:
            await turns(reactor, 1)


@asynchronous
async def test_byteByByte(reactor: ChanproxyReactor) -> None:
    """One that is written so comes as well: of single bytes the kernel holds only hundreds."""
    ends = Ends(reactor)
    message = bytes(range(1, 256)) * 40
    for byte in message + b"\0":
        await sendWhenRoom(reactor, ends.other, bytes([byte]))
    await ends.hears(1)
    assert ends.protocol.messages == [(message, 0)]
    await ends.close()


@asynchronous
async def test_waits(reactor: ChanproxyReactor) -> None:
    """What nobody wants to hear stays with the kernel, and is heard when somebody does."""
    ends = Ends(reactor)
    ends.transport.pauseProducing()
    ends.other.send(b"a\0b\0c\0")
    await turns(reactor)
    assert ends.protocol.messages == []
    ends.transport.resumeProducing()
    await ends.hears(3)
    ends.transport.pauseProducing()
    with suppress(BlockingIOError):
        for _ in range(10_000):
            ends.other.send(b"x" * 4096)
    await turns(reactor)
    with pytest.raises(BlockingIOError):
        ends.other.send(b"x")
    await ends.close()


@asynchronous
async def test_tooLong(reactor: ChanproxyReactor) -> None:
    """It is refused as soon as that is known, dropped as it comes, and what follows is heard."""
    ends = Ends(reactor, 1024)
    for message in (b"x" * 1025, b"x" * 5000, b"x" * (3 * LOOK), b"x" * 1_000_000):
        before = len(ends.protocol.messages)
        await sendAll(reactor, ends.other, message + b"\0fine\0" + b"y" * 1024 + b"\0")
        await ends.hears(before + 2)
        assert ends.protocol.messages[before:] == [(b"fine", 0), (b"y" * 1024, 0)]
    assert [each.limit for each in ends.protocol.refused] == ["message-bytes"] * 4
    await ends.close()


@asynchronous
async def test_neverEnds(reactor: ChanproxyReactor) -> None:
    """Bytes without an end: all are taken, and none are kept."""
    ends = Ends(reactor, 1024)
    for _ in range(300):
        await sendAll(reactor, ends.other, b"x" * 65536)
    await until(reactor, lambda: ends.protocol.refused)
    # Heard all of it, or there would be no room.
    await sendAll(reactor, ends.other, b"\0fine\0")
    await ends.hears(1)
    assert ends.protocol.messages == [(b"fine", 0)]
    assert len(ends.protocol.refused) == 1
    await ends.close()


@asynchronous
async def test_descriptors(reactor: ChanproxyReactor) -> None:
    """They are of the message that they came with, also beside others in one queue."""
    ends = Ends(reactor)
    with Box() as box:
        ends.transport.pauseProducing()
        pipes = [box.pipe() for _ in range(4)]
        given = [writing for writing, _ in pipes]
        ends.other.send(b"none\0")
        socket.send_fds(ends.other, [b"two\0"], given[:2])
        ends.other.send(b"none\0be")
        socket.send_fds(ends.other, [b"gun\0none\0"], given[2:3])
        socket.send_fds(ends.other, [b"x" * 30_000 + b"\0"], given[3:])
        box.give(*given)
        ends.transport.resumeProducing()
        await ends.hears(6)
        assert ends.protocol.messages == [
            *((b"none", 0), (b"two", 2), (b"none", 0), (b"begun", 1), (b"none", 0)),
            (b"x" * 30_000, 1),
        ]
        assert all(gone(reading) for _, reading in pipes)
        await ends.close()


@asynchronous
async def test_descriptorsOfAPiece(reactor: ChanproxyReactor) -> None:
    """For a message that is not whole none are kept: they are closed, and it is refused."""
    ends = Ends(reactor)
    with Box() as box:
        for number in range(3):
            given, kept = box.pipe()
            socket.send_fds(ends.other, [b"beg"], [given] * 200)
            box.give(given)
            await until(reactor, lambda: ends.protocol.refused)
            assert "by one sendmsg(2)" in str(ends.protocol.refused.pop())
            await turns(reactor)
            assert gone(kept)
            # Nor are those of the rest.
            given, kept = box.pipe()
            socket.send_fds(ends.other, [b"un"], [given])
            box.give(given)
            ends.other.send(b"\0fine\0")
            await ends.hears(number + 1)
            assert ends.protocol.messages[-1] == (b"fine", 0)
            assert gone(kept)
        await ends.close()


@asynchronous
async def test_sends(reactor: ChanproxyReactor) -> None:
    """More than the kernel takes at once: each message whole, in order, with its descriptors."""
    ends = Ends(reactor)
    with Box() as box:
        messages = [bytes([65 + number]) * 300_000 for number in range(5)]
        for message in messages:
            given, _ = box.pipe()
            ends.transport.sendMessage(message, [given])
            box.give(given)
        assert ends.transport.pending > 0
        ends.transport.loseConnection()
        ends.other.setblocking(True)
        ends.other.settimeout(PATIENCE)

        def read() -> tuple[bytes, list[int]]:
            data, found = b"", []
            while True:
                some, descriptors, _, _ = socket.recv_fds(ends.other, 1 << 20, 16)
                found += descriptors
                data += some
                if not some:
                    return data, found

        data, found = await deferToThread(read)
        for fd in found:
            box.own(fd)
        assert data == b"".join(message + b"\0" for message in messages)
        assert len(found) == 5
        await ends.close()


@asynchronous
async def test_tooManyDescriptors(reactor: ChanproxyReactor) -> None:
    """What can never be sent is said at once, and nothing else is concerned."""
    ends = Ends(reactor)
    with Box() as box:
        given, _ = box.pipe()
        with pytest.raises(ChannelBroken, match="253 with a message"):
            ends.transport.sendMessage(b"a", [given] * 254)
    ends.transport.sendMessage(b"b")
    assert ends.other.recv(10) == b"b\0"
    await ends.close()


@asynchronous
async def test_reset(reactor: ChanproxyReactor) -> None:
    """A peer that goes and has not read: what it sent before comes all the same."""
    ends = Ends(reactor)
    ends.transport.pauseProducing()
    ends.transport.sendMessage(b"never read")
    ends.other.send(b"a\0b\0")
    ends.other.close()
    ends.transport.resumeProducing()
    await ends.protocol.lost
    assert ends.protocol.messages == [(b"a", 0), (b"b", 0)]
