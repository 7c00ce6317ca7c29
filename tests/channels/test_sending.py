"""What a packet transport is given to send: what it never can, and more than there is room for."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure

from chanproxy.channels import transport as module
from chanproxy.channels.base import MOST_BYTES, SO_SNDBUFFORCE, SocketChannel
from chanproxy.channels.transport import MessageProtocol
from chanproxy.interfaces import ChannelBroken, ChanproxyReactor
from chanproxy.kernel.calls import SCM_MAX_FD
from tests.shared.sides import asynchronous, connect, receiveWhenThere, turns


class Keeper(MessageProtocol):
    """Keeps why its connection was lost."""

    def __init__(self) -> None:
        self.lost: Deferred[str] = Deferred()

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost.callback(f"{type(reason.value).__name__}: {reason.getErrorMessage()}")


def fill(protocol: Keeper) -> int:
    """Send until something has to wait.  @return: how many packets."""
    sent = 0
    while not protocol.transport.pending:
        protocol.transport.sendMessage(b"x" * 1000)
        sent += 1
    return sent


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's capabilities for a moment."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


IMPOSSIBLE: list[tuple[int, Any, str]] = [
    (
        MOST_BYTES + 1,
        [],
        f"a packet of {MOST_BYTES + 1} bytes is more than the kernel takes",
    ),
    (1, [0] * (SCM_MAX_FD + 1), "254 descriptors are more than the kernel takes"),
    (1, [0, 123456], "one of the descriptors that are to go with the message is not open"),
]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("size", "rights", "says"), IMPOSSIBLE)
@asynchronous
async def test_never(
    reactor: ChanproxyReactor, size: int, rights: list[int], says: str, full: bool
) -> None:
    """What can never be sent is refused at once, also behind what waits; all else arrives."""
    protocol, other = connect(reactor, Keeper())
    count = fill(protocol) if full else 0
    before, waiting = set(os.listdir("/proc/self/fd")), protocol.transport.pending
    with pytest.raises(ChannelBroken, match=says):
        protocol.transport.sendMessage(bytes(size), rights)
    assert protocol.transport.pending == waiting
    assert set(os.listdir("/proc/self/fd")) == before
    protocol.transport.sendMessage(b"after")
    protocol.transport.loseConnection()
    for _ in range(count):
        assert other.recv(2000) == b"x" * 1000
        await turns(reactor, 1)
    assert other.recv(2000) == b"after"
    assert (await protocol.lost).startswith("ConnectionDone")
    other.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes away root's capabilities for a moment")
@pytest.mark.parametrize("full", [False, True])
@asynchronous
async def test_largerThanTheBuffer(
    reactor: ChanproxyReactor, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Who may not have a larger buffer is told what limit to raise, and to how much."""
    with open("/proc/sys/net/core/wmem_max") as file:
        size = 2 * int(file.read()) + 1000
    if size > MOST_BYTES:
        # The limit is all programs' of the machine: here it is as if it were lower.
        size = 1000000
        monkeypatch.setattr(SocketChannel, "_enlargeSendBuffer", lambda channel, size: None)
    protocol, other = connect(reactor, Keeper())
    if full:
        fill(protocol)
    with unprivileged(), pytest.raises(ChannelBroken, match="send it in several") as caught:
        protocol.transport.sendMessage(bytes(size))
    protocol.transport.abortConnection()
    await protocol.lost
    other.close()
    found = re.search(r"sysctl net.core.wmem_max=(\d+)$", str(caught.value))
    assert found
    # The limit bounds what a socket may ask for: so much is enough, and no less.
    for room, enough in ((int(found[1]), True), (int(found[1]) - 1, False)):
        one, another = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, another:
            one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, room)
            if enough:
                one.send(bytes(size), socket.MSG_DONTWAIT)
            else:
                with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
                    one.send(bytes(size), socket.MSG_DONTWAIT)


def unallocatable() -> int | None:
    """A size for which the kernel has no memory though it may have some; L{None}: there is none."""
    for size in range(MOST_BYTES, MOST_BYTES - (64 << 10), -4096):
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, other:
            try:
                one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, size + 4096)
                one.send(bytes(size), socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return size
    return None


@asynchronous
async def test_noMemory(reactor: ChanproxyReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet for which memory never comes ends the connection; what follows hangs no more."""
    size = unallocatable()
    if size is None:
        pytest.skip("this kernel has memory for all packets, or may not be asked")
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    protocol, other = connect(reactor, Keeper())
    begun = reactor.seconds()
    protocol.transport.sendMessage(bytes(size), [0])
    protocol.transport.sendMessage(b"after")
    protocol.transport.loseConnection()
    assert protocol.transport.pending == 2
    said = await protocol.lost
    assert said == (
        f"ChannelBroken: the kernel has no memory for a packet of {size} bytes; send it in several"
    )
    assert reactor.seconds() - begun >= 0.2
    assert other.recv(10) == b""
    other.close()


@pytest.mark.parametrize("full", [False, True])
@asynchronous
async def test_noBytes(reactor: ChanproxyReactor, full: bool) -> None:
    """A number is no packet of so many zeros."""
    protocol, other = connect(reactor, Keeper())
    if full:
        fill(protocol)
    wrong: list[Any] = [5, "text"]
    for each in wrong:
        with pytest.raises(TypeError, match="bytes-like"):
            protocol.transport.sendMessage(each)
    protocol.transport.abortConnection()
    await protocol.lost
    other.close()


@asynchronous
async def test_pullProducer(reactor: ChanproxyReactor) -> None:
    """A producer that waits to be asked is asked again and again, and no more when it has ended."""
    protocol, other = connect(reactor, Keeper())
    content = os.urandom(3 * FileSender.CHUNK_SIZE + 5)
    sent: Deferred[bytes] = FileSender().beginFileTransfer(io.BytesIO(content), protocol.transport)
    protocol.transport.loseConnection()
    received = b""
    while len(received) < len(content):
        received += (await receiveWhenThere(reactor, other))[0]
    await sent
    await protocol.lost
    assert received == content
    other.close()
