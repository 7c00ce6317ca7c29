"""Many who connect to a server whose backlog is full: in their order, and at no cost of waiting."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from chanproxy.channels.transport import MessageProtocol
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.endpoints.seqpacket import SeqpacketClientEndpoint
from chanproxy.interfaces import ChanproxyReactor
from tests.shared.sides import asynchronous, turns, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    """It accepts when the test says so; one connection fits in its backlog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        listening.setblocking(False)
        yield listening


def _dial(endpoint: SeqpacketClientEndpoint, number: int, connected: list[int]) -> Deferred[Any]:
    def opened(protocol: Any) -> Any:
        connected.append(number)
        return protocol

    return endpoint.connect(Factory.forProtocol(MessageProtocol)).addCallback(opened)


async def _hangUp(reactor: ChanproxyReactor, dials: list[Deferred[Any]]) -> None:
    for dial in dials:
        result: Any = getattr(dial, "result", None)
        if isinstance(result, MessageProtocol):
            result.transport.abortConnection()
    await turns(reactor)


@asynchronous
async def test_order(reactor: ChanproxyReactor, tmp_path: Path, server: socket.socket) -> None:
    """First come, first served; one that is given up is passed over."""
    endpoint = SeqpacketClientEndpoint(reactor, SeqpacketAddressSpec(str(tmp_path / "s")))
    connected: list[int] = []
    dials = [_dial(endpoint, number, connected) for number in range(20)]
    assert connected == [0]
    dials[3].addErrback(lambda _: None)
    dials[3].cancel()
    accepted = []
    for count in range(2, 20):
        accepted.append(server.accept()[0])
        await until(reactor, lambda count=count: len(connected) == count)  # type: ignore[misc]
    assert connected == [number for number in range(20) if number != 3]
    # Nobody waits: the next one does not, either.
    accepted.append(server.accept()[0])
    dials.append(_dial(endpoint, 20, connected))
    assert connected[-1] == 20
    await _hangUp(reactor, dials)
    for each in accepted:
        each.close()


@asynchronous
async def test_cost(reactor: ChanproxyReactor, tmp_path: Path, server: socket.socket) -> None:
    """A thousand that wait take what one takes."""
    endpoint = SeqpacketClientEndpoint(reactor, SeqpacketAddressSpec(str(tmp_path / "s")))
    connected: list[int] = []
    dials = [_dial(endpoint, number, connected) for number in range(1000)]
    await turns(reactor)
    before = time.thread_time()
    await deferLater(reactor, 1)
    assert time.thread_time() - before < 0.1
    # And all are there soon, once there is room.
    accepted, late = [], time.monotonic() + 15
    while len(connected) < 40:
        assert time.monotonic() < late
        try:
            accepted.append(server.accept()[0])
        except BlockingIOError:
            await deferLater(reactor, 0.001)
    assert connected == list(range(len(connected)))
    for dial in dials[len(connected) :]:
        dial.addErrback(lambda _: None)
        dial.cancel()
    await _hangUp(reactor, dials)
    for each in accepted:
        each.close()


@asynchronous
async def test_tooLate(reactor: ChanproxyReactor, tmp_path: Path, server: socket.socket) -> None:
    """Each fails at its own time, with what was wrong."""
    spec = SeqpacketAddressSpec(str(tmp_path / "s"))
    endpoint = SeqpacketClientEndpoint(reactor, spec, timeout=0.05)
    connected: list[int] = []
    dials = [_dial(endpoint, number, connected) for number in range(5)]
    for dial in dials[1:]:
        with pytest.raises(ConnectError, match="its backlog stayed full"):
            await dial
    assert connected == [0]
    await _hangUp(reactor, dials)


@asynchronous
async def test_gone(reactor: ChanproxyReactor, tmp_path: Path, server: socket.socket) -> None:
    """The server goes while they wait: all are told at once."""
    endpoint = SeqpacketClientEndpoint(reactor, SeqpacketAddressSpec(str(tmp_path / "s")))
    connected: list[int] = []
    dials = [_dial(endpoint, number, connected) for number in range(50)]
    server.close()
    for dial in dials[1:]:
        with pytest.raises(ConnectError, match="refused"):
            await dial
    await _hangUp(reactor, dials)
