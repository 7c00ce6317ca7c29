"""
What trace points cost: C{python bench/trace.py}.

Carries packets through one channel proxy in this process, turn by turn, with its trace points cut
out, with tracing off, and while tracing into a file.  Prints the medians of rounds that alternate.
"""

from __future__ import annotations

import inspect
import os
import socket
import statistics
import tempfile
import textwrap
import time
from typing import cast

from rich.console import Console
from rich.table import Table
from twisted.internet.address import UNIXAddress
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Protocol

from chanproxy import trace
from chanproxy.carry import loop
from chanproxy.carry.ledger import Explicit, Ledger
from chanproxy.carry.loop import Direction
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.transport import SeqpacketTransport
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.recording import ChromeFormat, Recording
from chanproxy.wake.counter import MessageCounter

TURNS = 400
ROUNDS = 15


class Rig:
    """A proxy whose reactor stands still: a turn happens when it is told to."""

    def __init__(self) -> None:
        # It is never run.
        reactor = cast(ChanproxyReactor, EPollReactor())
        self.reactor = reactor
        self.buffer = PeekBuffer()
        self.container = ContainerProtocol()
        self.remote = RemoteProtocol()
        self.inside, self.outside = self._connect(self.container), self._connect(self.remote)
        self.counter = MessageCounter(reactor)
        self.proxy = ChannelProxy(
            self.container, self.remote, self.counter, "bench#1", Explicit(Ledger())
        )

    def _connect(self, protocol: Protocol) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        nowhere = UNIXAddress(None)
        transport = SeqpacketTransport(self.reactor, ours, self.buffer, nowhere, nowhere)
        transport.protocol = protocol
        Protocol.makeConnection(protocol, transport)
        return theirs

    def measure(self, packets: int) -> float:
        """Seconds of the proxy's own time per packet, for turns of so many packets."""
        spent = 0.0
        for _ in range(TURNS):
            for _ in range(packets):
                self.outside.send(b"x" * 64)
            begin = time.perf_counter()
            self.proxy.readable(self.remote)
            spent += time.perf_counter() - begin
            for _ in range(packets):
                self.inside.recv(64)
        return spent / TURNS / packets


POINT = "(self._carry if trace.active is None else self._carryTraced)"
"""As the loop in L{chanproxy.carry.loop} has it."""


def withoutPoints(rig: Rig, packets: int) -> float:
    """With the point in the loop cut out; those outside of it look once a turn."""
    kept = Direction.pump
    source = textwrap.dedent(inspect.getsource(kept))
    assert source.count(POINT) == 1, "the point is written differently now"
    names = dict(vars(loop))
    exec(source.replace(POINT, "self._carry"), names)  # noqa: S102  # the same loop, without it
    Direction.pump = names["pump"]  # type: ignore[method-assign]
    try:
        return rig.measure(packets)
    finally:
        Direction.pump = kept  # type: ignore[method-assign]


def whileTracing(rig: Rig, packets: int) -> float:
    """Into a file that is thrown away."""
    with tempfile.TemporaryFile() as file:
        recording = Recording(rig.reactor, ChromeFormat(), os.dup(file.fileno()), 2**30)
        try:
            return rig.measure(packets)
        finally:
            recording.stop()


def main() -> None:
    rig = Rig()
    table = Table("packets a turn", "points cut out", "tracing off", "tracing on")
    for packets in (1, 8, 32):
        rounds: list[tuple[float, float, float]] = [
            (
                withoutPoints(rig, packets),
                rig.measure(packets),
                whileTracing(rig, packets),
            )
            for _ in range(ROUNDS)
        ]
        medians = [statistics.median(column) * 1e6 for column in zip(*rounds, strict=True)]
        table.add_row(str(packets), *(f"{each:.2f} µs" for each in medians))
    begin = time.perf_counter()
    for _ in range(1_000_000):
        if trace.active is not None:
            raise AssertionError
    look = (time.perf_counter() - begin) * 1e3
    Console().print(table)
    Console().print(f"one look at trace.active: {look:.0f} ns; a turn has six at most")


if __name__ == "__main__":
    main()
