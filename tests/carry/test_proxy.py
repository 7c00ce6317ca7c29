"""ChannelProxy between real sockets: what goes in comes out, whatever happens at the edges."""

from __future__ import annotations

import array
import os
import resource
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.interfaces import ChanproxyReactor
from tests.shared.sides import Pair, asynchronous, turns, until


@asynchronous
async def test_containerPeerClosed(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy's own tests: 1: the container's peer closes, the remote's peer sees
    closed.
    """
    pair = Pair(reactor)
    pair.container.close()
    await pair.proxy.whenEnded()
    assert pair.remote.recv(1) == b""
    await pair.close()


@asynchronous
async def test_remotePeerClosed(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy's own tests: 2: the remote's peer closes, the container's peer sees
    closed.
    """
    pair = Pair(reactor)
    pair.remote.close()
    await pair.proxy.whenEnded()
    assert pair.container.recv(1) == b""
    assert pair.noticed == 1
    await pair.close()


@asynchronous
async def test_counter(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy's own tests: 3: zero, a message, positive, decrement, zero, a message,
    positive.
    """
    pair = Pair(reactor)
    assert pair.counter.value() == 0
    for _ in range(2):
        positive = pair.counter.whenPositive()
        pair.remote.send(b"x")
        await positive
        assert pair.counter.value() == 1
        zero = pair.counter.whenZero()
        os.eventfd_read(pair.counter.fileno())
        await zero
        assert pair.counter.value() == 0
        assert pair.container.recv(10) == b"x"
    await pair.close()


@asynchronous
async def test_threeMessages(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy's own tests: 4: three messages without a decrement, the counter reads 3.
    """
    pair = Pair(reactor)
    for _ in range(3):
        pair.remote.send(b"x")
    await until(reactor, lambda: pair.proxy.inbound.messages == 3)
    assert pair.counter.value() == 3
    await pair.close()


@asynchronous
async def test_outboundIsNotCounted(reactor: ChanproxyReactor) -> None:
    """starnix: channel proxy: 7: only messages into the container count."""
    pair = Pair(reactor)
    pair.container.send(b"x")
    await until(reactor, lambda: pair.proxy.outbound.messages)
    assert pair.remote.recv(10) == b"x"
    assert pair.counter.value() == 0
    await pair.close()


@asynchronous
async def test_emptyPackets(reactor: ChanproxyReactor) -> None:
    """Empty packets are packets, in the middle and right before the end."""
    pair = Pair(reactor)
    for data in (b"a", b"", b"b", b"", b""):
        pair.remote.send(data)
    pair.remote.close()
    await pair.proxy.whenEnded()
    assert pair.proxy.inbound.messages == 5
    assert [pair.container.recv(10) for _ in range(5)] == [b"a", b"", b"b", b"", b""]
    await pair.close()


@asynchronous
async def test_descriptors(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 6: each packet has its own descriptors; 253 are the most that the kernel
    carries.
    """
    pair = Pair(reactor)
    readEnd, writeEnd = os.pipe()
    for count in (0, 1, 253, 0, 2):
        socket.send_fds(pair.remote, [b"%d" % count], [writeEnd] * count)
    await until(reactor, lambda: pair.proxy.inbound.messages == 5)
    for count in (0, 1, 253, 0, 2):
        data, received, flags, _ = socket.recv_fds(pair.container, 10, 253)
        assert (data, len(received), flags & socket.MSG_CTRUNC) == (b"%d" % count, count, 0)
        for fd in received:
            assert os.path.sameopenfile(fd, writeEnd)
            os.close(fd)
    os.close(readEnd)
    os.close(writeEnd)
    await pair.close()


@asynchronous
async def test_drainOnClose(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 8: everything that was sent before the close arrives, though the sink
    was full for long.
    """
    pair = Pair(reactor)
    pair.remote.setblocking(False)
    sent = 0
    for _ in range(100):
        # The sink is full at some point, then the source; a turn carries what still fits.
        try:
            pair.remote.send(b"%06d" % sent)
            sent += 1
        except BlockingIOError:
            await turns(reactor)
    while True:
        try:
            pair.remote.send(b"%06d" % sent)
            sent += 1
        except BlockingIOError:
            before = pair.proxy.inbound.messages
            await turns(reactor)
            if pair.proxy.inbound.messages == before:
                break
    pair.remote.close()
    await turns(reactor, 20)
    pair.container.settimeout(0)
    received = 0
    while True:
        try:
            data = pair.container.recv(100)
        except BlockingIOError:
            await turns(reactor)
            continue
        if not data:
            break
        assert data == b"%06d" % received
        received += 1
    assert received == sent
    assert pair.counter.value() == sent
    await pair.close()


@asynchronous
async def test_fullBothWays(reactor: ChanproxyReactor) -> None:
    """Both directions full and a peer gone: what it sent still arrives at the other end."""
    pair = Pair(reactor)
    sent = {}
    for name, end in (("in", pair.remote), ("out", pair.container)):
        end.setblocking(False)
        sent[name] = 0
        idle = 0
        while idle < 20:
            try:
                end.send(b"%06d" % sent[name])
                sent[name] += 1
                idle = 0
            except BlockingIOError:
                idle += 1
                await turns(reactor, 1)
    pair.remote.close()
    await turns(reactor, 20)
    received = 0
    while received < sent["in"]:
        try:
            data = pair.container.recv(100)
        except BlockingIOError:
            await turns(reactor)
            continue
        except ConnectionResetError:
            continue
        assert data == b"%06d" % received
        received += 1
    await pair.proxy.whenEnded()
    await pair.close()


@asynchronous
async def test_resetDoesNotHideData(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 8: a peer that closes with data of ours unread resets; what it sent
    before still arrives.
    """
    pair = Pair(reactor)
    pair.container.send(b"never read")
    await until(reactor, lambda: pair.proxy.outbound.messages)
    for number in range(50):
        pair.remote.send(b"%d" % number)
    pair.remote.close()
    await pair.proxy.whenEnded()
    assert [pair.container.recv(10) for _ in range(50)] == [b"%d" % n for n in range(50)]
    assert pair.container.recv(10) == b""
    await pair.close()


@pytest.mark.parametrize("direction", ["in", "out"])
@asynchronous
async def test_halfClose(reactor: ChanproxyReactor, direction: str) -> None:
    """
    starnix: channel proxy: 10: one direction ends, the other goes on, until that ends as well.
    """
    pair = Pair(reactor)
    closing, other = pair.remote, pair.container
    if direction == "out":
        closing, other = other, closing
    closing.send(b"last")
    closing.shutdown(socket.SHUT_WR)
    await turns(reactor, 10)
    assert (other.recv(10), other.recv(10)) == (b"last", b"")
    for number in range(3):
        other.send(b"%d" % number)
        await turns(reactor, 10)
        assert closing.recv(10) == b"%d" % number
    other.shutdown(socket.SHUT_WR)
    await pair.proxy.whenEnded()
    assert closing.recv(10) == b""
    await pair.close()


@asynchronous
async def test_halfClosedThenGone(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 5: a peer that closed half, then the rest, ends the proxy though nothing
    is sent to it.
    """
    pair = Pair(reactor)
    pair.remote.shutdown(socket.SHUT_WR)
    await turns(reactor, 10)
    pair.remote.close()
    await pair.proxy.whenEnded()
    await pair.close()


@asynchronous
async def test_tooLarge(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 4: a packet over the limit closes this channel, after what came before
    it.
    """
    pair = Pair(reactor, buffer=PeekBuffer(messageBytes=1000))
    other = Pair(reactor)
    pair.remote.send(b"x" * 1000)
    pair.remote.send(b"x" * 1001)
    await pair.proxy.whenEnded()
    assert len(pair.container.recv(2000)) == 1000
    assert pair.container.recv(10) == b""
    other.remote.send(b"y")
    await until(reactor, lambda: other.proxy.inbound.messages)
    await pair.close()
    await other.close()


@asynchronous
async def test_tooManyDescriptors(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 4: a packet with more descriptors than the limit closes this channel.
    """
    pair = Pair(reactor, buffer=PeekBuffer(messageDescriptors=1))
    socket.send_fds(pair.remote, [b"x"], [0])
    socket.send_fds(pair.remote, [b"x"], [0, 1])
    await pair.proxy.whenEnded()
    assert pair.proxy.inbound.messages == 1
    await pair.close()


@asynchronous
async def test_smallSinkBuffer(reactor: ChanproxyReactor) -> None:
    """A packet that its sender could send, the proxy can send as well."""
    pair = Pair(reactor, buffer=PeekBuffer(messageBytes=1 << 20))
    pair.transports[0]._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair.remote.setsockopt(socket.SOL_SOCKET, 32, 400000)
    pair.remote.send(b"x" * 200000)
    await until(reactor, lambda: pair.proxy.inbound.messages)
    assert len(pair.container.recv(1 << 20)) == 200000
    await pair.close()


@asynchronous
async def test_outOfDescriptors(reactor: ChanproxyReactor) -> None:
    """Out of descriptors the message waits; the others go on; then it arrives complete."""
    pair, other = Pair(reactor), Pair(reactor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fds = [0, 1, 2, 0, 1]
    # Two are left below the limit: two of five arrive.
    free = set(range(highest)) - {int(name) for name in os.listdir("/proc/self/fd")}
    fill = [os.dup(0) for _ in free]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max([highest, *fill]) + 3, hard))
    try:
        socket.send_fds(pair.remote, [b"five"], fds)
        other.remote.send(b"goes on")
        await until(reactor, lambda: other.proxy.inbound.messages)
        assert pair.proxy.inbound.messages == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fill:
            os.close(fd)
    await until(reactor, lambda: pair.proxy.inbound.messages)
    assert pair.counter.value() == 1
    data, received, _, _ = socket.recv_fds(pair.container, 10, 10)
    assert (data, len(received)) == (b"five", 5)
    for fd in received:
        os.close(fd)
    await pair.close()
    await other.close()


@asynchronous
async def test_countOverflow(reactor: ChanproxyReactor) -> None:
    """
    starnix: channel proxy: 7: a counter that cannot be added to ends this proxy, and what was not
    sent is not sent.
    """
    pair = Pair(reactor)
    pair.counter.add(2**64 - 2)
    pair.remote.send(b"x")
    await pair.proxy.whenEnded()
    assert pair.container.recv(1) == b""
    await pair.close()


@asynchronous
async def test_countedOnceWhileWaiting(reactor: ChanproxyReactor) -> None:
    """starnix: channel proxy: 7: what waits because the sink is full is counted, and once."""
    pair = Pair(reactor)
    sent = 0
    pair.remote.setblocking(False)
    while pair.proxy.inbound.messages == sent:
        pair.remote.send(b"x" * 50000)
        sent += 1
        await turns(reactor, 10)
    assert pair.counter.value() == sent
    await turns(reactor, 20)
    assert pair.counter.value() == sent
    await pair.close()


@asynchronous
async def test_flood(reactor: ChanproxyReactor) -> None:
    """starnix: channel proxy: 2: a channel that is always readable does not starve another one."""
    flooding, other = Pair(reactor), Pair(reactor)
    flooding.remote.setblocking(False)
    flooding.container.setblocking(False)
    stop: Deferred[None] = Deferred()
    done: list[bool] = []

    def flood() -> None:
        for end, act in ((flooding.remote, lambda e: e.send(b"x")), (flooding.container, _read)):
            for _ in range(500):
                try:
                    act(end)
                except BlockingIOError:
                    break
        if not done:
            reactor.callLater(0, flood)
        else:
            stop.callback(None)

    def _read(end: socket.socket) -> None:
        end.recv(10)

    flood()
    for _ in range(20):
        other.remote.send(b"y")
        await turns(reactor, 3)
        assert other.container.recv(10) == b"y"
    done.append(True)
    await stop
    await flooding.close()
    await other.close()


packets = st.lists(
    st.tuples(st.sampled_from(["in", "out"]), st.binary(max_size=40), st.integers(0, 3)),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(packets, st.booleans())
@asynchronous
async def test_sequences(
    reactor: ChanproxyReactor, sequence: list[tuple[str, bytes, int]], close: bool
) -> None:
    """
    starnix: channel proxy: 6: any packets with any descriptors, both ways: the same come out, in
    order.
    """
    pair = Pair(reactor)
    ends = {"in": (pair.remote, pair.container), "out": (pair.container, pair.remote)}
    for direction, data, count in sequence:
        rights = array.array("i", [0] * count)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if count else []
        ends[direction][0].sendmsg([data], ancillary)
    inbound = [entry for entry in sequence if entry[0] == "in"]
    onlyInbound = len(inbound) == len(sequence)
    if close and onlyInbound:
        pair.remote.close()
    await until(
        reactor,
        lambda: pair.proxy.inbound.messages + pair.proxy.outbound.messages == len(sequence),
    )
    assert pair.counter.value() == len(inbound)
    for direction, data, count in sequence:
        got, received, _, _ = socket.recv_fds(ends[direction][1], 100, 10)
        for fd in received:
            os.close(fd)
        assert (got, len(received)) == (data, count)
    await pair.close()


@asynchronous
async def test_idleCostsNothing(reactor: ChanproxyReactor) -> None:
    """starnix: channel proxy: 5: an idle channel has no delayed calls and no event."""
    pair = Pair(reactor)
    await turns(reactor)
    before = len(reactor.getDelayedCalls())
    await deferLater(reactor, 0.01)
    assert len(reactor.getDelayedCalls()) == before
    await pair.close()
