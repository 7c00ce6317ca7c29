"""
The container's side for Twisted programs: L{chanproxy.guest} with Deferreds.

L{chanproxy.manager.client.ManagerClient} makes the calls; counters, and their tokens, are those of
L{chanproxy.guest}.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from chanproxy.guest import Counter
from chanproxy.guest._pending import Pending
from chanproxy.manager.client import ManagerClient

T = TypeVar("T")


class WakingDeferreds(Pending):
    """
    As L{chanproxy.guest.waking.WakingCalls}: arm, mark what came before as handled, wait.
    """

    def call(self, make: Callable[[], Deferred[T]]) -> Deferred[T]:
        """
        Wait for one message.

        @param make: what waits from its call on, such as C{queue.get}.
        @return: its own Deferred; the message is handled with the next call.
        """
        armed = make()
        self.finish()

        def received(message: T) -> T:
            self._received()
            return message

        return armed.addCallback(received)

    async def stream(self, make: Callable[[], Deferred[T]]) -> AsyncIterator[T]:
        """
        Iterate; an item is handled when the next one is asked for.

        @param make: a Deferred of the next item; one that fails with L{StopAsyncIteration} ends
            the stream.
        """
        while True:
            try:
                item = await self.call(make)
            except StopAsyncIteration:
                return
            yield item


def createProxy(
    client: ManagerClient,
    container: str,
    name: str,
    remote: socket.socket | int,
    initial: int = 0,
    kind: str = "shared",
) -> Deferred[tuple[socket.socket, Counter]]:
    """
    Put the service between this container and a remote; see L{chanproxy.guest.Guest.createProxy}.

    @param remote: a connected packet socket; the caller's still, to be closed afterwards.
    @return: our end of the channel, non-blocking, and its counter; both the caller's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    counter = Counter.make(initial, kind)
    parameters: dict[str, Any] = {"container": container, "name": name, "counter": kind}
    if kind == "handled" and initial:
        parameters["initial"] = initial
    outer = remote if isinstance(remote, int) else remote.fileno()
    descriptors = (theirs.fileno(), outer, counter.fileno())
    # With the call, its descriptors are with the kernel, or it has failed.
    answered = client.call("ProxyWakeChannel", parameters, descriptors)
    theirs.close()

    def dispose(result: T) -> T:
        ours.close()
        counter.close()
        return result

    answered.addErrback(dispose)
    return answered.addCallback(lambda _: (ours, counter))
