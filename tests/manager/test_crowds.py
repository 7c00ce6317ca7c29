"""Crowds at the control socket: root is heard, and no container wakes late, whoever else calls."""

from __future__ import annotations

import gc
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, capturedLogs, formatEvent

from chanproxy.config import AccessEntry
from chanproxy.guest._wire import Connection
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.kernel.fewlines import PERIOD, FewLines
from chanproxy.manager.crowds import AT_ONCE, BURST, BURSTS, SHARE, Account, Crowd, Terms
from tests.shared.floods import USERS, flooded
from tests.shared.managing import accepted, connectedAs, refused, stationed
from tests.shared.sides import asynchronous, until
from tests.shared.station import MANAGER

asRoot = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")

ENTRIES = (AccessEntry("users", users=tuple(USERS), containers=("editor",)),)


def _user(crowd: Crowd, number: int = 1, owner: bool = False, access: bool = True) -> Account:
    return crowd.account(number, f"user {number}", owner, access)


@pytest.mark.parametrize("connections", [1, 2, 3, 8, 16, 256])
def test_connections(connections: int) -> None:
    """However many users there are, some connections stay for the owners, and an owner has all."""
    crowd = Crowd(Clock(), Terms(connections))
    others = 0
    for number in range(300):
        while crowd.admit(_user(crowd, number)):
            others += 1
        assert _user(crowd, number).connections <= max(connections // 8, 1)
    owner = _user(crowd, 0, owner=True)
    kept = 0
    while crowd.admit(owner):
        kept += 1
    assert others + kept == connections
    assert kept >= (connections // 4 or connections > 1)
    # What goes makes room again.
    crowd.left(owner)
    assert crowd.admit(owner)
    assert not crowd.admit(owner)


def test_strangers() -> None:
    """All who have no access are one: a person may have thousands of user numbers."""
    crowd = Crowd(Clock(), Terms(80))
    admitted = sum(crowd.admit(_user(crowd, number, access=False)) for number in range(1000))
    assert admitted == 10
    assert crowd.admit(_user(crowd, 1))


def test_share() -> None:
    """Who takes more than a share waits until that is made up for; others do not wait for it."""
    clock = Clock()
    crowd = Crowd(clock, Terms())
    user, other, owner = _user(crowd), _user(crowd, 2), _user(crowd, 0, owner=True)
    user.charge(BURST)
    assert user.owes == 0
    user.charge(0.001)
    assert user.owes == pytest.approx(0.001 / SHARE)
    assert other.owes == owner.owes == 0
    heard: list[int] = []
    for number in range(AT_ONCE + 2):
        user.wait(lambda number=number: heard.append(number))  # type: ignore[misc]  # a default
    clock.advance(0.001 / SHARE * 0.9)
    assert heard == []
    clock.advance(0.001 / SHARE * 0.2)
    assert heard == list(range(AT_ONCE + 2))
    # In the long run no more than its share, whatever it does.
    began, taken = clock.seconds(), 0.0
    while clock.seconds() < began + 100:
        if user.owes:
            clock.advance(user.owes)
        else:
            user.charge(0.004)
            taken += 0.004
    assert taken <= 100 * SHARE + BURST + 0.004
    owner.charge(1000)
    assert owner.owes == 0
    crowd.close()
    assert not clock.getDelayedCalls()
    user.charge(1)
    user.wait(lambda: None)
    assert not clock.getDelayedCalls()


def test_altogether() -> None:
    """Many users have a share together, too."""
    clock = Clock()
    crowd = Crowd(clock, Terms())
    accounts = [_user(crowd, number) for number in range(100)]
    taken = 0.0
    for _ in range(1000):
        for account in accounts:
            if not account.owes:
                account.charge(0.001)
                taken += 0.001
        clock.advance(0.01)
    assert taken <= 10 * 0.25 + BURSTS + 0.002
    assert taken >= 10 * 0.25 * 0.9


def test_leaves() -> None:
    """Who has gone is not called."""
    clock = Clock()
    account = _user(Crowd(clock, Terms()))
    account.charge(1)
    heard: list[str] = []

    def goOn() -> None:
        heard.append("called")

    account.wait(goOn)
    account.leave(goOn)
    account.leave(goOn)
    assert not clock.getDelayedCalls()
    clock.advance(100)
    assert not heard


def test_descriptors() -> None:
    """A user's descriptors are counted as long as they live; an owner's, and strangers', never."""
    crowd = Crowd(Clock(), Terms(descriptors=5))
    user, living = _user(crowd), {1, 2}
    user.expect(5)
    user.keep(3, lambda: 1 in living)
    user.keep(2, lambda: 2 in living)
    with pytest.raises(TooManyDescriptors, match=r"5 .* for user 1, of 5; give some up") as raised:
        user.expect(1)
    assert raised.value.limit == "limits.user-descriptors"
    living.discard(1)
    user.expect(3)
    with pytest.raises(TooManyDescriptors):
        user.expect(4)
    _user(crowd, 2).expect(5)
    owner = _user(crowd, 0, owner=True)
    owner.keep(1000, lambda: True)
    owner.expect(1000)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_fewLines(most: int) -> None:
    """So many lines in a period; of the rest, how many, even when no other line comes."""
    clock = Clock()
    with capturedLogs() as events:
        lines = FewLines(Logger("x"), clock, "control", most)
        for number in range(10):
            lines.warn("line {number}", number=number)
            clock.advance(1)
        assert [formatEvent(e) for e in events] == [f"line {number}" for number in range(most)]
        clock.advance(PERIOD)
        told = f"control: {10 - most} more lines were left out within 60 s (limits.log-lines = "
        assert (formatEvent(events[-1]) or "").startswith(told)
        assert len(events) == most + 1
        # Anew, and nothing is counted twice.
        lines.info("again")
        assert len(events) == most + 1 + (most > 0)
        lines.close()
        clock.advance(2 * PERIOD)
        assert len(events) == most + 2
    assert not clock.getDelayedCalls()


async def _turnsTaken(reactor: ChanproxyReactor, seconds: float) -> list[float]:
    """
    What each turn of the reactor takes, and so a wake may have to wait for: shortest first.

    Seconds of the processor: how long it is by the clock depends on who else is on the machine.
    """
    # What all tests before this one have left in memory is no work of the service's.
    gc.collect()
    gc.freeze()
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        before = time.thread_time()
        await deferLater(reactor, 0)
        taken.append(time.thread_time() - before)
    gc.unfreeze()
    return sorted(taken)


def _asksAsRoot(path: str) -> None:
    """Connect, wherever the queue of those who do is full, and ask."""
    connection = Connection(path, 5)
    try:
        connection.send("ListContainers", {}, (), False)
        containers = connection.receive()[0]["containers"]
        assert len(containers) == 2
    finally:
        connection.close()


@asRoot
@pytest.mark.parametrize("kind", ["calls", "large", "connects", "stays"])
@pytest.mark.parametrize("access", [ENTRIES, ()], ids=["users", "strangers"])
@asynchronous
async def test_flood(
    reactor: ChanproxyReactor, tmp_path: Path, kind: str, access: tuple[AccessEntry, ...]
) -> None:
    """Eight users do what they can: root is answered, and what is due is done in time."""
    options: dict[str, Any] = {"access": access, "connections": 64}
    with capturedLogs() as events:
        async with stationed(reactor, tmp_path, **options) as (station, root, _):
            with flooded(station.path, kind):
                taken = await _turnsTaken(reactor, 1)
                # Root comes in while all that others may have is taken.
                for _ in range(5):
                    await deferToThread(_asksAsRoot, station.path)
                    accepted(await root.call("Describe", {"container": "editor"}))
                assert len(station.factory._open) <= 64 - 64 // 4 + 2
    # Where the crowd has the processors there are few turns, and each may have a call of 64 KiB.
    assert taken[len(taken) // 2] < (0.010 if len(taken) > 100 else 0.050)
    assert taken[-1] < 0.100
    lines = [formatEvent(event) or "" for event in events]
    assert len([line for line in lines if line.startswith("control: ")]) <= 60 + 2
    if not access and kind == "connects":
        assert any("more lines were left out" in line for line in lines)


@asRoot
@asynchronous
async def test_unparsed(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What a stranger writes is not even read, beyond the size of what it may ask."""
    async with stationed(reactor, tmp_path, access=ENTRIES) as (station, root, box):
        (connected,) = connectedAs(station.path, 61003)
        stranger = station.client(connected)
        given, _ = box.pair()
        stranger.sendRaw(b"{" + b"[" * 40000, given)
        box.give(given)
        refused(await stranger.reply(), "PermissionDenied", "of user 61003 has no access")
        call = json.dumps({"method": f"{MANAGER}.ListContainers"}).encode()
        stranger.sendRaw(call + b" " * (1025 - len(call)))
        refused(await stranger.reply(), "PermissionDenied")
        stranger.sendRaw(b"{")
        refused(await stranger.reply(), "CallMalformed")
        # Who has access is told what is wrong with it.
        root.sendRaw(b"{" + b"[" * 40000)
        refused(await root.reply(), "CallMalformed")


@asRoot
@asynchronous
async def test_inOrder(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Calls that have to wait for their share are all answered, in their order, and at the end."""
    async with stationed(reactor, tmp_path, access=ENTRIES) as (station, _, _):
        (connected,) = connectedAs(station.path, USERS[0])
        client = station.client(connected)
        account: Account | None = None
        for number in range(9):
            client.send("AcquireWakeLock", {"container": "editor", "name": f"lock {number}"})
            client.send("ReleaseWakeLock", {"container": "editor", "name": f"lock {number}"})
            if number == 0:
                await until(
                    reactor, lambda: any(not a.owner for a in station.factory._open.values())
                )
                (account,) = [a for a in station.factory._open.values() if not a.owner]
                account.charge(0.01)
        client.socket.shutdown(socket.SHUT_WR)
        for _ in range(18):
            accepted(await client.reply())
        assert await client.ended()
        # One that goes while it waits is forgotten.
        (connected,) = connectedAs(station.path, USERS[0])
        again = station.client(connected)
        assert account is not None
        account.charge(0.1)
        again.send("ListContainers")
        await until(reactor, lambda: account._waiting)
        again.close()
        await until(reactor, lambda: not account._waiting)
        await until(reactor, lambda: len(station.factory._open) == 1)


def _keys(**more: Any) -> dict[str, Any]:
    return {"container": "editor", **more}


@asRoot
@asynchronous
async def test_quotaOfAUser(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Whatever a user has the service keep counts, and the error names the limit; not for root."""
    options: dict[str, Any] = {"access": ENTRIES, "descriptors": 6}
    async with stationed(reactor, tmp_path, **options) as (station, root, box):
        (connected,) = connectedAs(station.path, USERS[0])
        user = station.client(connected)
        sources = []
        for number in range(3):
            fd = box.eventfd()
            sources.append(fd)
            accepted(await user.call("AddWakeSource", _keys(name=f"{number}", events=["in"]), fd))
        accepted(await user.call("WakeAt", _keys(name="a", at=2**32)))
        accepted(await user.call("WakeAt", _keys(name="a", at=2**32 + 1)))
        user.send("RegisterWakeWatcher", _keys(pipe=True))
        _, (pipe,) = await user.replyWithDescriptors()
        accepted(await user.call("WakeAt", _keys(name="b", at=2**32)))
        # Another connection is the same user; and none of these takes a descriptor.
        (connected,) = connectedAs(station.path, USERS[0])
        again = station.client(connected)
        for client, method, parameters, fds in (
            (user, "WakeAt", {"name": "c", "at": 2**32}, ()),
            (again, "AddWakeSource", {"name": "c", "events": ["in"]}, (box.eventfd(),)),
            (again, "RegisterWakeWatcher", {"pipe": True}, ()),
            (
                user,
                "ProxyWakeChannel",
                {"name": "rpc", "counter": "handled"},
                (box.pair()[0], box.pair()[0], box.eventfd()),
            ),
        ):
            reply = await client.call(method, _keys(**parameters), *fds)
            fields = refused(reply, "LimitExceeded", "for user 61010, of 6", "give some up")
            assert fields["limit"] == "limits.user-descriptors"
        # Others are not concerned; each way to give one up makes room.
        (connected,) = connectedAs(station.path, USERS[1])
        other = station.client(connected)
        accepted(await other.call("WakeAt", _keys(name="d", at=2**32)))
        accepted(await root.call("WakeAt", _keys(name="e", at=2**32)))
        accepted(await user.call("WakeAt", _keys(name="a")))
        accepted(await user.call("WakeAt", _keys(name="c", at=2**32)))
        refused(await user.call("WakeAt", _keys(name="f", at=2**32)), "LimitExceeded")
        accepted(await user.call("RemoveWakeSource", _keys(), sources[0]))
        accepted(await user.call("WakeAt", _keys(name="f", at=2**32)))
        os.close(pipe)
        await until(reactor, lambda: not len(station.editor.watchers))
        accepted(await user.call("WakeAt", _keys(name="g", at=2**32)))
