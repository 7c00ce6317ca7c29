"""
Kill a process that carries, again and again, and finish each batch from its record.

C{python -m tests.channels.killing KIND KILLS} is a program, so that forking is cheap; exits 0
when nothing was lost, doubled or out of order, and prints what went through.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, cast

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.inflight import Record
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.channels.streams import UnixStreamChannel
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls

LEAST, MOST = 5, 20
"""
So many have to be killed in the middle of a batch, or more are killed, up to so many times as many:
beside a load the middle is met seldom.
"""

DESCRIPTOR_EVERY = 10
EMPTY_EVERY = 7
STREAM_BYTES = 64

# Events are polled for here; nothing asks the reactor for any.
_NO_REACTOR = cast(ChanproxyReactor, None)


def packet(number: int) -> bytes:
    """The bytes of a packet: empty ones among them, and some larger than the first slots."""
    if number % EMPTY_EVERY == 3:
        return b""
    return struct.pack("Q", number) * (1 + number % 9 if number % 500 else 700)


def sendAll(end: socket.socket, stop: int) -> None:
    """Send numbered messages, as fast as they are taken, until told; then say how many."""
    number = 0
    poller = select.poll()
    poller.register(stop, select.POLLIN)
    # Ends where the receiver cannot take the end for an empty packet.
    while number % 64 or not packet(number) or not poller.poll(0):
        data = packet(number)
        if end.type == socket.SOCK_STREAM:
            data = struct.pack("Q", number).ljust(STREAM_BYTES, b".")
        descriptors = []
        if number % DESCRIPTOR_EVERY == 0:
            descriptors = [os.eventfd(number + 1, os.EFD_CLOEXEC)]
        while True:
            try:
                socket.send_fds(end, [data], descriptors)
                break
            except OSError as error:
                # ETOOMANYREFS: those in flight are as many as are allowed.
                if error.errno != 109:
                    raise
                time.sleep(0.001)
        calls.closeAll(descriptors)
        number += 1
    end.shutdown(socket.SHUT_WR)
    print(f"sent {number}", flush=True)


def checkDescriptor(number: int, found: list[int]) -> None:
    """It is the one that was sent with this message."""
    expected = number % DESCRIPTOR_EVERY == 0
    assert len(found) == expected, (number, found)
    for fd in found:
        assert os.eventfd_read(fd) == number + 1, number
        os.close(fd)


def receivePackets(end: socket.socket) -> int:
    """Check each, up to the end."""
    number = 0
    while True:
        data, found, _, _ = socket.recv_fds(end, 100000, 10)
        if not data and packet(number):
            return number
        assert data == packet(number), (number, data[:16], packet(number)[:16])
        checkDescriptor(number, found)
        number += 1


def receiveStream(end: socket.socket) -> int:
    """Check each; a descriptor comes with the first byte of its message."""
    number, rest = 0, b""
    while True:
        # Never more than the rest of one message: so descriptors are of this one.
        data, found, _, _ = socket.recv_fds(end, STREAM_BYTES - len(rest), 10)
        if not data:
            assert not rest
            return number
        if rest:
            assert not found, number
        else:
            checkDescriptor(number, found)
        rest += data
        if len(rest) == STREAM_BYTES:
            assert rest == struct.pack("Q", number).ljust(STREAM_BYTES, b"."), (number, rest)
            number, rest = number + 1, b""


def carry(source: socket.socket, sink: socket.socket, record: Record, inherited: bool) -> None:
    """The four verbs, until the end of the source."""
    buffer = PeekBuffer(record=record)
    inbound: SeqpacketChannel | UnixStreamChannel
    outbound: SeqpacketChannel | UnixStreamChannel
    if source.type == socket.SOCK_SEQPACKET:
        inbound = SeqpacketChannel(_NO_REACTOR, source, buffer)
        outbound = SeqpacketChannel(_NO_REACTOR, sink, buffer)
        if inherited:
            inbound.inherited()
    else:
        inbound = UnixStreamChannel(_NO_REACTOR, source, buffer)
        outbound = UnixStreamChannel(_NO_REACTOR, sink, buffer)
    while True:
        batch = inbound.peek()
        if len(batch):
            sent = outbound.send(batch)
            inbound.take(sent)
            if sent < len(batch):
                select.select([], [sink], [], 0.01)
        elif batch.ended:
            sink.shutdown(socket.SHUT_WR)
            return
        else:
            select.select([source], [], [], 0.01)
        batch.close()


def child(work: Callable[[], object]) -> int:
    """Fork; the child works and exits."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def main(kind: str, kills: int) -> NoReturn:
    """See above."""
    seed = int.from_bytes(os.urandom(4), "little")
    rng = random.Random(seed)
    socketKind = socket.SOCK_SEQPACKET if kind == "seqpacket" else socket.SOCK_STREAM
    sending, source = socket.socketpair(socket.AF_UNIX, socketKind)
    sink, receiving = socket.socketpair(socket.AF_UNIX, socketKind)
    stopRead, stopWrite = os.pipe()
    record = Record(Record.newDescriptor())

    def receive() -> None:
        for other in (sending, source, sink):
            other.close()
        got = receivePackets(receiving) if kind == "seqpacket" else receiveStream(receiving)
        print(f"received {got}", flush=True)

    def send() -> None:
        for other in (receiving, source, sink):
            other.close()
        sendAll(sending, stopRead)

    receiver = child(receive)
    sender = child(send)
    sending.close()
    receiving.close()
    finished = 0
    for count in range(MOST * kills):
        pump = child(lambda: carry(source, sink, record, count > 0))  # noqa: B023  # forks at once
        if count >= kills and (finished >= LEAST or count == MOST * kills - 1):
            os.write(stopWrite, b"x")
            break
        time.sleep(rng.uniform(0, 0.006))
        os.kill(pump, signal.SIGKILL)
        os.waitpid(pump, 0)
        if record.source is not None:
            assert record.source == calls.socketCookie(source)
            assert record.sink == calls.socketCookie(sink)
            finished += record.finish(source) > 0
    # The pump ends at the source's end; then the receiver must not wait for our own copies.
    statuses = [os.waitpid(pid, 0)[1] for pid in (sender, pump)]
    source.close()
    sink.close()
    statuses.append(os.waitpid(receiver, 0)[1])
    print(f"seed {seed}, killed {count}, finished {finished}, statuses {statuses}", flush=True)
    sys.exit(any(statuses))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
