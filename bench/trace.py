"""
What trace points cost: C{python -m bench.trace}.

Carries packets through one channel proxy in this process, turn by turn, with tracing off and while
tracing into a file.  Prints the medians of rounds that alternate; and how much of a turn with
tracing off are its looks at whether somebody traces, which are all that a trace point is then.
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from typing import cast

from rich.console import Console
from rich.table import Table
from twisted.internet.address import UNIXAddress
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Protocol

from chanproxy import trace
from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.transport import SeqpacketTransport
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.recording import ChromeFormat, Recording
from chanproxy.wake.counter import MessageCounter

TURNS = 400
ROUNDS = 15
LOOKS = 6
"""In a turn, at most."""


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


def look() -> float:
    """Seconds that a look at whether somebody traces takes."""
    count = 1_000_000
    begin = time.perf_counter()
    for _ in range(count):
        if trace.active is not None:
            raise AssertionError
    return (time.perf_counter() - begin) / count


def whileTracing(rig: Rig, packets: int) -> float:
    """Into a file that is thrown away."""
    with tempfile.TemporaryFile() as file:
        recording = Recording(rig.reactor, ChromeFormat(), os.dup(file.fileno()), 2**30)
        try:
            return rig.measure(packets)
        finally:
            recording.stop()


def main() -> None:
    """Print the table."""
    rig = Rig()
    seconds = look()
    table = Table("packets a turn", "tracing off", "of that, looks", "tracing on")
    for packets in (1, 8, 32):
        rounds = [(rig.measure(packets), whileTracing(rig, packets)) for _ in range(ROUNDS)]
        off, on = (statistics.median(column) for column in zip(*rounds, strict=True))
        looks = LOOKS * seconds / packets
        table.add_row(
            str(packets), f"{off * 1e6:.2f} µs", f"{looks / off:.1%}", f"{on * 1e6:.2f} µs"
        )
    Console().print(table)
    Console().print(f"one look: {seconds * 1e9:.0f} ns; a turn has {LOOKS} at most")


if __name__ == "__main__":
    main()
