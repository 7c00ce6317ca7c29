"""The edges of packets, on the real kernel, through a channel proxy."""

from __future__ import annotations

import array
import contextlib
import os
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from chanproxy.channels.base import SO_SNDBUFFORCE
from chanproxy.channels.buffers import MESSAGE_BYTES, PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import descriptors
from tests.shared.sides import (
    Pair,
    asynchronous,
    receiveWhenThere,
    sendWhenRoom,
    turns,
    until,
)

SO_PASSRIGHTS = 83
"""C{asm-generic/socket.h}, Linux 6.16."""


def sameFile(one: int, other: int) -> bool:
    """Whether two descriptors name the same file."""
    return os.path.sameopenfile(one, other)


@asynchronous
async def test_sizes(reactor: ChanproxyReactor) -> None:
    """From 1 byte up to the limit, around each size at which something changes, in any order."""
    pair = Pair(reactor, buffer=PeekBuffer(messageBytes=1 << 20))
    pair.remote.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
    sizes = [1, 4095, 4096, 4097, 1, 0, 65536, 200 * 1024, 3, MESSAGE_BYTES, 500000, 1 << 20, 2]
    got: list[int] = []
    for size in sizes:
        await sendWhenRoom(reactor, pair.remote, os.urandom(1) * size)
        if size > 300000:
            # As large as the queue: nothing goes in behind it.
            while len(got) < sizes.index(size) + 1:
                got.append(len((await receiveWhenThere(reactor, pair.container))[0]))
    got.append(len((await receiveWhenThere(reactor, pair.container))[0]))
    assert got == sizes
    assert pair.counter.value() == len(sizes)
    await pair.close()


@asynchronous
async def test_limitReachedInABatch(reactor: ChanproxyReactor) -> None:
    """What comes before a packet that is too large arrives; nothing after it does."""
    pair = Pair(reactor, buffer=PeekBuffer(messageBytes=100))
    for size in (1, 100, 0, 101, 5):
        pair.remote.send(b"x" * size)
    await pair.proxy.whenEnded()
    assert pair.proxy.inbound.messages == 3
    assert [len(pair.container.recv(200)) for _ in range(4)] == [1, 100, 0, 0]
    await pair.close()


@asynchronous
async def test_bothCloseAtOnce(reactor: ChanproxyReactor) -> None:
    """Each end's last packets are lost only where nobody is left to receive them."""
    for _ in range(20):
        pair = Pair(reactor)
        pair.remote.send(b"in")
        pair.container.send(b"out")
        pair.remote.close()
        pair.container.close()
        await pair.proxy.whenEnded()
        await pair.close()


@asynchronous
async def test_thousandsPendingAtTheEnd(reactor: ChanproxyReactor) -> None:
    """Thousands of packets wait in the source when its peer closes: all arrive, in order."""
    pair = Pair(reactor)
    pair.remote.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)
    for number in range(5000):
        # Some of them empty, with a descriptor each now and then.
        data = b"" if number % 11 == 5 else b"%d" % number
        socket.send_fds(pair.remote, [data], [0] if number % 100 == 0 else [])
    pair.remote.close()
    await turns(reactor)
    assert not pair.proxy.whenEnded().called
    for number in range(5000):
        data = b"" if number % 11 == 5 else b"%d" % number
        got = await receiveWhenThere(reactor, pair.container)
        assert got == (data, int(number % 100 == 0))
    await pair.proxy.whenEnded()
    assert pair.container.recv(10) == b""
    await pair.close()


@asynchronous
async def test_containerNeverReads(reactor: ChanproxyReactor) -> None:
    """Its channel waits without an event, others go on; then it reads, and all is there."""
    pair, other = Pair(reactor), Pair(reactor)
    pair.remote.setblocking(False)
    sent, idle = 0, 0
    while idle < 5:
        try:
            pair.remote.send(b"%d" % sent)
            sent += 1
            idle = 0
        except BlockingIOError:
            await turns(reactor)
            idle += 1
    peeks = 0
    source = pair.transports[1]
    original = SeqpacketChannel.peek

    def counting(self: SeqpacketChannel, most: int = 64) -> object:
        nonlocal peeks
        peeks += self is source
        return original(self, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeqpacketChannel, "peek", counting)
        for number in range(50):
            other.remote.send(b"%d" % number)
            await turns(reactor)
            assert other.container.recv(10) == b"%d" % number
    assert peeks == 0
    for number in range(sent):
        assert await receiveWhenThere(reactor, pair.container) == (b"%d" % number, 0)
    await pair.close()
    await other.close()


@asynchronous
async def test_kindsOfDescriptors(reactor: ChanproxyReactor) -> None:
    """Sockets, pipes, memfds, eventfds, directories, and the very channel that carries them."""
    pair = Pair(reactor)
    reading, writing = os.pipe()
    one, other = socket.socketpair()
    own = pair.remote.fileno()
    given = [reading, writing, one.fileno(), os.memfd_create("m"), os.eventfd(0)]
    given += [os.open("/", os.O_RDONLY), own, pair.container.fileno()]
    socket.send_fds(pair.remote, [b"all"], given)
    socket.send_fds(pair.remote, [b"again"], [own])
    await until(reactor, lambda: pair.proxy.inbound.messages == 2)
    data, found, _, _ = socket.recv_fds(pair.container, 10, 20)
    assert data == b"all"
    assert len(found) == len(given)
    assert all(map(sameFile, found, given))
    data, again, _, _ = socket.recv_fds(pair.container, 10, 20)
    assert sameFile(again[0], own)
    for fd in [*found, *again, *given[:2], *given[3:6]]:
        os.close(fd)
    one.close()
    other.close()
    await pair.close()


@asynchronous
async def test_ownEndInsideItself(reactor: ChanproxyReactor) -> None:
    """A channel whose only other end waits inside it: closing ours ends it, and nothing stays."""
    pair = Pair(reactor)
    pair.container.setblocking(False)
    socket.send_fds(pair.remote, [b"me"], [pair.remote.fileno()])
    pair.remote.close()
    await until(reactor, lambda: pair.proxy.inbound.messages)
    _, found, _, _ = socket.recv_fds(pair.container, 10, 1)
    # Still alive, in the container's hands.
    os.write(found[0], b"back")
    await until(reactor, lambda: pair.proxy.inbound.messages == 2)
    assert pair.container.recv(10) == b"back"
    os.close(found[0])
    await pair.proxy.whenEnded()
    await pair.close()


@asynchronous
async def test_credentials(reactor: ChanproxyReactor) -> None:
    """Credentials that a sender attaches do not travel: the container sees ours, by the kernel."""
    pair = Pair(reactor)
    # An option that whoever gave us the socket may have set.
    pair.transports[1]._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    pair.container.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    mine = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
    credentials = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", 1, 12345, 54321))
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))
    pair.remote.sendmsg([b"plain"])
    pair.remote.sendmsg([b"as"], [credentials])
    pair.remote.sendmsg([b"both"], [credentials, rights])
    pair.remote.sendmsg([b""], [rights])
    await until(reactor, lambda: pair.proxy.inbound.messages == 4)
    for expected, count in ((b"plain", 0), (b"as", 0), (b"both", 2), (b"", 2)):
        data, ancillary, _, _ = pair.container.recvmsg(10, 1000)
        found = {kind: value for _, kind, value in ancillary}
        assert (data, found[socket.SCM_CREDENTIALS]) == (expected, mine)
        fds = array.array("i", found.get(socket.SCM_RIGHTS, b""))
        assert len(fds) == count
        for fd in fds:
            os.close(fd)
    await pair.close()


@asynchronous
async def test_refusedDescriptors(reactor: ChanproxyReactor) -> None:
    """A container that refuses descriptors ends the connection when some come, and not before."""
    pair = Pair(reactor)
    pair.container.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    pair.remote.send(b"plain")
    socket.send_fds(pair.remote, [b"with"], [0])
    await pair.proxy.whenEnded()
    assert pair.proxy.inbound.messages == 1
    assert pair.container.recv(10) == b"plain"
    assert pair.container.recv(10) == b""
    await pair.close()


@contextlib.contextmanager
def unprivileged(soft: int) -> Iterator[None]:
    """Without capabilities, and with a low limit."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes away root's capabilities for a moment")
@asynchronous
async def test_tooManyInFlight(reactor: ChanproxyReactor) -> None:
    """As many descriptors in flight as are allowed (ETOOMANYREFS): it waits, and goes on."""
    pair = Pair(reactor)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    soft = max(int(name) for name in os.listdir("/proc/self/fd")) + 50
    for _ in range(soft // 250 + 1):
        socket.send_fds(one, [b"x"], [0] * 253)
    socket.send_fds(pair.remote, [b"with"], [0])
    pair.remote.send(b"after")
    with unprivileged(soft):
        await turns(reactor, 50)
    assert pair.proxy.inbound.messages == 0
    assert pair.counter.value() == 2
    one.close()
    other.close()
    await until(reactor, lambda: pair.proxy.inbound.messages == 2)
    data, found, _, _ = socket.recv_fds(pair.container, 10, 1)
    assert (data, len(found)) == (b"with", 1)
    os.close(found[0])
    assert pair.container.recv(10) == b"after"
    assert pair.counter.value() == 2
    await pair.close()


@asynchronous
async def test_batchShrinks(reactor: ChanproxyReactor) -> None:
    """Near the limit a batch asks for no more descriptors than are left; all arrive."""
    pair = Pair(reactor)
    pair.remote.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
    # Pipes are closed at once, so that what is left is known.
    reading, writing = os.pipe()
    for number in range(100):
        socket.send_fds(pair.remote, [b"%d" % number], [reading] * 10)
    os.close(reading)
    os.close(writing)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors.used() + 35, hard))
    try:
        for number in range(100):
            assert await receiveWhenThere(reactor, pair.container) == (b"%d" % number, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pair.proxy.inbound.descriptors == 1000
    await pair.close()
