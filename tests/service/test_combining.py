"""Channels of any two kinds, through the service, by configuration."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.config import ConfigurationError, StartError
from chanproxy.interfaces import ChanproxyReactor
from support.ports import freePort
from tests.shared.running import Running, listening, receiveAll, sendAll, thread
from tests.shared.sides import asynchronous

READ = 'handled = "consumed"'
IDLE, REFUSE = 'handled = "idle"\nsilence = 0.02', 'descriptors = "refuse"'
UNIX, INET, INET6 = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6
STREAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_SEQPACKET


@asynchronous
async def test_unix(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Unix streams: descriptors at their bytes, half-closes, and what the container has read."""
    with listening(UNIX, STREAM, str(tmp_path / "in")) as inside:
        running = Running(reactor, f"unix:{tmp_path}/out:mode=640", f"unix:{tmp_path}/in", READ)
        async with running:
            assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
            inner, outer = await running.pair(inside, UNIX, STREAM, str(tmp_path / "out"))
            readEnd, writeEnd = os.pipe()
            outer.send(b"plain")
            socket.send_fds(outer, [b"with"], [writeEnd])
            os.close(writeEnd)
            assert (await thread(inner.recv, 5)) == b"plain"
            # Four bytes are with the container and not read: that is one message, or more.
            await running.until(lambda: running.value())
            data, (received,), _, _ = await thread(socket.recv_fds, inner, 10, 2)
            assert data == b"with"
            os.write(received, b"through")
            os.close(received)
            with open(readEnd, "rb") as pipe:
                assert pipe.read() == b"through"
            await running.until(lambda: running.value() == 0)
            outer.shutdown(socket.SHUT_WR)
            assert await thread(inner.recv, 10) == b""
            inner.send(b"answer")
            assert await thread(outer.recv, 10) == b"answer"
            inner.close()
            assert await thread(outer.recv, 10) == b""
            await running.ended()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", [INET, INET6])
@asynchronous
async def test_tcp(reactor: ChanproxyReactor, family: int) -> None:
    """TCP on both sides, over IPv4 and IPv6: without delay, and idle after a silence."""
    host = "::1" if family == INET6 else "127.0.0.1"
    quoted = host.replace(":", r"\:")
    with listening(family, STREAM, (host, 0)) as inside:
        port, inner = freePort(family), inside.getsockname()[1]
        address = f"tcp:{port}:interface={quoted}"
        running = Running(reactor, address, f"tcp:{quoted}:{inner}", IDLE)
        async with running:
            ends = await running.pair(inside, family, STREAM, (host, port))
            transports = [
                side.transport
                for proxy in running.proxies
                for side in (proxy._container, proxy._remote)
            ]
            for transport in transports:
                connected: socket.socket = transport._socket  # type: ignore[union-attr]  # a look
                assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            data = os.urandom(3_000_000)
            for sender, receiver in (ends, reversed(ends)):
                sending = thread(sendAll, sender, [data])
                assert await thread(receiveAll, receiver, len(data)) == data
                await sending
            await running.until(lambda: running.value() == 0)


@asynchronous
async def test_nameIsResolved(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A host's name, in a thread; each of its addresses is tried, and one listens."""
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        running = Running(reactor, f"unix:{tmp_path}/out", f"tcp:localhost:{port}", IDLE, REFUSE)
        async with running:
            inner, outer = await running.pair(inside, UNIX, STREAM, str(tmp_path / "out"))
            outer.send(b"hello")
            assert await thread(inner.recv, 10) == b"hello"


@asynchronous
async def test_nobodyThere(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A refused connection, and a name that is none: a line with the key, and the peer's end."""
    for connect, why in (
        (f"tcp:127.0.0.1:{freePort()}", "refused"),
        ("tcp:no.such.host.invalid:80", "no such host"),
        (f"unix:{tmp_path}/none", "No such file"),
        ("vsock:local:5", ""),
    ):
        refuse = "" if connect.startswith("unix") else REFUSE
        running = Running(reactor, f"unix:{tmp_path}/out", connect, IDLE, refuse)
        async with running:
            outer = running.keep(socket.socket(UNIX, STREAM))
            outer.connect(str(tmp_path / "out"))
            assert await thread(outer.recv, 1) == b""
            await running.said("a/c#1", why, "containers.a.channels.c.connect")


@asynchronous
async def test_descriptorsRefused(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Where one end carries none, and it is said: it ends, with a line; others go on."""
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        running = Running(reactor, f"unix:{tmp_path}/out", f"tcp:127.0.0.1:{port}", IDLE, REFUSE)
        async with running:
            where = inside, UNIX, STREAM, str(tmp_path / "out")
            _, outer = await running.pair(*where)
            otherInner, other = await running.pair(*where)
            socket.send_fds(outer, [b"x"], [0])
            with pytest.raises(ConnectionResetError):
                # It was not read: a reset says so.
                await thread(receiveAll, outer, 1)
            await running.said("a/c#1: closed", "descriptors came, and TCP carries none")
            other.send(b"on")
            assert await thread(otherInner.recv, 10) == b"on"


@asynchronous
async def test_taken(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Addresses that somebody has, and kinds that nobody knows: found before anything starts."""
    with listening(INET, STREAM, ("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for listen, connect, says in (
            (f"tcp:{port}", "tcp:h:1", f"listen: port {port} of 127.0.0.1 is in use"),
            (
                "tcp:1:interface=192.0.2.1",
                "tcp:h:1",
                "listen: this machine has no interface with the address",
            ),
            ("ssl:0", "tcp:h:1", "listen: Twisted says of ssl: "),
            ("systemd:domain=INET:index=0", "tcp:h:1", "listen: systemd passed no such socket"),
            (f"unix:{tmp_path}/no/sock", "tcp:h:1", "listen: there is no directory"),
        ):
            with pytest.raises(StartError) as caught:
                Running(reactor, listen, connect, IDLE, REFUSE)
            assert f"containers.a.channels.c.{says}" in str(caught.value)
    unknown = [("nonesuch:1", "tcp:h:1", "listen"), ("tcp:0", "nonesuch:1", "connect")]
    for listen, connect, key in unknown:
        with pytest.raises(
            ConfigurationError, match=f"{key}: '[a-z]+' is no kind of address; there"
        ):
            Running(reactor, listen, connect)
    with pytest.raises(ConfigurationError):
        Running(reactor, "tcp:0", "seqpacket:/x")


def vsockLoopback() -> bool | None:
    """Whether this machine can reach itself; L{None}: the kernel has no vsock at all."""
    try:
        inside = socket.socket(socket.AF_VSOCK, STREAM)
    except OSError:
        return None
    with inside, socket.socket(socket.AF_VSOCK, STREAM) as peer:
        inside.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        inside.listen(1)
        peer.settimeout(0.5)
        try:
            peer.connect((1, inside.getsockname()[1]))
        except OSError:
            return False
        return True


@asynchronous
async def test_vsock(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What can be had of it here: bytes both ways; or a port; or a sentence that there is none."""
    loopback = vsockLoopback()
    arguments = reactor, "vsock:52000:cid=any", f"unix:{tmp_path}/in", REFUSE
    if loopback is None:
        with pytest.raises(StartError, match="this kernel has no vsock"):
            Running(*arguments)
        return
    with listening(UNIX, STREAM, str(tmp_path / "in")) as inside:
        running = Running(*arguments)
        async with running:
            with (
                socket.socket(socket.AF_VSOCK, STREAM) as second,
                pytest.raises(OSError, match="in use"),
            ):
                second.bind((socket.VMADDR_CID_ANY, 52000))
            if loopback:
                inner, outer = await running.pair(inside, socket.AF_VSOCK, STREAM, (1, 52000))
                data = os.urandom(1_000_000)
                for sender, receiver in ((outer, inner), (inner, outer)):
                    sending = thread(sendAll, sender, [data])
                    assert await thread(receiveAll, receiver, len(data)) == data
                    await sending


@asynchronous
async def test_systemd(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Sockets that systemd passed are found by number or name, and carried as what they are."""
    for kind, other in ((PACKETS, STREAM), (STREAM, PACKETS)):
        directory = tmp_path / str(kind)
        directory.mkdir()
        with (
            listening(UNIX, kind, str(directory / "in")) as inside,
            listening(UNIX, kind, str(directory / "out")) as passed,
            handedOver(passed.fileno(), "web"),
        ):
            wrong = f"{'unix' if other == STREAM else 'seqpacket'}:{directory}/in"
            with pytest.raises(StartError, match=r"channels\.c\.framing: is missing"):
                Running(reactor, "systemd:domain=UNIX:index=0", wrong)
            with pytest.raises(StartError, match="is no INET socket"):
                Running(reactor, "systemd:domain=INET:index=0", "tcp:h:1", IDLE)
            for which in ("index=0", "name=web"):
                right = f"{'unix' if kind == STREAM else 'seqpacket'}:{directory}/in"
                running = Running(reactor, f"systemd:domain=UNIX:{which}", right)
                async with running:
                    inner, outer = await running.pair(inside, UNIX, kind, str(directory / "out"))
                    socket.send_fds(outer, [b"a"], [0])
                    outer.send(b"b")
                    data, received, _, _ = await thread(socket.recv_fds, inner, 10, 1)
                    assert (data, len(received)) == (b"a", 1)
                    os.close(received[0])
                    assert await thread(inner.recv, 10) == b"b"
        # The path is systemd's to remove.
        assert (directory / "out").exists()


@contextlib.contextmanager
def handedOver(descriptor: int, name: str) -> Iterator[None]:
    """What systemd's environment says, to this process; its descriptor 3 is put back afterwards."""
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
    saved = os.dup(3)
    os.dup2(descriptor, 3)
    os.environ.update(environment)
    try:
        yield
    finally:
        for key in environment:
            del os.environ[key]
        os.dup2(saved, 3)
        os.close(saved)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A TCP port whose backlog is full: whoever connects waits."""
    with contextlib.ExitStack() as opened:
        inside = opened.enter_context(socket.socket(INET, STREAM))
        inside.bind(("127.0.0.1", 0))
        inside.listen(0)
        waiting = False
        while not waiting:
            more = opened.enter_context(socket.socket(INET, STREAM))
            more.settimeout(0.2)
            try:
                more.connect(inside.getsockname())
            except TimeoutError:
                waiting = True
        port: int = inside.getsockname()[1]
        yield port


@asynchronous
async def test_noAnswer(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """A host that does not answer: the container is held awake for so long, then it is given up."""
    with silent() as port:
        running = Running(
            *(reactor, f"unix:{tmp_path}/out", f"tcp:localhost:{port}", IDLE, REFUSE),
            limits="[limits]\nconnect-timeout = 0.2",
        )
        async with running:
            outer = running.keep(socket.socket(UNIX, STREAM))
            outer.connect(str(tmp_path / "out"))
            await running.until(lambda: running.service.containers["a"].sources.signalled())
            assert await thread(outer.recv, 1) == b""
            await running.said("a/c#1", "did not answer in time")
            await running.until(lambda: not running.service.containers["a"].sources.signalled())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@asynchronous
async def test_stoppedWhileDialling(reactor: ChanproxyReactor, tmp_path: Path, host: str) -> None:
    """Nothing is left of a connection that was being made, or of a name that was being resolved."""
    with silent() as port:
        running = Running(reactor, f"unix:{tmp_path}/out", f"tcp:{host}:{port}", IDLE, REFUSE)
        async with running:
            outer = running.keep(socket.socket(UNIX, STREAM))
            outer.connect(str(tmp_path / "out"))
            await running.until(lambda: running.service._fleet.listeners["a", "c"]._dials)


@asynchronous
async def test_peerGoesWhileDialling(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What a peer sent before it went arrives, though the container was not connected yet."""
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        running = Running(reactor, f"unix:{tmp_path}/out", f"tcp:localhost:{port}", IDLE, REFUSE)
        async with running:
            with socket.socket(UNIX, STREAM) as outer:
                outer.connect(str(tmp_path / "out"))
                outer.send(b"last words")
            inner = running.keep((await thread(inside.accept))[0])
            assert await thread(receiveAll, inner, 100) == b"last words"


@asynchronous
async def test_wrapper(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """An endpoint of Twisted's that wraps another one: what a balancer says first is taken off."""
    port = freePort()
    with listening(UNIX, STREAM, str(tmp_path / "in")) as inside:
        listen = f"haproxy:tcp:{port}:interface=127.0.0.1"
        running = Running(reactor, listen, f"unix:{tmp_path}/in", REFUSE)
        async with running:
            inner, outer = await running.pair(inside, INET, STREAM, ("127.0.0.1", port))
            data = os.urandom(1_000_000)
            outer.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            for sender, receiver in ((outer, inner), (inner, outer)):
                sending = thread(sendAll, sender, [data])
                assert await thread(receiveAll, receiver, len(data)) == data
                await sending
            inner.close()
            assert await thread(receiveAll, outer, 1) == b""
