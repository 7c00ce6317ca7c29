"""
Valid calls in any order, from clients that come and go, against a model of what has to become of
them: what keeps the container awake, what wakes it, what the watchers are told, what is left.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.threads import deferToThread

from chanproxy.interfaces import ChanproxyReactor
from tests.manager.fuzzing import Crowd, Sent, Talker, inReactor
from tests.shared.leaks import nothingCritical, nothingLeft
from tests.shared.managing import count
from tests.shared.sides import asynchronous, turns
from tests.shared.station import Station

T = TypeVar("T")

CLIENTS = st.integers(0, 2)
LOCKS = st.sampled_from(["lock a", "lock b"])
LIFETIMES = st.sampled_from(["service", "connection"])
WHICH = st.integers(0, 9)


@define(eq=False)
class Source:
    """
    Something that was given to the service.

    @ivar owner: the client that it ends with; L{None}: the service.
    @ivar fd: ours, of what is polled.
    """

    name: str
    owner: Talker | None
    fd: int

    def positive(self) -> bool:
        """Whether it keeps the container awake."""
        return count(self.fd) > 0

    def close(self) -> None:
        """Close our descriptors."""
        os.close(self.fd)


@define(eq=False)
class Channel(Source):
    """A channel proxy; its counter is the source."""

    remote: socket.socket
    container: socket.socket

    def close(self) -> None:
        """Hang up on both sides."""
        Source.close(self)
        self.remote.close()
        self.container.close()


@define(eq=False)
class Watching:
    """A watcher, and what it must have been told."""

    talker: Talker
    told: list[tuple[str, str]] = field(factory=list)


class Sequences(RuleBasedStateMachine):
    """Has the reactor's thread do each step."""

    reactor: ChanproxyReactor

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.reason = ""
        self.asleep = False
        self.waiting: Sent | None = None
        self.sleeper: Talker | None = None
        self.locks: dict[str, set[Talker | None]] = {}
        self.sources: list[Source] = []
        self.watchers: list[Watching] = []
        self.run(self.open())

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return inReactor(self.reactor, step)

    async def open(self) -> None:
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(nothingCritical())
        self.stack.enter_context(nothingLeft(self.reactor))
        directory = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.station = Station(self.reactor, Path(directory))
        self.crowd = Crowd(self.reactor, self.station)
        self.crowd.talkers = [Talker(self.station.path) for _ in range(3)]

    async def ask(self, client: int, method: str, *descriptors: int, **more: Any) -> str:
        """
        Have a client call.

        @return: the error's name, or nothing.
        """
        talker = self.crowd.talkers[client]
        sent = talker.call(method, *descriptors, container="editor", **more)
        await self.crowd.until(lambda: not talker.owed)
        assert sent.reply is not None
        return str(sent.reply.get("error", "")).rpartition(".")[2]

    def free(self, client: int) -> int:
        """A client that waits for no suspend: that one, or another."""
        if self.crowd.talkers[client] is self.sleeper:
            return (client + 1) % len(self.crowd.talkers)
        return client

    def positive(self) -> list[str]:
        """The names of all that keeps the container awake."""
        held = [name for name, holders in self.locks.items() if holders]
        return sorted(held + [source.name for source in self.sources if source.positive()])

    async def settle(self, reason: str | None = None) -> None:
        """
        Let the service find out, and check what became of it.

        @param reason: what else has woken it.
        """
        await turns(self.reactor, 8)
        if self.asleep and reason is None:
            reason = ",".join(self.positive()) or None
        if self.asleep and reason is not None:
            self.asleep = False
            self.change("awake", reason)
            if self.waiting is not None:
                await self.crowd.until(lambda: self.waiting is None or not self.waiting.owed)
                reply = self.waiting.reply
                assert reply is not None
                assert reply["parameters"]["resume_reason"] == reason
                assert reply["parameters"]["suspend_time"] > 0
            self.waiting = self.sleeper = None

    def change(self, state: str, reason: str) -> None:
        self.reason = reason
        for watching in self.watchers:
            watching.told.append((state, reason))

    def number(self) -> int:
        self.made += 1
        return self.made

    @rule(client=CLIENTS, name=LOCKS, lifetime=LIFETIMES)
    def acquire(self, client: int, name: str, lifetime: str) -> None:
        client = self.free(client)
        error = self.run(self.ask(client, "AcquireWakeLock", name=name, lifetime=lifetime))
        assert error == ""
        self.locks.setdefault(name, set()).add(self.ownerOf(client, lifetime))
        self.run(self.settle())

    @rule(client=CLIENTS, name=LOCKS, lifetime=LIFETIMES)
    def release(self, client: int, name: str, lifetime: str) -> None:
        client = self.free(client)
        error = self.run(self.ask(client, "ReleaseWakeLock", name=name, lifetime=lifetime))
        holders, owner = self.locks.get(name, set()), self.ownerOf(client, lifetime)
        assert error == ("" if owner in holders else "WakeLockNotHeld")
        holders.discard(owner)

    def ownerOf(self, client: int, lifetime: str) -> Talker | None:
        return self.crowd.talkers[client] if lifetime == "connection" else None

    @rule(client=CLIENTS, lifetime=LIFETIMES)
    def add(self, client: int, lifetime: str) -> None:
        client = self.free(client)
        source = Source(
            f"source {self.number()}", self.ownerOf(client, lifetime), os.eventfd(0, os.EFD_CLOEXEC)
        )
        self.sources.append(source)
        more = {"name": source.name, "events": ["in"], "lifetime": lifetime}
        assert self.run(self.ask(client, "AddWakeSource", source.fd, **more)) == ""

    @precondition(lambda self: self.sources)
    @rule(client=CLIENTS, which=WHICH)
    def addAgain(self, client: int, which: int) -> None:
        """The same open file is refused, whatever its name."""
        source = self.sources[which % len(self.sources)]
        more = {"name": "again", "events": ["in"]}
        error = self.run(self.ask(self.free(client), "AddWakeSource", source.fd, **more))
        assert error == "WakeSourceExists"

    @precondition(lambda self: any(type(each) is Source for each in self.sources))
    @rule(client=CLIENTS, which=WHICH)
    def remove(self, client: int, which: int) -> None:
        """By whoever has a duplicate."""
        sources = [each for each in self.sources if type(each) is Source]
        source = sources[which % len(sources)]
        assert self.run(self.ask(self.free(client), "RemoveWakeSource", source.fd)) == ""
        error = self.run(self.ask(self.free(client), "RemoveWakeSource", source.fd))
        assert error == "WakeSourceNotFound"
        self.forget(source)

    def forget(self, source: Source) -> None:
        self.sources.remove(source)
        source.close()

    @rule(client=CLIENTS, lifetime=LIFETIMES)
    def proxy(self, client: int, lifetime: str) -> None:
        client = self.free(client)
        remote, outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        container, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        remote.setblocking(False)
        container.setblocking(False)
        counter = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        channel = Channel(
            f"channel {self.number()}", self.ownerOf(client, lifetime), counter, remote, container
        )
        self.sources.append(channel)
        fds = (inner.detach(), outer.detach(), counter)
        more = {"name": channel.name, "lifetime": lifetime}
        try:
            assert self.run(self.ask(client, "ProxyWakeChannel", *fds, **more)) == ""
        finally:
            os.close(fds[0])
            os.close(fds[1])

    @precondition(lambda self: self.sources)
    @rule(client=CLIENTS, which=WHICH)
    def proxyAgain(self, client: int, which: int) -> None:
        """A counter counts for one channel only; the two sockets are given back."""
        source = self.sources[which % len(self.sources)]
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        fds = [given.fileno() for _, given in pairs]
        error = self.run(
            self.ask(self.free(client), "ProxyWakeChannel", *fds, source.fd, name="again")
        )
        # What is no counter is found out first.
        assert error == ("WakeSourceExists" if isinstance(source, Channel) else "InvalidParameter")
        for kept, given in pairs:
            given.close()
            assert kept.recv(100) == b""
            kept.close()

    def channel(self, which: int) -> Channel:
        channels = [each for each in self.sources if isinstance(each, Channel)]
        return channels[which % len(channels)]

    @precondition(lambda self: any(isinstance(each, Channel) for each in self.sources))
    @rule(which=WHICH, messages=st.integers(1, 3))
    def message(self, which: int, messages: int) -> None:
        """Into the container: counted before it arrives; and an answer, which is not."""
        channel = self.channel(which)
        before = count(channel.fd)

        async def go() -> None:
            for number in range(messages):
                channel.remote.send(b"in %d" % number)
            await self.settle()
            assert count(channel.fd) == before + messages
            for number in range(messages):
                assert channel.container.recv(100) == b"in %d" % number
            channel.container.send(b"out")
            await turns(self.reactor)
            assert channel.remote.recv(100) == b"out"
            assert count(channel.fd) == before + messages

        self.run(go())

    @precondition(lambda self: any(isinstance(each, Channel) for each in self.sources))
    @rule(which=WHICH, remote=st.booleans())
    def hangUp(self, which: int, remote: bool) -> None:
        """One side goes, and the other one hears of it."""
        channel = self.channel(which)
        going, other = channel.remote, channel.container
        if not remote:
            going, other = other, going
        going.close()
        self.run(self.settle())
        assert other.recv(100) == b""
        self.forget(channel)

    @precondition(lambda self: self.sources)
    @rule(which=WHICH)
    def signal(self, which: int) -> None:
        os.eventfd_write(self.sources[which % len(self.sources)].fd, 1)
        self.run(self.settle())

    @precondition(lambda self: self.positive())
    @rule()
    def handled(self) -> None:
        """All of it, so that it may sleep."""
        for source in self.sources:
            while source.positive():
                os.eventfd_read(source.fd)

    @rule(client=CLIENTS)
    def suspend(self, client: int) -> None:
        client = self.free(client)
        talker = self.crowd.talkers[client]
        if self.asleep:
            error = self.run(self.ask(client, "SuspendContainer"))
            assert error == "AlreadySuspended"
        elif self.positive():
            before = self.station.freezers["editor"].calls.count("freeze")
            assert self.run(self.ask(client, "SuspendContainer")) == "WakeLocksExist"
            assert self.station.freezers["editor"].calls.count("freeze") == before
            reply = talker.sent[-1].reply
            assert reply is not None
            assert reply["parameters"]["names"] == self.positive()
        else:
            self.waiting, self.sleeper = talker.call("SuspendContainer", container="editor"), talker
            self.asleep = True
            self.change("asleep", "")
            self.run(self.settle())

    @rule(client=CLIENTS)
    def resume(self, client: int) -> None:
        reason = f"by number {client}"
        assert self.run(self.ask(self.free(client), "ResumeContainer", reason=reason)) == ""
        self.run(self.settle(reason))

    @rule()
    def watch(self) -> None:
        talker = Talker(self.station.path)
        self.crowd.talkers.append(talker)
        talker.send(
            b'{"method":"org.chanproxy.Manager.RegisterWakeWatcher","more":true,'
            b'"parameters":{"container":"editor"}}'
        )
        state = ("asleep", "") if self.asleep else ("awake", self.reason)
        self.watchers.append(Watching(talker, [state]))
        self.run(self.settle())
        # It is no client like the others.
        self.crowd.talkers.remove(talker)

    @precondition(lambda self: self.watchers)
    @rule(which=WHICH)
    def unwatch(self, which: int) -> None:
        watching = self.watchers.pop(which % len(self.watchers))
        watching.talker.close()
        self.run(self.settle())

    @rule(client=CLIENTS)
    def disconnect(self, client: int) -> None:
        """What was made for its time goes with it; a suspend that it has asked for goes on."""
        talker = self.crowd.talkers[client]
        talker.close()
        if talker is self.sleeper:
            self.waiting = self.sleeper = None
        for holders in self.locks.values():
            holders.discard(talker)
        self.crowd.talkers[client] = Talker(self.station.path)
        self.run(self.settle())
        for source in [each for each in self.sources if each.owner is talker]:
            if isinstance(source, Channel):
                assert source.remote.recv(100) == b""
                assert source.container.recv(100) == b""
            self.forget(source)

    @invariant()
    def isAsTheModelSays(self) -> None:
        """The freezer, and all that the manager tells of it."""
        freezer, state = self.station.freezers["editor"], self.station.editor.suspension.state
        assert (state, freezer.frozen) == (("asleep", True) if self.asleep else ("awake", False))
        assert not (self.asleep and self.positive())
        reply = self.run(self.crowd.call("Describe", container="editor"))
        description = reply["parameters"]["description"]
        assert description["state"] == state
        active = {each["name"]: each["active"] for each in description["sources"]}
        for name in ("lock a", "lock b"):
            assert active.pop(name, False) == bool(self.locks.get(name))
        assert active == {source.name: source.positive() for source in self.sources}
        channels = [each for each in self.sources if isinstance(each, Channel)]
        assert description["proxy_count"] == len(channels)
        assert description["watcher_count"] == len(self.watchers)

    @invariant()
    def watchersAreTold(self) -> None:
        for watching in self.watchers:
            watching.talker.listen()
            assert watching.talker.changes == watching.told

    def teardown(self) -> None:
        self.run(self.end())
        self.stack.close()

    async def end(self) -> None:
        self.crowd.close()
        for watching in self.watchers:
            watching.talker.close()
        for source in self.sources:
            source.close()
        await self.station.close()


@asynchronous
async def test_sequences(reactor: ChanproxyReactor) -> None:
    """Whatever the order, the service is as the model says, and leaves nothing behind."""

    class Machine(Sequences):
        pass

    Machine.reactor = reactor
    bounds = settings(
        max_examples=40,
        stateful_step_count=40,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    await deferToThread(run_state_machine_as_test, Machine, settings=bounds)
