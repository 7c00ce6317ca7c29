"""Many channels: none starves, and those that are idle cost nothing but memory."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
from typing import Any, cast

import pytest
from twisted.internet.task import deferLater

from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.loop import TURN
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.channels.streams import UnixStreamChannel
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import descriptors
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.peers import attach
from chanproxy.wake.counter import MessageCounter
from tests.shared.sides import asynchronous, turns, until

IDLE_CHANNELS = 5000
QUIET_SECONDS = 0.5


class Flood:
    """
    A channel whose source is never empty and whose sink is never full.

    @ivar batches: how many it has carried.
    """

    def __init__(
        self, reactor: ChanproxyReactor, buffer: PeekBuffer, counter: MessageCounter, kind: int
    ) -> None:
        flood = self
        make = SeqpacketChannel if kind == socket.SOCK_SEQPACKET else UnixStreamChannel

        class Counting(make):  # type: ignore[valid-type, misc]  # one of two classes
            def take(self, count: int) -> None:
                super().take(count)
                if not flood.over:
                    flood.carried()

        self.batches = 0
        self.over = False
        self.container, inner = socket.socketpair(socket.AF_UNIX, kind)
        self.remote, outer = socket.socketpair(socket.AF_UNIX, kind)
        sides = ContainerProtocol(), RemoteProtocol()
        attach(make(reactor, inner, buffer), sides[0])
        attach(Counting(reactor, outer, buffer), sides[1])
        self.fill()
        self.proxy = ChannelProxy(*sides, counter, "flood", Explicit(Ledger()))

    def carried(self) -> None:
        """A batch went through: more comes, and nothing stays."""
        self.batches += 1
        with contextlib.suppress(BlockingIOError):
            while self.container.recv(1 << 20, socket.MSG_DONTWAIT):
                pass
        self.fill()

    def fill(self) -> None:
        """As much as its socket takes."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.remote.send(b"x" * 1000, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """End it."""
        self.over = True
        self.remote.close()
        self.container.close()
        self.proxy.stop()


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_STREAM])
@pytest.mark.parametrize("floods", [1, 100])
@asynchronous
async def test_fairness(reactor: ChanproxyReactor, kind: int, floods: int) -> None:
    """One message among channels that never rest: each of them has two turns before it, at most."""
    buffer, counter = PeekBuffer(), MessageCounter(reactor)
    flooding = [Flood(reactor, buffer, counter, kind) for _ in range(floods)]
    container, inner = socket.socketpair(socket.AF_UNIX, kind)
    remote, outer = socket.socketpair(socket.AF_UNIX, kind)
    make = SeqpacketChannel if kind == socket.SOCK_SEQPACKET else UnixStreamChannel
    sides = ContainerProtocol(), RemoteProtocol()
    attach(make(reactor, inner, buffer), sides[0])
    attach(make(reactor, outer, buffer), sides[1])
    quiet = ChannelProxy(*sides, counter, "quiet", Explicit(Ledger()))
    container.setblocking(False)
    for _ in range(20):
        before = sum(flood.batches for flood in flooding)
        remote.send(b"!")
        while True:
            with contextlib.suppress(BlockingIOError):
                assert container.recv(10) == b"!"
                break
            # No time passes but by what is carried.
            await turns(reactor, 1)
        between = sum(flood.batches for flood in flooding) - before
        assert between <= 2 * TURN * floods
    # And the floods among themselves.
    carried = sorted(flood.batches for flood in flooding)
    assert carried[0] >= TURN
    assert carried[-1] <= 2 * carried[0] + 2 * TURN
    for flood in flooding:
        flood.close()
    quiet.stop()
    container.close()
    remote.close()
    counter.close()
    await turns(reactor)


KEEPER = """
import resource, socket
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
ours = socket.socket(fileno=0)
while socket.recv_fds(ours, 1, 2)[0]:
    ours.send(b".")
"""


class Keeper:
    """Another process, which keeps descriptors open."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-c", KEEPER], stdin=theirs.fileno())

    def keep(self, *ends: socket.socket) -> None:
        """They are closed here."""
        socket.send_fds(self._ours, [b"."], [end.fileno() for end in ends])
        assert self._ours.recv(1) == b"."
        for end in ends:
            end.close()

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.kill()
        self._process.wait()


@asynchronous
async def test_idleChannels(reactor: ChanproxyReactor) -> None:
    """Thousands of them: no wake-up, no timer, no processor time; and the last one works."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Two sockets and a counter of ours; the peers are another process's.
    wanted = max(limits[1], descriptors.used() + 4 * IDLE_CHANNELS)
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    descriptors.raiseLimit()
    count = min(IDLE_CHANNELS, (descriptors.left() - 100) // 3)
    assert count == IDLE_CHANNELS or not os.environ.get("CI"), f"only {count} descriptors"
    container = Container(
        reactor,
        "many",
        FakeFreezer("many"),
        "manual",
        Bounds(linger=3600),
        around=Surroundings(recorded=False),
    )
    buffer = PeekBuffer()
    peers: list[tuple[socket.socket, socket.socket]] = []
    keeper = Keeper()
    try:
        for number in range(count):
            inside, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            outside, outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sides = ContainerProtocol(), RemoteProtocol()
            attach(SeqpacketChannel(reactor, inner, buffer), sides[0])
            attach(SeqpacketChannel(reactor, outer, buffer), sides[1])
            container.channels.proxy(*sides, f"many#{number}")
            peers.append((inside, outside))
            if number + 1 < count:
                keeper.keep(*peers.pop())
        await turns(reactor, 20)
        calls = len(cast(Any, reactor).getDelayedCalls())
        before = resource.getrusage(resource.RUSAGE_THREAD)
        await deferLater(reactor, QUIET_SECONDS)
        after = resource.getrusage(resource.RUSAGE_THREAD)
        # Our own timer wakes it once.
        assert after.ru_nvcsw - before.ru_nvcsw <= 5
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.05
        assert len(cast(Any, reactor).getDelayedCalls()) == calls
        inside, outside = peers[-1]
        inside.setblocking(False)
        outside.send(b"awake")
        got: list[bytes] = []

        def received() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(inside.recv(10))
            return bool(got)

        await until(reactor, received)
        assert got == [b"awake"]
    finally:
        for pair in peers:
            for end in pair:
                end.close()
        keeper.close()
        container.stop()
        await turns(reactor, 20)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
