"""Streams that are handed over, the policy C{idle}, and descriptors kept in reserve."""

from __future__ import annotations

import resource
import socket
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from chanproxy.carry.ledger import Ledger
from chanproxy.carry.pairing import CannotPair
from chanproxy.carry.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.carry.silent import Idle
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.streams import TcpChannel
from chanproxy.channels.transport import MessageProtocol
from chanproxy.container import Container, Surroundings
from chanproxy.container.channels import Carriage
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import descriptors
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.wake.counter import MessageCounter
from support.live import PATIENCE
from tests.shared.managing import accepted, received, refused, stationed
from tests.shared.sides import asynchronous, receiveWhenThere, tcpPair, turns, until


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@asynchronous
async def test_proxyWakeChannel(reactor: ChanproxyReactor, tmp_path: Path, kind: str) -> None:
    """Both ends of a stream, counted on the caller's counter."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        ends = []
        for _ in range(2):
            if kind == "unix":
                ends.append(box.pair(socket.SOCK_STREAM))
            else:
                ours, kept = tcpPair()
                box.enter_context(kept)
                kept.settimeout(PATIENCE)
                ends.append((box.own(ours.detach()), kept))
        (inner, container), (outer, remote) = ends
        counter = box.eventfd(semaphore=True)
        parameters = {"container": "editor", "name": "bus"}
        given = (inner, outer, box.duplicate(counter))
        accepted(await box.call(client, "ProxyWakeChannel", parameters, *given))
        remote.send(b"hello")
        assert await received(container) == b"hello"
        container.send(b"back")
        assert await received(remote) == b"back"
        remote.close()
        assert await received(container) == b""


@asynchronous
async def test_mixedEnds(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Two ends that do not go together are refused, with a reason."""
    async with stationed(reactor, tmp_path) as (_, client, box):
        packets, _ = box.pair(socket.SOCK_SEQPACKET)
        stream, _ = box.pair(socket.SOCK_STREAM)
        given = (packets, stream, box.eventfd(semaphore=True))
        parameters = {"container": "editor", "name": "bus"}
        reply = await box.call(client, "ProxyWakeChannel", parameters, *given)
        refused(reply, "InvalidParameter", "boundaries")
        datagrams, _ = box.pair(socket.SOCK_DGRAM)
        stream, _ = box.pair(socket.SOCK_STREAM)
        given = (datagrams, stream, box.eventfd(semaphore=True))
        reply = await box.call(client, "ProxyWakeChannel", parameters, *given)
        refused(reply, "InvalidParameter", "no SOCK_STREAM")


@asynchronous
async def test_policies(reactor: ChanproxyReactor) -> None:
    """On TCP C{consumed} is an error that says so, and C{idle} is the way out."""
    container = Container(
        reactor, "shop", FakeFreezer(), mode="manual", around=Surroundings(recorded=False)
    )
    buffer = PeekBuffer()
    sides = ContainerProtocol(), RemoteProtocol()
    peers = []
    for side in sides:
        ours, theirs = tcpPair()
        channel = TcpChannel(reactor, ours, buffer)
        channel.protocol = side
        Protocol.makeConnection(side, cast(ITransport, channel))
        peers.append(theirs)
    with pytest.raises(CannotPair, match="consumed"):
        container.channels.proxy(*sides, "shop/http#1", carriage=Carriage("consumed"))
    proxy = container.channels.proxy(*sides, "shop/http#1", carriage=Carriage("idle", silence=0.05))
    peers[1].send(b"GET")
    assert await receiveWhenThere(reactor, peers[0]) == (b"GET", 0)
    assert proxy.counter.value() == 1
    await until(reactor, lambda: proxy.counter.value() == 0)
    container.stop()
    for peer in peers:
        peer.close()
    await turns(reactor)


def test_idle(reactor: ChanproxyReactor) -> None:
    """Handled after silence in both directions; what waits for the container is not."""
    clock, ledger, counter = Clock(), Ledger(), MessageCounter(reactor)
    idle = Idle(clock, ledger, counter, 2.0)
    counter.add(2)
    idle.counted(2)
    assert ledger.activity == 2
    clock.advance(1.5)
    idle.answered(1)
    clock.advance(1.5)
    assert counter.value() == 2
    clock.advance(0.5)
    assert counter.value() == 0
    assert clock.getDelayedCalls() == []
    idle.answered(1)
    counter.add(3)
    idle.counted(3)
    idle.sending(1)
    clock.advance(10)
    assert counter.value() == 1
    idle.sending(0)
    clock.advance(2)
    assert counter.value() == 0
    counter.add(1)
    idle.counted(1)
    idle.close()
    assert clock.getDelayedCalls() == []
    counter.close()


@asynchronous
async def test_acceptingPauses(reactor: Any, tmp_path: Path) -> None:
    """Before the limit is reached no more connections are taken; then they are."""
    made: list[MessageProtocol] = []

    class Server(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> MessageProtocol:
            made.append(MessageProtocol())
            return made[-1]

    port = await serverFromString(reactor, f"seqpacket:{tmp_path}/s").listen(Server())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A quarter is the reserve: with a few more it is touched.
    limit = (descriptors.used() + 12) * 4 // 3
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        clients = []
        for _ in range(8):
            clients.append(
                await clientFromString(reactor, f"seqpacket:{tmp_path}/s").connect(
                    Factory.forProtocol(MessageProtocol)
                )
            )
        await turns(reactor, 20)
        assert descriptors.scarce()
        assert len(made) < 8
        assert descriptors.left() > 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(reactor, lambda: len(made) == 8)
    for client in clients:
        client.transport.loseConnection()
    await until(reactor, lambda: not any(each.transport._wantsReadable for each in made))
    await port.stopListening()
    await turns(reactor)


def test_limit() -> None:
    """Raised to the hard one; what is used is known."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    try:
        assert descriptors.raiseLimit() == hard == descriptors.limit()
        before = descriptors.used()
        with socket.socket():
            assert descriptors.used() == before + 1
            assert descriptors.left() == hard - before - 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
