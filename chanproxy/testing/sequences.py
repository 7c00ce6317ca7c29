"""
For tests: random sequences of what two peers may do, and the plain queue that they should see.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from attrs import define, field
from hypothesis import strategies as st

from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import Ledger
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.interfaces import ChannelClosed
from chanproxy.testing.peers import ChannelKind, Files, Peer, attach, turns, until
from chanproxy.wake.counter import MessageCounter

_SIDE = st.booleans()

STEPS = st.lists(
    st.one_of(
        st.tuples(
            *(st.just("send"), _SIDE, st.integers(0, 30)),
            st.lists(st.integers(0, 2), max_size=3),
        ),
        st.tuples(st.just("flood"), _SIDE, st.integers(1000, 30000), st.integers(1, 20)),
        st.tuples(st.just("read"), _SIDE, st.integers(1, 40)),
        st.tuples(st.just("pause"), st.integers(1, 5)),
        st.tuples(st.just("finish"), _SIDE),
    ),
    max_size=25,
)
"""What peers do: True is the container's.  A peer that does not read is one that is frozen."""


@define(eq=False)
class _Flow:
    """
    One direction: what was sent and is not received yet.

    @ivar messages: bytes and names of descriptors; on a stream, in pieces as they were sent.
    """

    sender: Peer
    receiver: Peer
    packets: bool
    messages: deque[tuple[bytes, list[int]]] = field(factory=deque)
    sent: int = 0
    finished: bool = False
    ended: bool = False

    def send(self, data: bytes, names: list[int], files: Files) -> None:
        """As much as is accepted."""
        if self.finished or not (data or self.packets):
            return
        try:
            accepted = self.sender.send(data, [files.all[name] for name in names])
        except ChannelClosed:
            return
        if accepted is not None:
            self.messages.append((data[:accepted], names))
            self.sent += 1

    def receive(self, files: Files) -> bool:
        """The next thing that the queue has; whether it was there."""
        data, names = self.messages[0] if self.messages else (b"", [])
        # Of a stream never more than one piece: so its descriptors are of its first byte.
        try:
            found = self.receiver.receive(100000 if self.packets else max(len(data), 1))
        except EOFError:
            if self.packets and self.messages and data == b"" and not names:
                # It looks like the end.  If it was the end, the proxy's figures will tell.
                found = (b"", [])
            else:
                assert not self.messages, f"the end came before {len(self.messages)} messages"
                self.ended = True
                return False
        if found is None:
            return False
        assert self.messages, f"received {found}, which was not sent"
        assert files.names(found[1]) == names
        self.messages.popleft()
        if not self.packets and len(found[0]) < len(data):
            self.messages.appendleft((data[len(found[0]) :], []))
            data = data[: len(found[0])]
        assert found[0] == data
        return True


class Model:
    """Two channels of a kind, a proxy between them, and what it should do."""

    def __init__(self, kind: ChannelKind, files: Files) -> None:
        self._kind = kind
        self._files = files
        container, containerPeer = kind.make()
        remote, remotePeer = kind.make()
        self._descriptors = container.carriesDescriptors and kind.exactDescriptors
        packets = container.family == "packets"
        sides = ContainerProtocol(), RemoteProtocol()
        attach(container, sides[0])
        attach(remote, sides[1])
        self._counter = MessageCounter(kind.reactor)
        self._proxy = ChannelProxy(*sides, self._counter, "model#1", Explicit(Ledger()))
        # By who sends: True is the container.
        self._flows = {
            True: _Flow(containerPeer, remotePeer, packets),
            False: _Flow(remotePeer, containerPeer, packets),
        }

    async def run(self, steps: list[tuple[Any, ...]], last: str, which: bool) -> None:
        """
        Take the steps, then end it, and check that nothing is missing.

        @param last: how it ends: both C{finish}, or one may C{close}.
        @param which: who closes.
        """
        for step in steps:
            await self._step(*step)
        complete = [which]
        if last == "close" and self._kind.noticesClose:
            self._flows[which].finished = True
            self._flows[which].sender.close()
        else:
            complete = [True, False]
            for flow in self._flows.values():
                flow.finished = True
                flow.sender.finishSending()
        for side in complete:
            flow = self._flows[side]
            await until(self._kind.reactor, partial(self._drained, flow))
        await self._proxy.whenEnded()
        if self._flows[True].packets:
            for side in complete:
                traffic = self._proxy.outbound if side else self._proxy.inbound
                assert traffic.messages == self._flows[side].sent
        # Each that went in was counted, and what was counted and did not go in waits no more.
        assert self._counter.added >= self._proxy.inbound.messages
        self._counter.close()
        for flow in self._flows.values():
            flow.sender.close()
        await turns(self._kind.reactor)

    def _drained(self, flow: _Flow) -> bool:
        while flow.receive(self._files):
            pass
        return flow.ended

    async def _step(self, what: str, *arguments: Any) -> None:
        if what == "pause":
            await turns(self._kind.reactor, arguments[0])
            return
        flow = self._flows[arguments[0]]
        if what == "send":
            size, names = arguments[1:]
            flow.send(bytes(range(size)), names if self._descriptors else [], self._files)
        elif what == "flood":
            size, times = arguments[1:]
            for number in range(times):
                flow.send(b"%05d" % number * (size // 5), [], self._files)
        elif what == "read":
            other = self._flows[not arguments[0]]
            for _ in range(arguments[1]):
                if not other.receive(self._files):
                    break
        else:
            flow.finished = True
            flow.sender.finishSending()
