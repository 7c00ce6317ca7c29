"""
The trap, on purpose: a program is frozen at random moments within 100 µs of a message's arrival.

Nothing is readable any more, the message is in the program's hand, and it still shows the call that
waits.  Each answer has to come at once: the look refuses, or a source is signalled.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from chanproxy.adopt import decode, processors
from chanproxy.adopt.settings import Adoption
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.outcomes import Resumed
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.marks import mark
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup
from tests.shared.frozen import compiled, needsCgroup
from tests.shared.sides import asynchronous, until

pytestmark = needsCgroup

CYCLES = int(os.environ.get("CHANPROXY_TEST_CYCLES", "300"))
"""Messages to each program; C{make test-long} makes 2,000."""

WITHIN = 100e-6
"""Seconds between a message's arrival and the freeze, at the most."""

LOST = 0.05
"""Seconds asleep after which no source is going to wake it."""


class _Moment(CgroupFreezer):
    """
    Freezes at a moment close to something else.

    @ivar delay: seconds from that to the freeze; less than zero: the freeze comes first.
    """

    def __init__(self, path: str, reactor: ChanproxyReactor) -> None:
        super().__init__(path, reactor)
        self._freeze = os.open(os.path.join(path, "cgroup.freeze"), os.O_WRONLY)
        self.happen: Callable[[], int] = lambda: 0
        self.delay = 0.0

    def freeze(self) -> Deferred[None]:
        """See L{IFreezer.freeze}."""
        # By a descriptor that is open already: all else would take longer than the moment is.
        # Without it this freeze would be the pause of somebody else.
        mark(self._freeze)
        steps: list[Callable[[], int]] = [self.happen, self._freezeNow]
        first, second = steps if self.delay >= 0 else steps[::-1]
        end = time.perf_counter() + abs(self.delay)
        first()
        while time.perf_counter() < end:
            pass
        second()
        return super().freeze()

    def _freezeNow(self) -> int:
        return os.pwrite(self._freeze, b"1", 0)

    def close(self) -> None:
        """Give back the descriptor."""
        os.close(self._freeze)


class _Trap:
    """
    A program that answers, in a container that is suspended just when it is asked.

    @ivar outcomes: how often a look refused, and how often a source woke it.
    @ivar lost: answers that came only with the next wake.
    """

    def __init__(self, reactor: ChanproxyReactor, kind: str, seed: int) -> None:
        self._reactor = reactor
        self._random = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.lost = 0
        self._stack = contextlib.ExitStack()
        cgroup = self._stack.enter_context(TemporaryCgroup())
        ours, theirs = socket.socketpair()
        self.socket = self._stack.enter_context(ours)
        ours.setblocking(False)
        with theirs:
            cgroup.spawn([compiled("container/receives.c"), kind], theirs.fileno())
        self.freezer = _Moment(cgroup.path, reactor)
        self.container = Container(
            reactor,
            kind,
            self.freezer,
            mode="manual",
            around=Surroundings(recorded=False),
            bounds=Bounds(signalInterval=0),
            adoption=Adoption(),
        )

    async def cycle(self, index: int) -> None:
        """One message, and its answer."""
        byte = bytes([index % 256])
        self.freezer.happen = lambda: self.socket.send(byte)
        # More often close to it than not.
        self.freezer.delay = self._random.uniform(-0.5, 1) ** 3 * WITHIN
        ended: list[object] = []
        # Whatever it does at this moment: a look before would often see that it has not finished.
        self.container.suspension.suspend().addBoth(ended.append)
        await until(self._reactor, lambda: self._answered() or self._asleep)
        deadline = self._reactor.seconds() + LOST
        while self._asleep and not self._answered() and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.0002)
        if self._asleep and not self._answered():
            self.lost += 1
            await self.container.resume("lost")
        await until(self._reactor, self._answered)
        assert self.socket.recv(2) == byte
        await until(self._reactor, lambda: ended or self._asleep)
        # Answered before the freeze, it has reason to sleep.
        await self.container.resume("answered before")
        await until(self._reactor, lambda: ended)
        result = getattr(ended[0], "value", ended[0])
        how = result.reason if isinstance(result, Resumed) else "refused"
        self.outcomes[how.partition(" ")[0]] += 1

    def _answered(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    @property
    def _asleep(self) -> bool:
        return self.container.suspension.state == "asleep"

    def close(self) -> None:
        """End all of it."""
        self.container.stop()
        self.freezer.close()
        self._stack.close()


KINDS = ["read", "epoll", "threads"]


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_trap(reactor: ChanproxyReactor, kind: str) -> None:
    """However close the freeze: each answer comes at once."""
    trap = _Trap(reactor, kind, 1)
    try:
        for index in range(CYCLES):
            await trap.cycle(index)
        assert trap.lost == 0
        print(kind, dict(trap.outcomes))
        # The moments were near enough.
        assert trap.outcomes["refused"]
    finally:
        trap.close()


class _Anything:
    def __contains__(self, item: object) -> bool:
        return True


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_withoutTheRegister(
    reactor: ChanproxyReactor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The same loop without the looks at the result and at the futex's word loses answers."""
    monkeypatch.setattr(processors, "INTERRUPTED", _Anything())
    monkeypatch.setattr(decode, "_unchanged", lambda *_: None)
    trap = _Trap(reactor, kind, 2)
    try:
        for index in range(20 * CYCLES):
            await trap.cycle(index)
            if trap.lost:
                break
        print(kind, dict(trap.outcomes))
        assert trap.lost
    finally:
        trap.close()
