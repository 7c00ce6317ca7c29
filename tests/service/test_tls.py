"""TLS at one end, by Twisted's endpoints: bytes both ways, both ends of it, its close."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

import pytest
from twisted.internet.tcp import Connection

from chanproxy.channels import buffered
from chanproxy.interfaces import ChanproxyReactor
from support.ports import freePort
from tests.shared.certificates import makeCertificate
from tests.shared.running import Running, listening, receiveAll, sendAll, thread
from tests.shared.sides import asynchronous

# Twisted hands its own library objects of a kind that this one gives up.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

REFUSE = 'descriptors = "refuse"'
READ = 'handled = "consumed"'
SIZE = 2_000_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for loopback, and its key, in a directory of their own."""
    return makeCertificate(tmp_path_factory.mktemp("tls"))


@asynchronous
async def test_listening(reactor: ChanproxyReactor, tmp_path: Path, certificate: Path) -> None:
    """TLS outside, a plain Unix stream inside; the container's close reaches the peer."""
    port = freePort()
    listen = (
        f"ssl:{port}:interface=127.0.0.1:privateKey={certificate}/key.pem"
        f":certKey={certificate}/cert.pem"
    )
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with listening(socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "in")) as inside:
        running = Running(reactor, listen, f"unix:{tmp_path}/in", REFUSE, READ)
        async with running:
            plain = socket.create_connection(("127.0.0.1", port), 5)
            wrapped = thread(context.wrap_socket, plain, False, True, True, "localhost")
            inner = running.keep((await thread(inside.accept))[0])
            outer = running.keep(await wrapped)
            data = os.urandom(SIZE)
            for sender, receiver in ((inner, outer), (outer, inner)):
                sending = thread(sendAll, sender, [data])
                assert await thread(receiveAll, receiver, SIZE) == data
                await sending
            await running.until(lambda: running.value() == 0)
            inner.sendall(b"last")
            inner.close()
            assert await thread(receiveAll, outer, 100) == b"last"
            await running.ended()


@asynchronous
async def test_connecting(reactor: ChanproxyReactor, tmp_path: Path, certificate: Path) -> None:
    """A plain Unix stream of the container's, TLS to a server outside, whose close reaches it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / "root.pem").write_bytes((certificate / "cert.pem").read_bytes())
    with listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as outside:
        connect = f"tls:localhost:{outside.getsockname()[1]}:trustRoots={roots}"
        listen = f"unix:{tmp_path}/out"
        running = Running(reactor, listen, connect, 'initiator = "container"', REFUSE)
        async with running:
            inner = running.keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            inner.connect(str(tmp_path / "out"))
            inner.sendall(b"early")
            accepted, _ = await thread(outside.accept)
            outer = await thread(context.wrap_socket, accepted, True)
            running.keep(outer)
            assert await thread(receiveAll, outer, 5) == b"early"
            data = os.urandom(SIZE)
            for sender, receiver in ((inner, outer), (outer, inner)):
                sending = thread(sendAll, sender, [data])
                assert await thread(receiveAll, receiver, SIZE) == data
                await sending
            outer.sendall(b"last")
            # Sends the notice, and waits for that of the other side.
            await thread(outer.unwrap)
            assert await thread(receiveAll, inner, 100) == b"last"


@asynchronous
async def test_notTrusted(reactor: ChanproxyReactor, tmp_path: Path, certificate: Path) -> None:
    """A server whose certificate nobody vouches for: nothing of the container's gets there."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    roots = tmp_path / "roots"
    roots.mkdir()
    with listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as outside:
        connect = f"tls:localhost:{outside.getsockname()[1]}:trustRoots={roots}"
        listen = f"unix:{tmp_path}/out"
        running = Running(reactor, listen, connect, 'initiator = "container"', REFUSE)
        async with running:
            inner = running.keep(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            inner.connect(str(tmp_path / "out"))
            inner.sendall(b"secret")
            accepted = running.keep((await thread(outside.accept))[0])
            with pytest.raises(ssl.SSLError):
                await thread(context.wrap_socket, accepted, True)
            assert await thread(receiveAll, inner, 1) == b""


def transports(reactor: ChanproxyReactor) -> list[object]:
    """Connections of Twisted's."""
    watched = [*reactor.getReaders(), *reactor.getWriters()]
    return [each for each in watched if isinstance(each, Connection)]


@asynchronous
async def test_peerIgnoresTheEnd(
    reactor: ChanproxyReactor, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS peer that never says its end, too, keeps nothing of ours for longer than is allowed."""
    monkeypatch.setattr(buffered, "CLOSE_SECONDS", 0.1)
    port = freePort()
    listen = (
        f"ssl:{port}:interface=127.0.0.1:privateKey={certificate}/key.pem"
        f":certKey={certificate}/cert.pem"
    )
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with listening(socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "in")) as inside:
        running = Running(reactor, listen, f"unix:{tmp_path}/in", REFUSE)
        async with running:
            plain = socket.create_connection(("127.0.0.1", port), 5)
            wrapped = thread(context.wrap_socket, plain, False, True, True, "localhost")
            inner = running.keep((await thread(inside.accept))[0])
            running.keep(await wrapped)
            assert transports(reactor)
            inner.close()
            await running.ended()
            await running.until(lambda: not transports(reactor))
