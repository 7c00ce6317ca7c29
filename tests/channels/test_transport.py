"""The packet transport as any Twisted program uses it: endpoints, protocols, producers."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import (
    IConsumer,
    IListeningPort,
    IUNIXTransport,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.transport import MessageProtocol, SeqpacketTransport
from chanproxy.interfaces import (
    ChannelBroken,
    ChanproxyReactor,
    IChannel,
    IChannelUser,
    MessageRefused,
)
from tests.shared.sides import asynchronous, connect, turns, until


class Recorder(MessageProtocol):
    """Keeps what it hears."""

    transport: SeqpacketTransport

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, int]] = []
        self.lost: Deferred[None] = Deferred()

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        for fd in descriptors:
            assert not os.get_inheritable(fd)
            os.close(fd)
        self.messages.append((data, len(descriptors)))

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        self.lost.callback(None)


class Server(Factory):
    """Makes recorders."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Recorder] = []

    def buildProtocol(self, addr: object) -> Recorder:
        self.made.append(Recorder())
        return self.made[-1]


@asynchronous
async def test_endpoints(reactor: Any, tmp_path: Path) -> None:
    """Both ends by endpoint strings: packets and descriptors, each way; the mode; the cleaning."""
    path = tmp_path / "socket"
    server = Server()
    port = await serverFromString(reactor, f"seqpacket:{path}:mode=660").listen(server)
    assert verifyObject(IListeningPort, port)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    client = await clientFromString(reactor, f"seqpacket:{path}").connect(
        Factory.forProtocol(Recorder)
    )
    client.transport.sendMessage(b"one", [0, 1])
    client.transport.sendFileDescriptor(2)
    client.transport.write(b"two")
    client.transport.writeSequence([b"th", b"ree"])
    client.transport.write(b"")
    expected = [(b"one", 2), (b"two", 1), (b"three", 0), (b"", 0)]
    await until(reactor, lambda: server.made and server.made[0].messages == expected)
    server.made[0].transport.write(b"back")
    server.made[0].transport.loseConnection()
    await client.lost
    assert client.messages == [(b"back", 0)]
    await server.made[0].lost
    await port.stopListening()
    assert not path.exists()


@asynchronous
async def test_defaultMode(reactor: Any, tmp_path: Path) -> None:
    """Nobody else may connect unless it is said."""
    port = await serverFromString(reactor, f"seqpacket:{tmp_path}/s").listen(Server())
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    await port.stopListening()


@asynchronous
async def test_abstract(reactor: Any) -> None:
    """The abstract namespace."""
    name = f"@chanproxy-test-{secrets.token_hex(8)}"
    server = Server()
    port = await serverFromString(reactor, f"seqpacket:{name}").listen(server)
    with pytest.raises(CannotListenError):
        await serverFromString(reactor, f"seqpacket:{name}").listen(server)
    client = await clientFromString(reactor, f"seqpacket:{name}").connect(
        Factory.forProtocol(Recorder)
    )
    client.transport.write(b"x")
    await until(reactor, lambda: server.made and server.made[0].messages)
    client.transport.loseConnection()
    await server.made[0].lost
    await port.stopListening()


@asynchronous
async def test_listeningErrors(reactor: Any, tmp_path: Path) -> None:
    """What is in the way is named, and never removed unless it is a stale socket."""
    path = tmp_path / "s"
    port = await serverFromString(reactor, f"seqpacket:{path}").listen(Server())
    with pytest.raises(CannotListenError, match="living process"):
        await serverFromString(reactor, f"seqpacket:{path}").listen(Server())
    await port.stopListening()
    path.write_text("precious")
    with pytest.raises(CannotListenError, match="no socket"):
        await serverFromString(reactor, f"seqpacket:{path}").listen(Server())
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))
    with pytest.raises(CannotListenError, match="stale"):
        await serverFromString(reactor, f"seqpacket:{path}:unlink=no").listen(Server())
    port = await serverFromString(reactor, f"seqpacket:{path}").listen(Server())
    # Somebody else's file at our path stays when we stop.
    path.unlink()
    path.write_text("precious")
    await port.stopListening()
    assert path.read_text() == "precious"
    with pytest.raises(CannotListenError, match="no directory"):
        await serverFromString(reactor, f"seqpacket:{tmp_path}/none/s").listen(Server())


@asynchronous
async def test_connectErrors(reactor: Any, tmp_path: Path) -> None:
    """A server that is not there, and one that never accepts."""
    with pytest.raises(ConnectError, match="No such file"):
        await clientFromString(reactor, f"seqpacket:{tmp_path}/s").connect(Server())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as busy:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
            first.connect(str(tmp_path / "busy"))
            attempt = clientFromString(reactor, f"seqpacket:{tmp_path}/busy").connect(Server())
            await turns(reactor)
            assert not attempt.called
            attempt.addErrback(lambda _: None)
            attempt.cancel()


@asynchronous
async def test_queueAndProducer(reactor: ChanproxyReactor) -> None:
    """What the kernel does not take waits, in order, with its descriptors; producers pause."""
    protocol, other = connect(reactor, Recorder())
    transport = protocol.transport
    for interface in (IChannel, IUNIXTransport, IConsumer):
        assert verifyObject(interface, transport)
    assert verifyObject(IChannelUser, protocol)
    events: list[str] = []

    class Producer:
        def pauseProducing(self) -> None:
            events.append("pause")

        def resumeProducing(self) -> None:
            events.append("resume")

        def stopProducing(self) -> None:
            events.append("stop")

    producer: Any = Producer()
    transport.registerProducer(producer, True)
    sent = 0
    while "pause" not in events:
        readEnd, writeEnd = os.pipe()
        transport.sendMessage(b"%d" % sent, [writeEnd])
        os.close(readEnd)
        os.close(writeEnd)
        sent += 1
    for number in range(sent):
        data, received, _, _ = socket.recv_fds(other, 100, 10)
        assert (data, len(received)) == (b"%d" % number, 1)
        os.close(received[0])
        await turns(reactor, 2)
    assert events[-1] == "resume"
    transport.unregisterProducer()
    transport.write(b"last")
    transport.loseConnection()
    assert other.recv(10) == b"last"
    await protocol.lost
    other.close()


@asynchronous
async def test_pausedReading(reactor: ChanproxyReactor) -> None:
    """A paused protocol hears nothing, and loses nothing when its peer closes meanwhile."""
    protocol, other = connect(reactor, Recorder())
    protocol.transport.pauseProducing()
    other.send(b"a")
    other.send(b"b")
    other.close()
    await turns(reactor)
    assert protocol.messages == []
    protocol.transport.resumeProducing()
    await protocol.lost
    assert protocol.messages == [(b"a", 0), (b"b", 0)]


@asynchronous
async def test_lostWhileWriting(reactor: ChanproxyReactor) -> None:
    """Paused, with writes pending, and the peer goes: what it sent is still there to read."""
    protocol, other = connect(reactor, Recorder())
    other.send(b"pending")
    protocol.transport.pauseProducing()
    while not protocol.transport.pending:
        protocol.transport.write(b"x" * 1000)
    other.close()
    await turns(reactor, 10)
    protocol.transport.resumeProducing()
    await protocol.lost
    assert protocol.messages == [(b"pending", 0)]


R = TypeVar("R", bound=Recorder)


def listening(
    reactor: ChanproxyReactor, protocol: R, buffer: PeekBuffer | None = None
) -> tuple[R, socket.socket]:
    """A protocol that is told of messages from the start, and the other end."""
    protocol, other = connect(reactor, protocol, buffer)
    protocol.transport.resumeProducing()
    return protocol, other


def status(end: socket.socket | int) -> int:
    """The flags of an open file description, which all its descriptors share."""
    return fcntl.fcntl(end, fcntl.F_GETFL)


@asynchronous
async def test_blockingStaysBlocking(reactor: ChanproxyReactor) -> None:
    """A descriptor's flags are its sender's: nothing here waits, and nothing changes them."""
    protocol, other = listening(reactor, Recorder())
    transport = protocol.transport
    before = status(transport.fileno())
    assert not before & os.O_NONBLOCK
    other.send(b"a", socket.MSG_DONTWAIT)
    await until(reactor, lambda: protocol.messages == [(b"a", 0)])
    transport.discard()
    assert len(transport.peek()) == 0
    while not transport.pending:
        transport.write(b"x" * 1000)
    assert status(transport.fileno()) == before
    while transport.pending:
        other.recv(1000)
        await turns(reactor, 1)
    assert status(transport.fileno()) == before
    other.close()
    await protocol.lost


class Discarder(Recorder):
    """Goes on without what is refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    def messageRefused(self, error: ChannelBroken) -> None:
        assert isinstance(error, MessageRefused)
        self.refused.append(error.limit)
        self.transport.discard()


def descriptors() -> set[str]:
    """Those that this process has open."""
    return set(os.listdir("/proc/self/fd"))


@asynchronous
async def test_discard(reactor: ChanproxyReactor) -> None:
    """A protocol may drop what exceeds a limit, descriptors and all, and hear what follows."""
    protocol, other = listening(reactor, Discarder(), PeekBuffer(100, 2))
    open_ = descriptors()
    other.send(b"a" * 100)
    socket.send_fds(other, [b"b" * 101], [0, 1])
    socket.send_fds(other, [b"c"], [0, 1, 2])
    other.send(b"d" * 70000)
    await until(reactor, lambda: len(protocol.refused) == 3)
    socket.send_fds(other, [b"e"], [0, 1])
    await until(reactor, lambda: len(protocol.messages) == 2)
    assert protocol.messages == [(b"a" * 100, 0), (b"e", 2)]
    assert protocol.refused == ["message-bytes", "message-descriptors", "message-bytes"]
    assert descriptors() == open_
    other.close()
    await protocol.lost


@asynchronous
async def test_refusedCloses(reactor: ChanproxyReactor) -> None:
    """A protocol that says nothing about it loses its connection, as ever."""
    protocol, other = listening(reactor, Recorder(), PeekBuffer(100, 2))
    other.send(b"a" * 101)
    other.send(b"b")
    await protocol.lost
    assert protocol.messages == []
    other.close()


@asynchronous
async def test_refusedWhileClosing(reactor: ChanproxyReactor) -> None:
    """Closing is an answer to a refused packet also while something waits to be sent."""

    class Closer(Recorder):
        refused = 0

        def messageRefused(self, error: ChannelBroken) -> None:
            self.refused += 1
            self.transport.loseConnection()

    protocol, other = listening(reactor, Closer(), PeekBuffer(100, 2))
    while not protocol.transport.pending:
        protocol.transport.write(b"x" * 1000)
    other.send(b"a" * 101)
    await turns(reactor)
    assert protocol.refused == 1
    while protocol.transport.pending:
        other.recv(1000)
        await turns(reactor, 1)
    await protocol.lost
    assert protocol.refused == 1
    other.close()


@asynchronous
async def test_peerClosesBetweenPeekAndTake(reactor: ChanproxyReactor) -> None:
    """The kernel reports what the peer left unread, once; what it sent is there all the same."""
    protocol, other = listening(reactor, Recorder())
    transport = protocol.transport
    transport.write(b"never read")
    other.send(b"a")
    other.send(b"b")
    batch = transport.peek()
    assert bytes(batch.message()) == b"a"
    other.close()
    transport.take(1)
    assert bytes(transport.peek().message()) == b"b"
    await protocol.lost
    assert protocol.messages == [(b"b", 0)]
