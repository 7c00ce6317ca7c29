"""What goes from end to end beside bytes: resets, refusals, urgent bytes, who reads no more."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from twisted.internet.task import deferLater

from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import resetting
from support.ports import freePort
from tests.shared.running import Running, listening, receiveAll, thread
from tests.shared.sides import asynchronous

INET, UNIX, STREAM = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM
REFUSE = 'descriptors = "refuse"'


def reset(end: socket.socket) -> None:
    """Close it as a program does that is killed in the middle."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("2i", 1, 0))
    end.close()


@pytest.mark.parametrize("byContainer", [False, True])
@asynchronous
async def test_reset(reactor: ChanproxyReactor, byContainer: bool) -> None:
    """Over TCP it is told as a reset, in both directions, after what came before it."""
    port = freePort()
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        running = Running(reactor, f"tcp:{port}", f"tcp:127.0.0.1:{inside.getsockname()[1]}")
        async with running:
            for answer in (b"", b"answer"):
                inner, outer = await running.pair(inside, INET, STREAM, ("127.0.0.1", port))
                broken, other = (inner, outer) if byContainer else (outer, inner)
                other.send(b"request")
                assert await thread(broken.recv, 10) == b"request"
                if answer:
                    broken.send(answer)
                    assert await thread(other.recv, 10) == answer
                reset(broken)
                with pytest.raises(ConnectionResetError):
                    await thread(other.recv, 10)
                await running.ended()


@asynchronous
async def test_resetWhileHalfClosed(reactor: ChanproxyReactor) -> None:
    """A peer that had sent all, and waits for its answer, as well."""
    port = freePort()
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        running = Running(reactor, f"tcp:{port}", f"tcp:127.0.0.1:{inside.getsockname()[1]}")
        async with running:
            inner, outer = await running.pair(inside, INET, STREAM, ("127.0.0.1", port))
            outer.send(b"request")
            outer.shutdown(socket.SHUT_WR)
            assert await thread(receiveAll, inner, 100) == b"request"
            reset(outer)
            await running.ended()
            # As without a proxy: the end came first, and nothing can be sent any more.
            assert inner.recv(10) == b""
            with pytest.raises(BrokenPipeError):
                inner.send(b"answer")


@asynchronous
async def test_endInOrder(reactor: ChanproxyReactor) -> None:
    """A connection that ends in order does so on both sides."""
    port = freePort()
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        running = Running(reactor, f"tcp:{port}", f"tcp:127.0.0.1:{inside.getsockname()[1]}")
        async with running:
            inner, outer = await running.pair(inside, INET, STREAM, ("127.0.0.1", port))
            inner.send(b"all of it")
            inner.close()
            assert await thread(receiveAll, outer, 100) == b"all of it"
            outer.close()
            await running.ended()


@asynchronous
async def test_resetWithDataUnderWay(reactor: ChanproxyReactor) -> None:
    """What the other peer's kernel has not got yet it gets first, all of it, and then the reset."""
    port, size = freePort(), 1 << 20
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        running = Running(reactor, f"tcp:{port}", f"tcp:127.0.0.1:{inside.getsockname()[1]}")
        async with running:
            inner, outer = await running.pair(inside, INET, STREAM, ("127.0.0.1", port))
            # All of it is with us, and most of it is not with the peer, whose window is small.
            await thread(inner.sendall, bytes(size))
            (proxy,) = running.proxies
            await running.until(lambda: taken(proxy.outbound.messages, inner))
            reset(inner)
            await running.ended()
            assert await thread(receiveAll, outer, size) == bytes(size)
            with pytest.raises(ConnectionResetError):
                await thread(outer.recv, 1)


@asynchronous
async def test_resetNobodyReads(reactor: ChanproxyReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the peer does not take it in time, the kernel keeps it, and the end is one in order."""
    monkeypatch.setattr(resetting, "LONGEST", 0.05)
    port, size = freePort(), 1 << 20
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        running = Running(reactor, f"tcp:{port}", f"tcp:127.0.0.1:{inside.getsockname()[1]}")
        async with running:
            inner, outer = await running.pair(inside, INET, STREAM, ("127.0.0.1", port))
            await thread(inner.sendall, bytes(size))
            (proxy,) = running.proxies
            await running.until(lambda: taken(proxy.outbound.messages, inner))
            reset(inner)
            await running.ended()
            await deferLater(reactor, 0.2)
            assert len(await thread(receiveAll, outer, 2 * size)) == size


def taken(messages: int, end: socket.socket) -> bool:
    """Whether all that was sent has been received by the peer's program."""
    # C{tcpi_unacked} and C{tcpi_notsent_bytes}: nothing is on its way to us.
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 148)
    flying = [struct.unpack_from("I", info, offset)[0] for offset in (24, 144)]
    return messages > 0 and flying == [0, 0]


@pytest.mark.parametrize("family", [INET, UNIX])
@asynchronous
async def test_refused(reactor: ChanproxyReactor, tmp_path: Path, family: int) -> None:
    """Nobody listens in the container: over TCP the peer is told that by a reset."""
    port = freePort()
    listen = f"tcp:{port}" if family == INET else f"unix:{tmp_path}/out"
    connect = "tcp:127.0.0.1:1" if family == INET else f"unix:{tmp_path}/in"
    async with Running(reactor, listen, connect) as running:
        outer = running.keep(socket.socket(family, STREAM))
        address = ("127.0.0.1", port) if family == INET else f"{tmp_path}/out"
        outer.connect(address)
        if family == INET:
            with pytest.raises(ConnectionResetError):
                await thread(outer.recv, 10)
        else:
            assert await thread(outer.recv, 10) == b""
        await running.said("connection closed", "(containers.a.channels.c.connect)")


@pytest.mark.parametrize("family", [INET, UNIX])
@asynchronous
async def test_urgent(reactor: ChanproxyReactor, tmp_path: Path, family: int) -> None:
    """An urgent byte is not lost: it arrives at its place."""
    port = freePort()
    listen = f"tcp:{port}" if family == INET else f"unix:{tmp_path}/out"
    address = ("127.0.0.1", port) if family == INET else f"{tmp_path}/out"
    with listening(UNIX, STREAM, f"{tmp_path}/in") as inside:
        refuse = [REFUSE] if family == INET else []
        async with Running(reactor, listen, f"unix:{tmp_path}/in", *refuse) as running:
            inner, outer = await running.pair(inside, family, STREAM, address)
            for _ in range(20):
                for sender, receiver in ((outer, inner), (inner, outer)):
                    sender.send(b"before")
                    sender.send(b"!", socket.MSG_OOB)
                    sender.send(b"after")
                    assert await thread(receiveAll, receiver, 12) == b"before!after"
            (proxy,) = running.proxies
            assert not proxy.ended


@asynchronous
async def test_shutReading(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """On Unix sockets who sends is told that the other reads no more, and can still be told."""
    with listening(UNIX, STREAM, f"{tmp_path}/in") as inside:
        async with Running(reactor, f"unix:{tmp_path}/out", f"unix:{tmp_path}/in") as running:
            for refuses in (0, 1):
                ends = await running.pair(inside, UNIX, STREAM, f"{tmp_path}/out")
                deaf, sender = ends[refuses], ends[1 - refuses]
                deaf.shutdown(socket.SHUT_RD)

                def refused(sender: socket.socket = sender) -> bool:
                    try:
                        sender.send(b"x")
                    except BrokenPipeError:
                        return True
                    return False

                await running.until(refused)
                deaf.send(b"but hear this")
                assert await thread(sender.recv, 100) == b"but hear this"
                deaf.close()
                await running.ended()
