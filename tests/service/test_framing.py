"""framing = "length32": packets at one end, a stream at the other, through the service."""

from __future__ import annotations

import os
import resource
import socket
import struct
import time
from pathlib import Path

import pytest
from twisted.internet.task import deferLater

from chanproxy.interfaces import ChanproxyReactor
from support.ports import freePort
from tests.shared.running import Running, listening, receiveAll, sendAll, thread
from tests.shared.sides import asynchronous

IDLE = 'handled = "idle"\nsilence = 0.02'
FRAMED = 'framing = "length32"\ndescriptors = "refuse"'
READ = 'handled = "consumed"'
UNIX, INET = socket.AF_UNIX, socket.AF_INET
STREAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_SEQPACKET


def frame(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def receiveFrame(peer: socket.socket) -> bytes:
    (size,) = struct.unpack("!I", receiveAll(peer, 4))
    return receiveAll(peer, size)


@pytest.mark.parametrize("family", [UNIX, INET])
@asynchronous
async def test_framing(reactor: ChanproxyReactor, tmp_path: Path, family: int) -> None:
    """A stream outside, packets inside: boundaries both ways, empty packets, large ones."""
    path = str(tmp_path / "out")
    port = freePort()
    listen = f"unix:{path}" if family == UNIX else f"tcp:{port}"
    with listening(UNIX, PACKETS, str(tmp_path / "in")) as inside:
        running = Running(reactor, listen, f"seqpacket:{tmp_path}/in", FRAMED, READ)
        async with running:
            address = path if family == UNIX else ("127.0.0.1", port)
            inner, outer = await running.pair(inside, family, STREAM, address)
            largest = 100_000 if family == UNIX else 200_000
            packets = [b"a", b"bc", b"x" * 5000, os.urandom(largest), b"end"]
            stream = b"".join(map(frame, packets))
            sending = thread(sendAll, outer, [stream[:3], stream[3:9], stream[9:]])
            for packet in packets:
                assert await thread(inner.recv, 300_000) == packet
            await sending
            await running.until(lambda: running.value() == 0)
            sending = thread(sendAll, inner, [*packets, b""])
            for packet in [*packets, b""]:
                assert await thread(receiveFrame, outer) == packet
            await sending
            # Nothing wakes the reactor while a frame is not complete.
            outer.send(b"\0\0")
            await thread(time.sleep, 0.05)
            before = resource.getrusage(resource.RUSAGE_THREAD)
            await deferLater(reactor, 0.2)
            after = resource.getrusage(resource.RUSAGE_THREAD)
            # A few are the test's own; looking each 10 ms would be twenty.
            assert after.ru_nvcsw - before.ru_nvcsw <= 15
            assert after.ru_utime - before.ru_utime < 0.05
            outer.send(b"\0\1!")
            assert await thread(inner.recv, 10) == b"!"
            outer.shutdown(socket.SHUT_WR)
            assert await thread(inner.recv, 10) == b""


@asynchronous
async def test_framesTheOtherWay(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Packets outside, a stream inside: each is sent whole, however full it is there."""
    with listening(INET, STREAM, ("127.0.0.1", 0)) as inside:
        port = inside.getsockname()[1]
        out = str(tmp_path / "out")
        running = Running(reactor, f"seqpacket:{out}", f"tcp:127.0.0.1:{port}", IDLE, FRAMED)
        async with running:
            inner, outer = await running.pair(inside, UNIX, PACKETS, out)
            packets = [os.urandom(1 + number * 37 % 60_000) for number in range(400)]
            sending = thread(sendAll, outer, packets)
            for packet in packets:
                assert await thread(receiveFrame, inner) == packet
            await sending
            inner.sendall(b"".join(map(frame, packets[:5])))
            for packet in packets[:5]:
                assert await thread(outer.recv, 100_000) == packet


@asynchronous
async def test_framesCarryNoDescriptors(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Not even where the stream below could: what came before arrives, then the connection ends."""
    with listening(UNIX, STREAM, str(tmp_path / "in")) as inside:
        listen = f"seqpacket:{tmp_path}/out"
        running = Running(reactor, listen, f"unix:{tmp_path}/in", FRAMED)
        async with running:
            inner, outer = await running.pair(inside, UNIX, PACKETS, str(tmp_path / "out"))
            outer.send(b"before")
            assert await thread(receiveFrame, inner) == b"before"
            socket.send_fds(outer, [b"with"], [0])
            assert await thread(inner.recv, 10) == b""
            await running.said("a/c#1: closed, to the container", "frames carry none")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (struct.pack("!I", 5000), "a frame of 5000 bytes exceeds 4096; raise limits.message-bytes"),
        (frame(b"abc")[:-1], "the stream ended inside a frame, after 6 bytes"),
        (b"\0", "the stream ended inside a frame, after 1 bytes"),
    ],
)
@asynchronous
async def test_badFrames(reactor: ChanproxyReactor, tmp_path: Path, sent: bytes, says: str) -> None:
    """Too long, or cut: the channel is closed, after what came before."""
    with listening(UNIX, PACKETS, str(tmp_path / "in")) as inside:
        running = Running(
            *(reactor, f"unix:{tmp_path}/out", f"seqpacket:{tmp_path}/in", FRAMED),
            limits="[limits]\nmessage-bytes = 4096",
        )
        async with running:
            inner, outer = await running.pair(inside, UNIX, STREAM, str(tmp_path / "out"))
            outer.send(frame(b"good") + sent)
            outer.shutdown(socket.SHUT_WR)
            assert await thread(inner.recv, 10) == b"good"
            assert await thread(inner.recv, 10) == b""
            await running.said("a/c#1: closed", says)
