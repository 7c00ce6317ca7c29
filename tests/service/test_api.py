"""chanproxy as a library: below other services, on any reactor, with public helpers for tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.pairing import CannotPair
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.kinds import attach
from chanproxy.config import Configuration
from chanproxy.container import Bounds, Container, Surroundings, proxySockets
from chanproxy.interfaces import ChanproxyReactor, IChannel
from chanproxy.manager.administration import ServiceManager
from chanproxy.manager.errors import MANAGER
from chanproxy.manager.varlink import interfaceDescription
from chanproxy.service import ChanproxyService
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.memory import CAPACITY, MemoryBatch, MemoryChannel
from chanproxy.wake.counter import MessageCounter
from chanproxy.wake.source import WakeSourceError
from support.places import EXAMPLES, ROOT
from tests.shared.managing import gone
from tests.shared.sides import asynchronous, turns, until
from tests.shared.station import Station

_KINDS = (socket.SOCK_SEQPACKET, socket.SOCK_STREAM)

ON_A_REACTOR = """
import os, socket, sys
name = sys.argv[1]
module = __import__(f"twisted.internet.{name}", fromlist=["x"])
reactorClass = {"epollreactor": "EPollReactor", "asyncioreactor": "AsyncioSelectorReactor",
                "pollreactor": "PollReactor", "selectreactor": "SelectReactor"}[name]
reactor = getattr(module, reactorClass)()

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from chanproxy.config import Channel, Configuration, Container
from chanproxy.service import ChanproxyService
from chanproxy.endpoints.paths import SeqpacketAddressSpec

inner, outer = "inner", "outer"
listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(inner)
listening.listen()
top = MultiService()
service = ChanproxyService(Configuration(control=SeqpacketAddressSpec("control")), reactor)
service.setServiceParent(top)

async def state(container, wanted):
    for _ in range(2000):
        if container.suspension.state == wanted:
            return
        await deferLater(reactor, 0.005)
    raise AssertionError(container.suspension.state)

async def work():
    top.startService()
    ends = f"seqpacket:{os.getcwd()}/outer", f"seqpacket:{os.getcwd()}/inner"
    channel = Channel("rpc", *ends, handled="consumed")
    container = service.addContainer(Container("a", "none", 0.2, channels=(channel,)))
    await state(container, "asleep")
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.connect(outer)
    await state(container, "awake")
    inside, _ = listening.accept()
    await state(container, "asleep")
    peer.send(b"hello")
    await state(container, "awake")
    await deferLater(reactor, 0.5)
    assert container.suspension.state == "awake"
    assert inside.recv(10) == b"hello"
    # The container's read is an edge, which only epoll has; it is nested in any reactor.
    await state(container, "asleep")
    container.alarms.set("alarm", 0.0)
    await state(container, "awake")
    await service.removeContainer("a")
    assert not os.path.exists(outer)
    await top.stopService()
    for each in (peer, inside, listening):
        each.close()

def failed(failure):
    failure.printTraceback(sys.stderr)

working = Deferred.fromCoroutine(work()).addErrback(failed)
working.addCallback(lambda _: reactor.callLater(0, reactor.stop))
reactor.run()
print("twisted.internet.reactor" in sys.modules)
"""


@pytest.mark.parametrize("name", ["epollreactor", "asyncioreactor", "pollreactor", "selectreactor"])
def test_reactors(tmp_path: Path, name: str) -> None:
    """A service below another one, its container made without a file, on each; none installed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_REACTOR, name],
        cwd=tmp_path,
        env=dict(
            os.environ,
            PYTHONPATH=str(ROOT),
            CHANPROXY_RUNTIME_DIRECTORY=str(tmp_path / "runtime"),
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stderr, done.stdout) == ("", "False\n")


def test_importsInstallNothing() -> None:
    """
    No module of ours installs a reactor when it is imported; but those of commands that ask over
    HTTP, which are loaded for that and by nobody else.
    """
    script = """
import pkgutil, sys, chanproxy
but = ("chanproxy.testing.plugin", "chanproxy.commands.remote", "chanproxy.commands.web")
for module in pkgutil.walk_packages(chanproxy.__path__, "chanproxy."):
    if module.name not in but and not module.name.endswith(".freezers"):
        __import__(module.name)
print("twisted.internet.reactor" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stderr, done.stdout) == ("", "False\n")


@asynchronous
async def test_allMethods(reactor: ChanproxyReactor) -> None:
    """The interface file has exactly the methods that a service answers."""
    service = ChanproxyService(Configuration(), reactor)
    answered = ServiceManager(reactor, service, PeekBuffer()).methods()[MANAGER]
    declared = re.findall(r"^method (\w+)", interfaceDescription(), re.MULTILINE)
    assert sorted(declared) == sorted(answered)


@asynchronous
async def test_proxySockets(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """
    starnix: channel proxy: 1: two sockets that a program has, a counter and a name: a proxy; both
    closed on an error.
    """
    station = Station(reactor, tmp_path)
    try:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
        (inner, inside), (outer, outside), (other, left), (another, right) = pairs
        counter = MessageCounter(reactor)
        proxy = proxySockets(reactor, station.editor, (inner, outer), "rpc", counter)
        with inside, outside, left, right:
            outside.send(b"hello")
            assert await deferToThread(inside.recv, 10) == b"hello"
            assert counter.value() == 1
            with pytest.raises(WakeSourceError, match="registered"):
                proxySockets(reactor, station.editor, (other, another), "rpc", counter)
            await turns(reactor)
            assert gone(left.fileno())
            assert gone(right.fileno())
            proxy.stop()
            assert inside.recv(10) == b""
    finally:
        await station.close()


@asynchronous
async def test_proxyStreams(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Two streams are carried, and counted; what does not go together is refused, and closed."""
    station = Station(reactor, tmp_path)
    try:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2)]
        (inner, inside), (outer, outside) = pairs
        proxy = proxySockets(reactor, station.editor, (inner, outer), "stream", handled="consumed")
        with inside, outside:
            outside.send(b"hello")
            await until(reactor, lambda: proxy.inbound.messages == 1)
            assert await deferToThread(inside.recv, 10) == b"hello"
            outside.close()
            assert await deferToThread(inside.recv, 10) == b""
        await proxy.whenEnded()
        packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        datagrams = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        listening = socket.create_server(("127.0.0.1", 0))
        with packets[1], stream[1], datagrams[1]:
            with pytest.raises(CannotPair, match="boundaries"):
                proxySockets(reactor, station.editor, (packets[0], stream[0]), "both")
            with pytest.raises(ValueError, match="no SOCK_SEQPACKET and no SOCK_STREAM"):
                proxySockets(reactor, station.editor, (datagrams[0], listening), "none")
            await turns(reactor)
            assert packets[1].recv(1) == b""
            assert stream[1].recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                datagrams[1].send(b"x")
    finally:
        await station.close()


@asynchronous
async def test_attach(reactor: ChanproxyReactor) -> None:
    """One way to make a channel, for every kind; what waits for more has waited at its sender."""
    buffer = PeekBuffer()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pairs = [
            *(socket.socketpair(socket.AF_UNIX, kind) for kind in _KINDS),
            (socket.create_connection(listening.getsockname()), listening.accept()[0]),
        ]
    for ours, theirs in pairs:
        with theirs:
            protocol = RemoteProtocol()
            channel = attach(reactor, ours, buffer, protocol)
            assert verifyObject(IChannel, channel)
            told: object = protocol.transport
            assert told is channel
            if ours.family == socket.AF_INET:
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            channel.close()
            await turns(reactor)
            assert theirs.recv(1) == b""


def says(channel: MemoryChannel) -> list[bytes]:
    """What waits at a channel, which is taken."""
    batch = channel.peek()
    found = [data for data, _ in batch.packets]
    batch.close()
    channel.take(len(found))
    return found


@asynchronous
async def test_memoryChannels(reactor: ChanproxyReactor) -> None:
    """A proxy between channels in memory: counts, waits for room, drains, closes."""
    inner, outer = ContainerProtocol(), RemoteProtocol()
    container, inside = MemoryChannel.pair(reactor)
    remote, outside = MemoryChannel.pair(reactor)
    assert verifyObject(IChannel, container)
    sides: list[tuple[Protocol, MemoryChannel]] = [(inner, container), (outer, remote)]
    for protocol, channel in sides:
        channel.protocol = protocol
        protocol.makeConnection(channel)
    counter = MessageCounter(reactor)
    proxy = ChannelProxy(inner, outer, counter, "memory#1", Explicit(Ledger()))
    packets: list[tuple[bytes, list[int]]] = [(b"%d" % number, []) for number in range(CAPACITY)]
    assert outside.send(MemoryBatch(packets)) == CAPACITY
    await until(reactor, lambda: counter.value() == CAPACITY)
    outside.send(MemoryBatch([(b"more", [])]))
    await until(reactor, lambda: counter.value() == CAPACITY + 1)
    assert says(inside) == [data for data, _ in packets]
    await turns(reactor)
    assert says(inside) == [b"more"]
    inside.send(MemoryBatch([(b"back", [])]))
    await turns(reactor)
    assert says(outside) == [b"back"]
    assert counter.value() == CAPACITY + 1
    outside.finishSending()
    await turns(reactor)
    assert inside.peek().ended
    inside.close()
    await turns(reactor)
    assert outside.peek().ended
    assert proxy.ended
    outside.close()
    counter.close()
    await turns(reactor)


@asynchronous
async def test_containerAlone(reactor: ChanproxyReactor) -> None:
    """A container needs no service: a freezer and a reactor."""
    freezer = FakeFreezer()
    container = Container(
        reactor, "alone", freezer, bounds=Bounds(linger=0.01), around=Surroundings(recorded=False)
    )
    container.start()
    await until(reactor, lambda: freezer.frozen)
    container.stop()
    assert not freezer.frozen


def run(argv: list[str], directory: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_addContainer(tmp_path: Path) -> None:
    """The example of an application with a container: it answers, sleeps, wakes."""
    runtime = str(tmp_path / "runtime")
    argv = [sys.executable, str(EXAMPLES / "add_container.py"), str(tmp_path)]
    with run(argv, tmp_path, CHANPROXY_RUNTIME_DIRECTORY=runtime) as application:
        assert application.stdout is not None
        lines = iter(application.stdout.readline, "")
        while next(lines) != "asleep\n":
            pass
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(20)
            peer.connect(str(tmp_path / "outer"))
            peer.send(b"hello")
            assert peer.recv(10) == b"HELLO"
            while next(lines) != "asleep\n":
                pass
        application.send_signal(signal.SIGINT)
        rest = list(lines)
        application.wait(20)
    assert not [line for line in rest if "Traceback" in line], rest


@asynchronous
async def test_guestAsyncio(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The example of a guest: awake until it waits, counted while it works, locked for its job."""
    station = Station(reactor, tmp_path)
    path = str(tmp_path / "peer")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(path)
            listening.listen()
            told = {"CHANPROXY_CONTROL": station.path, "CHANPROXY_CONTAINER": "editor"}
            with run(
                [sys.executable, str(EXAMPLES / "guest_asyncio.py"), path], tmp_path, **told
            ) as guest:
                peer, _ = await deferToThread(listening.accept)
                peer.settimeout(20)
                with peer:
                    for message in (b"hello", b"backup"):
                        peer.send(message)
                        assert await deferToThread(peer.recv, 20) == message.upper()
                    assert guest.stdout is not None
                    assert await deferToThread(guest.stdout.readline) == "backing up\n"
                    await until(reactor, lambda: not station.editor.sources.signalled())
                    assert [lock.name for lock in station.editor.sources.locks.all()] == ["backup"]
                rest = await deferToThread(guest.stdout.read)
                assert (await deferToThread(guest.wait, 20), rest) == (0, "")
    finally:
        await station.close()


@pytest.mark.parametrize("runner", ["trial", "pytest"])
def test_runners(tmp_path: Path, runner: str) -> None:
    """The examples of tests pass under their own runners."""
    name = f"test_with_{runner}"
    shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    binary = os.path.join(os.path.dirname(sys.executable), runner)
    words = [] if runner == "trial" else ["-W", "error"]
    with run([sys.executable, binary, *words, str(tmp_path / f"{name}.py")], tmp_path) as running:
        output, _ = running.communicate(timeout=60)
    assert running.returncode == 0, output
    assert ("PASSED (successes=2)" if runner == "trial" else "2 passed") in output
