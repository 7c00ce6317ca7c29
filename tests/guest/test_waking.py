"""Waking calls and waking streams: arm, mark handled, wait; for asyncio and for Deferreds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue

from chanproxy.guest import OwnedCounter
from chanproxy.guest._counters import Counter
from chanproxy.guest.waking import WakingCalls
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.client import ManagerClient
from chanproxy.manager.errors import VarlinkError
from chanproxy.manager.guests import WakingDeferreds, createProxy
from tests.shared.managing import stationed
from tests.shared.sides import asynchronous, until


class Log:
    """A counter, and what was done in which order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def handled(self, count: int = 1) -> None:
        self.events.append(f"handled {count}")


class Messages:
    """What a test sends, and a program waits for."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        self._log.events.append("armed")
        return await self.queue.get()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        message = await self.next()
        if message == "end":
            raise StopAsyncIteration
        return message


def test_wakingCall() -> None:
    """starnix: container side: waking proxy / waking stream: arm, mark handled, then wait."""

    async def main() -> None:
        log = Log()
        messages = Messages(log)
        with WakingCalls(log) as waking:
            messages.queue.put_nowait("one")
            assert await waking.call(messages.next) == "one"
            assert log.events == ["armed"]
            waiting = asyncio.ensure_future(waking.call(messages.next))
            for _ in range(4):
                await asyncio.sleep(0)
            # Before anything arrives, and in this order.
            assert log.events == ["armed", "armed", "handled 1"]
            messages.queue.put_nowait("two")
            assert await waiting == "two"
            assert log.events == ["armed", "armed", "handled 1"]
        assert log.events == ["armed", "armed", "handled 1", "handled 1"]

    asyncio.run(main())


def test_wakingStream() -> None:
    """starnix: container side: waking proxy / waking stream: each item with the next; from 1."""

    async def main() -> None:
        log = Log()
        messages = Messages(log)
        for message in ("one", "two", "end"):
            messages.queue.put_nowait(message)
        with WakingCalls(log, initial=1) as waking:
            async for message in waking.stream(messages):
                log.events.append(message)
        assert log.events == [
            *("armed", "handled 1", "one"),
            *("armed", "handled 1", "two"),
            *("armed", "handled 1"),
        ]

    asyncio.run(main())


def test_wakingInterrupted() -> None:
    """An exception in the work, or a cancelled wait, leaves nothing counted and nothing armed."""

    async def main() -> None:
        log = Log()
        messages = Messages(log)
        messages.queue.put_nowait("one")
        with contextlib.suppress(ZeroDivisionError), WakingCalls(log) as waking:
            async for _ in waking.stream(messages):
                raise ZeroDivisionError
        assert log.events == ["armed", "handled 1"]
        with WakingCalls(log) as waking:
            waiting = asyncio.ensure_future(waking.call(messages.next))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert log.events == ["armed", "handled 1", "armed"]

    asyncio.run(main())


def test_wakingLost() -> None:
    """A message that a cancellation loses is handled all the same."""

    async def main() -> None:
        log = Log()
        received: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with WakingCalls(log) as waking:
            waiting = asyncio.ensure_future(waking.call(lambda: received))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            received.set_result("one")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert log.events == []
        assert log.events == ["handled 1"]

    asyncio.run(main())


def test_wakingSocket() -> None:
    """With a real socket and a real counter: positive exactly while a message is worked on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        seen: list[tuple[bytes, int]] = []
        with ours, theirs, OwnedCounter(Counter.make(), "rpc") as owned:

            def send(text: bytes) -> None:
                owned.share(pending=True)._owner = None
                theirs.send(text)

            with WakingCalls(owned) as waking:
                send(b"one")
                for _ in range(2):
                    data = await waking.call(lambda: loop.sock_recv(ours, 10))
                    seen.append((data, owned.value()))
                    # While nothing is there, and the wait is.
                    loop.call_later(0.01, lambda: seen.append((b"", owned.value())))
                    loop.call_later(0.01, send, b"two")
            assert seen == [(b"one", 1), (b"", 0), (b"two", 1)]
            assert owned.value() == 0

    asyncio.run(main())


def test_deferredCall() -> None:
    """starnix: container side: waking proxy / waking stream: the same order for Deferreds."""
    log = Log()
    messages: DeferredQueue[str] = DeferredQueue()

    def make() -> Deferred[str]:
        log.events.append("armed")
        return messages.get()

    with WakingDeferreds(log, initial=1) as waking:
        first = waking.call(make)
        assert log.events == ["armed", "handled 1"]
        results: list[str] = []
        first.addCallback(results.append)
        assert not results
        messages.put("one")
        assert results == ["one"]
        second = waking.call(make)
        assert log.events == ["armed", "handled 1", "armed", "handled 1"]
        second.cancel()
        second.addErrback(lambda failure: failure.trap(CancelledError) and None)
    assert log.events == ["armed", "handled 1", "armed", "handled 1"]


def test_deferredStream() -> None:
    """Each item is handled when the next one is asked for; an end ends it."""
    log = Log()
    messages: DeferredQueue[Any] = DeferredQueue()

    def make() -> Deferred[Any]:
        def end(message: Any) -> Any:
            if message is None:
                raise StopAsyncIteration
            return message

        return messages.get().addCallback(end)

    async def work() -> None:
        with WakingDeferreds(log) as waking:
            async for message in waking.stream(make):
                log.events.append(message)

    working = Deferred.fromCoroutine(work())
    messages.put("one")
    assert log.events == ["one", "handled 1"]
    messages.put("two")
    messages.put(None)
    assert working.called
    assert log.events == ["one", "handled 1", "two", "handled 1"]


@asynchronous
async def test_createProxy(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A Twisted program makes the same channels; what is refused leaves nothing."""
    async with stationed(reactor, tmp_path) as (station, _, _):
        client = await ManagerClient.connect(reactor, station.path)
        try:
            for kind in ("shared", "handled"):
                given, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with given:
                    made = createProxy(client, "editor", kind, given, 1, kind)
                channel, counter = await made
                with peer, channel, counter:
                    assert [s.name for s in station.editor.sources.signalled()] == [kind]
                    counter.handled()
                    await until(reactor, lambda: not station.editor.sources.signalled())
                await until(reactor, lambda: not list(station.editor.channels.proxies()))
            with peer, pytest.raises(VarlinkError, match="there is no container"):
                await createProxy(client, "nobody", "rpc", 0)
        finally:
            client.close()
