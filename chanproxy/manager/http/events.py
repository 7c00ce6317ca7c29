"""
The feed: what happens in containers, told to any number of clients as server-sent events.

While nobody listens it costs nothing.  Knows containers and streams of bytes; knows not who may.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.crowds import Account
from chanproxy.manager.describe import fitting, happened, pause, shortened, summary
from chanproxy.wake.history.reasons import generalAll
from chanproxy.wake.statistics import EVENTS_KEPT, SuspendEvent, bootNanoseconds
from chanproxy.words import listed, safe, unlisted

LOOK = 1.0
"""Seconds between looks for containers that were added or removed."""

HEARTBEAT = 15
"""Of these: after so many something is sent in any case, so that both ends see that it lives."""

WAITING = 256
"""Events that wait for a client that does not read; with one more it is dropped."""

TURN = 64
"""Events that are sent in one turn."""

NAMES = 32
"""Those in a reason of which its general form is made; there may be thousands."""


class ISink(Protocol):
    """The answer that a stream is; see L{chanproxy.manager.http.server.HttpRequest}."""

    gone: bool

    def write(self, data: bytes) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...


def event(kind: str, fields: Mapping[str, Any], identity: int | None = None) -> bytes:
    """One, as bytes."""
    begin = "" if identity is None else f"id: {identity}\n"
    return f"{begin}event: {kind}\ndata: {json.dumps(fields)}\n\n".encode("ascii")


def _happened(name: str, found: SuspendEvent) -> bytes:
    fields = {"container": name, **happened(found)}
    if found.kind == "resume":
        # As in the report, so that both count the same.
        fields["general"] = generalAll(unlisted(found.reason, NAMES), name)
    return event(found.kind, fields, found.at)


def _listed(container: Container) -> dict[str, Any]:
    """One that there is, and since when what is told of it is counted."""
    return {**summary(container), "counted_since": container.suspension.statistics.since}


@implementer(IPushProducer)
class Stream:
    """One client that listens."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        sink: ISink,
        allows: Callable[[str], bool],
        drop: Callable[[], object],
        account: Account,
        looks: str = "",
    ) -> None:
        """
        @param allows: of which containers it is told.
        @param drop: ends its connection.
        @param account: whose it is.
        @param looks: why it may only look, if it may do no more.
        """
        self._reactor = reactor
        self._sink = sink
        self._drop = drop
        self.allows = allows
        self.account = account
        self.looks = looks
        self._old: Iterator[bytes] = iter(())
        self._waiting: deque[bytes] = deque()
        self._paused = self._turning = False

    def begin(self, first: bytes, old: Iterator[bytes]) -> None:
        """
        Begin to send.

        @param old: what has happened before.
        """
        self._old = old
        self._sink.registerProducer(self, True)
        self._sink.write(first)
        self._send()

    def tell(self, data: bytes) -> None:
        """Send it, now or when it reads again."""
        if len(self._waiting) >= WAITING:
            self.end()
            return
        self._waiting.append(data)
        if not self._turning:
            self._send()

    def _send(self) -> None:
        self._turning = False
        for _ in range(TURN):
            if self._paused or self._sink.gone:
                return
            data = next(self._old, None)
            if data is None:
                if not self._waiting:
                    return
                data = self._waiting.popleft()
            self._sink.write(data)
        self._turning = True
        self._reactor.callLater(0, self._send)

    def end(self) -> None:
        """End its connection: it does not read, or there is nothing more to tell."""
        self.stopProducing()
        self._drop()

    def pauseProducing(self) -> None:
        """It does not read."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has read."""
        self._paused = False
        if not self._turning:
            self._send()

    def stopProducing(self) -> None:
        """It has gone."""
        self._paused = True
        self._waiting.clear()
        self._old = iter(())


class Feed:
    """All streams of one service."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        containers: Callable[[], Mapping[str, Container]],
    ) -> None:
        """@param containers: those of the service at this moment, by name."""
        self._reactor = reactor
        self._containers = containers
        self._streams: list[Stream] = []
        self._attached: dict[str, _Attached] = {}
        self._ticks = 0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def __len__(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def of(self, account: Account) -> int:
        """How many are of one user."""
        return sum(stream.account is account for stream in self._streams)

    def add(self, stream: Stream, last: int | None) -> None:
        """
        Tell it what there is, what has happened since, and from now on what happens.

        @param last: the latest event that it knows, if there was one.
        """
        self._attach()
        if not self._streams:
            self._looking.start(LOOK, now=False)
        self._streams.append(stream)
        now = bootNanoseconds()
        fields: dict[str, Any] = {"now": now, "acts": not stream.looks}
        if stream.looks:
            fields["message"] = stream.looks
        hello = b"retry: 2000\n" + event("hello", fields) + self._list(stream)
        # Later than now: of a time before the host was started again.
        since = None if last is None else last if last <= now else 0
        stream.begin(hello, self._since(stream, since))

    def remove(self, stream: Stream) -> None:
        """Tell it no more.  Idempotent."""
        if stream in self._streams:
            self._streams.remove(stream)
            if not self._streams:
                self.close()

    def close(self) -> None:
        """Nobody is told any more.  Idempotent."""
        ended, self._streams = self._streams, []
        for stream in ended:
            stream.end()
        if self._looking.running:
            self._looking.stop()
        for each in self._attached.values():
            each.detach()
        self._attached.clear()

    def tell(self, container: str, data: bytes) -> None:
        """Tell those that may hear of it."""
        for stream in list(self._streams):
            if stream.allows(container):
                stream.tell(data)

    def _list(self, stream: Stream) -> bytes:
        found = [_listed(c) for name, c in self._containers().items() if stream.allows(name)]
        return event("containers", {"containers": found})

    def _since(self, stream: Stream, last: int | None) -> Iterator[bytes]:
        lost: list[bytes] = []
        rings: list[list[tuple[int, str, SuspendEvent]]] = []
        for name, container in self._containers().items():
            if last is None or not stream.allows(name):
                continue
            events = container.suspension.statistics.events
            if len(events) == EVENTS_KEPT and events[0].at > last:
                lost.append(event("lost", {"container": name}))
            rings.append([(each.at, name, each) for each in events if each.at > last])
        merged = heapq.merge(*rings, key=lambda entry: entry[0])
        return itertools.chain(lost, (_happened(name, each) for _, name, each in merged))

    def _look(self) -> None:
        changed = self._attach()
        self._ticks += 1
        for stream in list(self._streams):
            if changed:
                stream.tell(self._list(stream))
            elif self._ticks % HEARTBEAT == 0:
                stream.tell(b": alive\n\n")

    def _attach(self) -> bool:
        """Listen to those that are there; whether they are others than before."""
        there = self._containers()
        gone = [name for name, each in self._attached.items() if there.get(name) is not each.of]
        for name in gone:
            self._attached.pop(name).detach()
        new = [name for name in there if name not in self._attached]
        for name in new:
            self._attached[name] = _Attached(self, there[name])
        return bool(gone or new)


class _Attached:
    """The feed's ear at one container."""

    def __init__(self, feed: Feed, of: Container) -> None:
        self._feed = feed
        self.of = of
        of.suspension.statistics.listeners.append(self._happened)
        of.suspension.addWatcher(self._changed)

    def detach(self) -> None:
        """Hear no more."""
        self.of.suspension.statistics.listeners.remove(self._happened)
        self.of.suspension.removeWatcher(self._changed)

    def _happened(self, found: SuspendEvent) -> None:
        self._feed.tell(self.of.name, _happened(self.of.name, found))

    def _changed(self, state: str, reasons: tuple[str, ...]) -> None:
        shown = self.of.suspension.state
        fields: dict[str, Any] = {
            "container": self.of.name,
            "state": shown,
            "at": bootNanoseconds(),
        }
        paused = self.of.suspension.paused
        if paused is not None:
            fields["paused"] = pause(paused)
        names = fitting(reasons)
        why = {"reason": shortened(listed(names)), "reasons": [safe(name) for name in names]}
        self._feed.tell(self.of.name, event("state", {**fields, **why}))
