"""Waits that a freeze ends: who merely asks again gets the end of its time all the same."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from chanproxy.adopt import tracing
from chanproxy.adopt.cutshort import CutShort
from chanproxy.adopt.inspector import Inspector
from chanproxy.adopt.processors import X86, Arm, Processor
from chanproxy.adopt.subject import StillBusy
from chanproxy.interfaces import ChanproxyReactor
from tests.adopt.test_decode import arm, x86
from tests.shared.frozen import Subject, compiled, needsCgroup
from tests.shared.home import Home, home, stack
from tests.shared.sides import asynchronous, until

pytestmark = pytest.mark.punctual

__all__ = ["stack"]

LENGTH = 2.0
"""Seconds; those that are nearer than one are not slept for."""

LATE = 0.25
"""Seconds that a time may be late here."""

KINDS = ["epoll", "recv", "accept", "sigtimedwait"]


async def together(one: Callable[[str], Coroutine[Any, Any, None]], kinds: Sequence[str]) -> None:
    """The same for each kind, side by side."""
    await gatherResults([Deferred.fromCoroutine(one(kind)) for kind in kinds], consumeErrors=True)


class Waiting:
    """A program that waits in one way, in a container."""

    def __init__(self, stack: contextlib.ExitStack, reactor: ChanproxyReactor, kind: str) -> None:
        self.reactor, self.kind = reactor, kind
        if kind == "accept":
            self.server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            fd = self.server.fileno()
        else:
            self.ours, theirs = map(stack.enter_context, socket.socketpair())
            fd = theirs.fileno()
        argv = [compiled("shared/oversleeps.c"), kind, str(round(1000 * LENGTH))]
        self.subject = Subject(argv, fd)
        self.began = time.monotonic()
        self.it: Home = home(stack, reactor, _Ready(self.subject))
        # As it does when it suspends by itself.
        self.it.container.start()

    async def at(self, seconds: float) -> None:
        """Until so long after its beginning."""
        await deferLater(self.reactor, max(0, self.began + seconds - time.monotonic()))

    async def woken(self) -> None:
        """By hand."""
        await self.it.container.resume("test")

    def send(self, stack: contextlib.ExitStack) -> None:
        """What it waits for comes."""
        if self.kind == "accept":
            stack.enter_context(socket.create_connection(self.server.getsockname()))
        elif self.kind == "sigtimedwait":
            os.kill(self.subject.pid, signal.SIGUSR1)
        else:
            self.ours.send(b"x")

    async def heard(self) -> tuple[str, float]:
        """The next thing that it says, and the seconds that it says."""
        output = self.subject.process.stdout
        assert output is not None
        os.set_blocking(output.fileno(), False)
        found = b""

        def whole() -> bool:
            nonlocal found
            with contextlib.suppress(BlockingIOError):
                while not found.endswith(b"\n"):
                    found += os.read(output.fileno(), 1)
            return found.endswith(b"\n")

        await until(self.reactor, whole)
        what, at = found.decode().split()
        return what, int(at) / 1000


class _Ready(Subject):
    """With a first line as C{waits.c} has it."""

    def __init__(self, subject: Subject) -> None:
        self.__dict__ = subject.__dict__

    def line(self, patience: float = 10.0) -> str:
        """The first word."""
        return super().line(patience).split()[0]


class TestPrograms:
    """Real ones."""

    pytestmark = needsCgroup

    @asynchronous
    async def test_awakeAtTheEnd(
        self, reactor: ChanproxyReactor, stack: contextlib.ExitStack
    ) -> None:
        """Thawed in the middle and left awake: over in time."""

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            for at in (0.3, 0.6):
                await waiting.it.sleep()
                await waiting.at(at)
                await waiting.woken()
                await waiting.at(at + 0.1)
            what, at = await waiting.heard()
            assert what == "over"
            assert LENGTH <= at < LENGTH + LATE

        await together(one, [*KINDS, "epollrest"])

    @asynchronous
    async def test_stopsLate(
        self,
        reactor: ChanproxyReactor,
        stack: contextlib.ExitStack,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Asleep at its end, and on a machine that is too busy to have the thread stop in time."""

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            await waiting.it.sleep()
            await waiting.at(LENGTH - 0.2)
            # It is not even waited for.
            monkeypatch.setattr(tracing, "STOP_SECONDS", -1.0)
            monkeypatch.setattr(tracing, "_SPINS", 0)
            what, at = await waiting.heard()
            assert what == "over"
            assert LENGTH <= at < LENGTH + LATE

        await together(one, KINDS)

    @asynchronous
    async def test_asleepAtTheEnd(
        self, reactor: ChanproxyReactor, stack: contextlib.ExitStack
    ) -> None:
        """Frozen twice, and woken for its time."""

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            await waiting.it.sleep()
            await waiting.at(0.4)
            await waiting.woken()
            await waiting.at(0.5)
            await waiting.it.sleep()
            what, at = await waiting.heard()
            assert what == "over"
            assert LENGTH <= at < LENGTH + LATE
            await waiting.it.woken()
            assert waiting.it.reason.startswith("web/oversleeps[")
            assert waiting.it.reason.endswith(" timeout")

        await together(one, [*KINDS, "epollrest"])

    @asynchronous
    async def test_givenUp(
        self,
        reactor: ChanproxyReactor,
        stack: contextlib.ExitStack,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Suspends that end before anybody has looked, one after the other: each interrupts it."""

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            it = waiting.it
            await it.sleep()
            await waiting.at(0.3)
            await waiting.woken()

            freeze = it.container.freezer.freeze

            def givenUp() -> Deferred[None]:
                freezing = freeze()
                while not waiting.subject.cgroup.frozen():
                    pass
                # Where nothing else happens meanwhile: nobody has looked.
                it.container.suspension.resume("given up")
                return freezing

            with monkeypatch.context() as patch:
                patch.setattr(it.container.freezer, "freeze", givenUp)
                for number in range(4):
                    await waiting.at(0.5 + 0.2 * number)
                    await it.fails("given up")
            await waiting.at(1.4)
            await it.sleep()
            what, at = await waiting.heard()
            assert what == "over"
            assert LENGTH <= at < LENGTH + LATE

        for kind in KINDS:
            await one(kind)

    @pytest.mark.parametrize("touched", [False, True])
    @asynchronous
    async def test_lookGivenUp(
        self,
        reactor: ChanproxyReactor,
        stack: contextlib.ExitStack,
        monkeypatch: pytest.MonkeyPatch,
        touched: bool,
    ) -> None:
        """The same in the middle of a look, before or after it has stopped the thread."""

        def fails(self: Inspector, subject: object, tids: Sequence[int]) -> None:
            if touched:
                self._tracer.registers(tids)
            raise StillBusy("given up")

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            await waiting.it.sleep()
            await waiting.at(0.3)
            await waiting.woken()
            with monkeypatch.context() as patch:
                patch.setattr(Inspector, "_waitsOf", fails)
                for number in range(4):
                    await waiting.at(0.5 + 0.2 * number)
                    await waiting.it.fails("given up")
            await waiting.at(1.4)
            await waiting.it.sleep()
            what, at = await waiting.heard()
            assert what == "over"
            assert LENGTH <= at < LENGTH + LATE

        for kind in KINDS:
            await one(kind)

    @asynchronous
    async def test_eventInBetween(
        self, reactor: ChanproxyReactor, stack: contextlib.ExitStack
    ) -> None:
        """What came begins a new wait, which takes its whole time."""

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            await waiting.it.sleep()
            await waiting.at(0.4)
            await waiting.woken()
            await waiting.at(0.5)
            waiting.send(stack)
            what, came = await waiting.heard()
            assert what == "event"
            what, over = await waiting.heard()
            assert what == "over"
            # Both are told in milliseconds.
            assert LENGTH - 0.002 <= over - came < LENGTH + LATE

        await together(one, KINDS)

    @asynchronous
    async def test_eventAsleep(
        self, reactor: ChanproxyReactor, stack: contextlib.ExitStack
    ) -> None:
        """The same, when that is what woke it."""

        async def one(kind: str) -> None:
            waiting = Waiting(stack, reactor, kind)
            await waiting.it.sleep()
            await waiting.at(0.4)
            waiting.send(stack)
            what, came = await waiting.heard()
            assert what == "event"
            what, over = await waiting.heard()
            assert what == "over"
            # Both are told in milliseconds.
            assert LENGTH - 0.002 <= over - came < LENGTH + LATE

        await together(one, KINDS)

    @asynchronous
    async def test_leftAlone(
        self,
        reactor: ChanproxyReactor,
        stack: contextlib.ExitStack,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Who asks for the rest is not touched; who does not, is, and once."""
        touched: list[int] = []
        complete = CutShort._complete

        def noted(self: CutShort, tid: int, cut: Any) -> None:
            touched.append(tid)
            complete(self, tid, cut)

        monkeypatch.setattr(CutShort, "_complete", noted)
        for kind in ("epollrest", "epoll"):
            waiting = Waiting(stack, reactor, kind)
            await waiting.it.sleep()
            await waiting.at(0.4)
            await waiting.woken()
            assert (await waiting.heard())[0] == "over"
            await waiting.at(LENGTH + 0.2)
            assert touched == ([] if kind == "epollrest" else [waiting.subject.pid])


def _result(words: Sequence[int]) -> int:
    """As the program sees it, in either kind."""
    value = words[10] if len(words) == 27 else words[0]
    (signed,) = struct.unpack("q", struct.pack("Q", value))
    return int(signed)


@pytest.mark.parametrize(
    ("chip", "words", "name"),
    [
        (X86(), x86(-errno.EINTR, 232, 5, 6, 7, 8), "epoll_wait"),
        (X86(), x86(-errno.EINTR, 45, 5), "recvfrom"),
        (Arm(), arm(-errno.EINTR, 22, 0x1000), "epoll_pwait"),
        (Arm(), arm(-errno.EINTR, 137, 0x1000), "rt_sigtimedwait"),
    ],
)
def test_finished(chip: Processor, words: list[int], name: str) -> None:
    """Only the result changes, and only of that call, if that was interrupted."""
    where = 10 if isinstance(chip, X86) else 0
    for result in (0, -errno.EAGAIN):
        changed = chip.finished(words, name, result)
        assert changed is not None
        assert _result(changed) == result
        assert changed[where] == result & (2**64 - 1)
        assert [*changed[:where], *changed[where + 1 :]] == [*words[:where], *words[where + 1 :]]
    assert chip.finished(words, "accept", 0) is None
    # It has returned, or another thing than a freeze is about to begin it anew.
    for other in (0, 1, 2**64 - errno.EAGAIN, 2**64 - 512, 2**64 - 514):
        assert chip.finished([*words[:where], other, *words[where + 1 :]], name, 0) is None
    # Another kind of program.
    assert chip.finished(words[:17], name, 0) is None


def test_finishedNoCall() -> None:
    """A thread in no call, whatever its registers hold."""
    assert X86().finished(x86(-errno.EINTR, -1), "epoll_wait", 0) is None
