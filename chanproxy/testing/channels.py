"""
For tests: the suite for all kinds of channels, and a channel in memory.

A new kind is right when a subclass of L{ChannelConformance} passes.  Needs pytest-twisted and
hypothesis.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, ParamSpec, cast

import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from chanproxy.interfaces import ChannelClosed, IChannel
from chanproxy.kernel.closing import closer
from chanproxy.testing.memory import MemoryChannel as MemoryChannel
from chanproxy.testing.peers import ChannelKind as ChannelKind
from chanproxy.testing.peers import Ends, carry, openFiles, turns, until
from chanproxy.testing.peers import MemoryPeer as MemoryPeer
from chanproxy.testing.peers import Peer as Peer
from chanproxy.testing.peers import SocketPeer as SocketPeer
from chanproxy.testing.sequences import STEPS, Model

_P = ParamSpec("_P")


def _asynchronous(test: Callable[_P, Awaitable[None]]) -> Callable[_P, Deferred[None]]:
    return cast(Callable[_P, Deferred[None]], pytest_twisted.ensureDeferred(test))


def _sequences() -> Callable[..., object]:
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=STEPS, last=st.sampled_from(["close", "finish"]), which=st.booleans())
    @pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no annotations
    async def test_sequences(
        self: object, kind: ChannelKind, steps: list[tuple[Any, ...]], last: str, which: bool
    ) -> None:
        """
        Between two channels of the kind, whatever both peers do: what comes out is what a plain
        queue would give.
        """
        with openFiles() as files:
            await Model(kind, files).run(steps, last, which)

    return cast(Callable[..., object], test_sequences)


class ChannelConformance:
    """
    What every L{IChannel} must do.  A subclass for pytest has a fixture C{kind} that gives a
    L{ChannelKind}; pytest-twisted has to be loaded.
    """

    test_sequences: ClassVar[Callable[..., object]]

    def __init_subclass__(cls) -> None:
        # One each: pytest-twisted wraps what Hypothesis calls, again for each class that has it.
        cls.test_sequences = _sequences()

    @_asynchronous
    async def test_interface(self, kind: ChannelKind) -> None:
        """It provides the interface, and closes once; then it does nothing, which is no error."""
        ends = Ends(kind)
        channel = ends.channel
        assert verifyObject(IChannel, channel)
        assert channel.family in ("packets", "bytes")
        ends.peer.send(b"unread")
        await ends.peeked(1)
        channel.close()
        assert ends.listener.lost == 0
        channel.waitReadable(True)
        channel.waitWritable()
        channel.waitGone()
        for end in (channel.finishSending, channel.finishReceiving, channel.close, channel.abort):
            end()
        assert len(channel.peek()) == 0
        channel.take(0)
        assert (channel.fileno(), channel.peerGone(), channel.wasReset()) == (-1, True, False)
        await ends.close()

    @_asynchronous
    async def test_peekLeavesIt(self, kind: ChannelKind) -> None:
        """Nothing there is no end; what is peeked is still there; what is taken is not."""
        ends = Ends(kind)
        batch = ends.channel.peek()
        assert (len(batch), batch.ended, batch.messagesIn(0)) == (0, False, 0)
        batch.close()
        ends.peer.send(b"abc")
        size = 1 if ends.channel.family == "packets" else 3
        for _ in range(3):
            assert await ends.peeked(size) == [(b"abc", 0)]
        ends.channel.take(0)
        assert await ends.peeked(size) == [(b"abc", 0)]
        batch = ends.channel.peek()
        assert (batch.messagesIn(size), batch.descriptorsIn(size)) == (1, 0)
        ends.channel.take(size)
        assert len(ends.channel.peek()) == 0
        await ends.close()

    @_asynchronous
    async def test_takeSome(self, kind: ChannelKind) -> None:
        """What was not taken is shown again, from its beginning."""
        ends = Ends(kind)
        for data in (b"a", b"b", b"c", b"d"):
            ends.peer.send(data)
        packets = ends.channel.family == "packets"
        assert len(await ends.peeked(4)) == (4 if packets else 1)
        ends.channel.take(1)
        rest = [(b"b", 0), (b"c", 0), (b"d", 0)] if packets else [(b"bcd", 0)]
        assert await ends.peeked(3) == rest
        ends.channel.take(2)
        assert await ends.peeked(1) == [(b"d", 0)]
        await ends.close()

    @_asynchronous
    async def test_carry(self, kind: ChannelKind) -> None:
        """Another channel of the kind sends what was peeked, as it came."""
        source, sink = Ends(kind), Ends(kind)
        packets = source.channel.family == "packets"
        for data in (b"one", b"two"):
            source.peer.send(data)
        await source.peeked(2 if packets else 6)
        batch = source.channel.peek()
        assert sink.channel.send(batch) == len(batch)
        source.channel.take(len(batch))
        expected = [b"one", b"two"] if packets else [b"onetwo"]
        assert [(await sink.received(100))[0] for _ in expected] == expected
        assert len(source.channel.peek()) == 0
        await source.close()
        await sink.close()

    @_asynchronous
    async def test_descriptors(self, kind: ChannelKind) -> None:
        """Each goes with its own message, or byte; the duplicates of a peek are the batch's."""
        source, sink = Ends(kind), Ends(kind)
        if source.channel.carriesDescriptors:
            # It has descriptors of its own, from the first time that it is needed.
            closer.prepare()
            with openFiles() as files:
                before = len(os.listdir("/proc/self/fd"))
                source.peer.send(b"plain")
                source.peer.send(b"with", [files.all[2], files.all[0]])
                source.peer.send(b"!")
                left = [3 if source.channel.family == "packets" else 10]

                def moved() -> bool:
                    left[0] -= carry(source, sink)
                    return left[0] == 0

                await until(kind.reactor, moved)
                # They are in flight now, and nowhere in this process.
                if not isinstance(source.channel, MemoryChannel):
                    await until(kind.reactor, lambda: len(os.listdir("/proc/self/fd")) == before)
                if kind.exactDescriptors:
                    got = [await sink.received(size) for size in (5, 4, 1)]
                    assert [data for data, _ in got] == [b"plain", b"with", b"!"]
                    assert [files.names(fds) for _, fds in got] == [[], [2, 0], []]
                else:
                    got = [await sink.received(1) for _ in range(10)]
                    assert b"".join(data for data, _ in got) == b"plainwith!"
                    assert [name for _, fds in got for name in files.names(fds)] == [2, 0]
        await source.close()
        await sink.close()

    @_asynchronous
    async def test_emptyPackets(self, kind: ChannelKind) -> None:
        """An empty packet is a packet, also if it was peeked before, and right before the end."""
        ends = Ends(kind)
        if ends.channel.family == "packets":
            for data in (b"a", b"", b"b", b"", b""):
                ends.peer.send(data)
            for take in (0, 1, 1, 0):
                await ends.peeked(1)
                ends.channel.take(take)
            ends.peer.close()
            rest: list[bytes] = []
            while batch := ends.channel.peek():
                rest += [bytes(data) for data, _ in batch.messages()]
                ends.channel.take(len(batch))
            assert rest == [b"b", b"", b""]
            assert batch.ended
        await ends.close()

    @_asynchronous
    async def test_full(self, kind: ChannelKind) -> None:
        """A full sink takes what fits; the rest is still in the source; room is told once."""
        source, sink = Ends(kind), Ends(kind)
        sent = received = b""
        idle = 0
        while idle < 5:
            data = b"%08d" % len(sent) * 500
            accepted = source.peer.send(data)
            sent += data[: accepted or 0]
            await turns(kind.reactor, 1)
            idle = 0 if carry(source, sink) or accepted else idle + 1
        assert sink.listener.writable == 0
        sink.channel.waitWritable()
        await turns(kind.reactor)
        assert sink.listener.writable == 0
        while len(received) < len(sent):
            received += (await sink.received(1 << 20))[0]
            carry(source, sink)
        assert received == sent
        await until(kind.reactor, lambda: sink.listener.writable)
        await turns(kind.reactor)
        assert sink.listener.writable == 1
        await source.close()
        await sink.close()

    @_asynchronous
    async def test_readableEvents(self, kind: ChannelKind) -> None:
        """They repeat while something is readable, and stop when they are not wanted."""
        ends = Ends(kind)
        ends.channel.waitReadable(True)
        await turns(kind.reactor)
        assert ends.listener.readable == 0
        ends.peer.send(b"a")
        await until(kind.reactor, lambda: ends.listener.readable > 2)
        ends.channel.waitReadable(False)
        before = ends.listener.readable
        await turns(kind.reactor)
        assert ends.listener.readable == before
        ends.channel.waitReadable(True)
        await until(kind.reactor, lambda: ends.listener.readable > before)
        await ends.close()

    @_asynchronous
    async def test_halfClose(self, kind: ChannelKind) -> None:
        """What came before the end is shown before it; the other direction goes on."""
        source, ends = Ends(kind), Ends(kind)
        ends.peer.send(b"last")
        ends.peer.finishSending()
        size = 1 if ends.channel.family == "packets" else 4
        assert await ends.peeked(size) == [(b"last", 0)]
        ends.channel.take(size)
        await ends.ended()
        assert not ends.channel.peerGone()
        source.peer.send(b"back")
        await source.peeked(size)
        assert ends.channel.send(source.channel.peek()) == size
        source.channel.take(size)
        assert await ends.received(10) == (b"back", [])
        ends.channel.finishSending()
        ends.channel.finishSending()
        await ends.peerEnded()
        await source.close()
        await ends.close()

    @_asynchronous
    async def test_peerCloses(self, kind: ChannelKind) -> None:
        """What it sent is shown first; then it is gone, and sending says so."""
        source, ends = Ends(kind), Ends(kind)
        ends.peer.send(b"last")
        size = 1 if ends.channel.family == "packets" else 4
        await ends.peeked(size)
        ends.channel.waitGone()
        await turns(kind.reactor)
        assert ends.listener.readable == 0
        ends.peer.close()
        if kind.noticesClose:
            await until(kind.reactor, lambda: ends.listener.readable == 1)
            assert ends.channel.peerGone()
            await turns(kind.reactor)
            assert ends.listener.readable == 1
        assert await ends.peeked(size) == [(b"last", 0)]
        ends.channel.take(size)
        await ends.ended()
        closed = False
        while not closed:
            source.peer.send(b"back")
            await source.peeked(size)
            try:
                source.channel.take(ends.channel.send(source.channel.peek()))
            except ChannelClosed:
                closed = True
            assert closed or not kind.noticesClose
            await turns(kind.reactor, 1)
        await source.close()
        await ends.close()

    @_asynchronous
    async def test_closing(self, kind: ChannelKind) -> None:
        """What was sent before a close arrives, then the end."""
        source, sink = Ends(kind), Ends(kind)
        source.peer.send(b"last")
        await source.peeked(1)
        carry(source, sink)
        sink.channel.close()
        assert (await sink.received(10))[0] == b"last"
        await sink.peerEnded()
        await source.close()
        await sink.close()
