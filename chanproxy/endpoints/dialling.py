"""
Dialling: one connection to an address, in the reactor.

One class for all kinds of sockets.  Knows nothing of proxies.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.endpoints.addresses import CLOEXEC, SocketAddress, Target
from chanproxy.endpoints.ports import addressOf, serve
from chanproxy.endpoints.resolving import resolve
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.foreign import closeSocket
from chanproxy.kernel.peers import Identity, assumed

CONNECT_PAUSE = 0.01
"""Seconds between tries at a server whose backlog is full; the kernel has no event for it."""

AT_ONCE = 16
"""Of those that wait for room, how many try in one turn, as long as each finds some."""

_LATE = "it did not answer in time"

_NOWHERE = UNIXAddress(None)
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class Queue:
    """
    Those who wait for room in the backlog of one server: first come, first served.

    Only the first of them tries, again and again; so what waiting costs does not depend on how many
    they are.
    """

    def __init__(self, reactor: ChanproxyReactor) -> None:
        self._reactor = reactor
        self._waiting: dict[Attempt, None] = {}
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, attempt: Attempt) -> None:
        """Queue an attempt that found no room."""
        self._waiting[attempt] = None
        self._arm(CONNECT_PAUSE)

    def leave(self, attempt: Attempt) -> None:
        """It waits no more.  Idempotent."""
        self._waiting.pop(attempt, None)
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None

    def _arm(self, seconds: float) -> None:
        if self._call is None and self._waiting:
            self._call = self._reactor.callLater(seconds, self._try)

    def _try(self) -> None:
        self._call = None
        for attempt in list(itertools.islice(self._waiting, AT_ONCE)):
            # One before it may have ended it.
            if attempt in self._waiting and not attempt.tryAgain():
                self._arm(CONNECT_PAUSE)
                return
            self._waiting.pop(attempt, None)
        self._arm(0)


@frozen
class Server:
    """
    What all share that connect to one address.

    @ivar queue: those that wait for room there.
    @ivar lookUp: gives the hosts and ports that it stands for at the time, where its target is not
        known; cancellable.
    """

    reactor: ChanproxyReactor
    address: SocketAddress
    buffer: PeekBuffer
    queue: Queue
    lookUp: Callable[[], Deferred[Sequence[tuple[str, int]]]]


class Attempt:
    """
    One try to connect: at one address of a host after the other, and repeated while the backlog of
    a Unix socket is full.
    """

    def __init__(
        self,
        server: Server,
        factory: IProtocolFactory,
        timeout: float,
        bare: bool,
        identity: Identity | None = None,
    ) -> None:
        """
        @param timeout: seconds until it fails.
        @param bare: see L{serve}.
        @param identity: connect under this user and group.
        """
        self._reactor = server.reactor
        self._address = server.address
        self._buffer = server.buffer
        self._queue = server.queue
        self._factory = factory
        self._deadline = server.reactor.seconds() + timeout
        self._bare = bare
        self._identity = identity
        self._queued = False
        self._later: IDelayedCall | None = None
        self._lookUp = server.lookUp
        self._resolving: Deferred[Sequence[tuple[str, int]]] | None = None
        self._connecting: socket.socket | None = None
        self._targets: list[Target] = []
        self.result: Deferred[IProtocol] = Deferred(self._cancel)
        self._target = server.address.target()
        if self._target is None:
            self._resolve()
        elif self._target.family in _INTERNET:
            self._targets = [self._target]
            self._tryNext(None, "")
        else:
            self._tryQueued(self._target)

    # The kinds.

    def tryAgain(self) -> bool:
        """
        There may be room now.

        @return: whether the next one may try: this one has found room, or is over.
        """
        assert self._target is not None
        return self._tryQueued(self._target)

    def _tryQueued(self, target: Target) -> bool:
        """
        Connect to what has a backlog that may be full for now.

        @return: it waits no more.
        """
        if self._queue and not self._queued:
            # Who came later does not come before those who wait.
            self._enqueue()
            return False
        connecting, place = self._open(target), target.place
        if connecting is None:
            self._stopWaiting()
            return True
        self._connecting = connecting
        try:
            if self._identity is None:
                connecting.connect(place)
            else:
                with assumed(self._identity):
                    connecting.connect(place)
        except BlockingIOError as error:
            if error.errno == errno.EINPROGRESS:
                self._stopWaiting()
                self._wait(place)
                return True
            self._drop()
            self._enqueue()
            return False
        except OSError as error:
            self._drop()
            self._stopWaiting()
            self._failed(error.errno, error.strerror or str(error))
        else:
            self._stopWaiting()
            self._connected(place)
        return True

    def _enqueue(self) -> None:
        if not self._queued:
            self._queued = True
            left = max(self._deadline - self._reactor.seconds(), 0)
            self._later = self._reactor.callLater(left, self._late)
            self._queue.wait(self)

    def _late(self) -> None:
        self._later = None
        self._stopWaiting()
        self._failed(errno.EAGAIN, "its backlog stayed full")

    def _stopWaiting(self) -> None:
        if self._queued:
            self._queued = False
            self._queue.leave(self)
            self._stopClock()

    def _resolve(self) -> None:
        self._later = self._callAtDeadline("its name was not resolved in time")
        self._resolving = resolving = self._lookUp()
        resolving.addCallbacks(self._resolved, self._unresolved)

    def _resolved(self, found: Sequence[tuple[str, int]]) -> None:
        if self._resolving is None:
            return
        self._resolving = None
        self._stopClock()
        for host, port in found:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._targets.append(Target(family, socket.SOCK_STREAM, (host, port)))
        self._tryNext(None, "there is no such host")

    def _unresolved(self, failure: Failure) -> None:
        if self._resolving is None:
            return
        self._resolving = None
        self._stopClock()
        self._failed(None, failure.getErrorMessage())

    def _tryNext(self, number: int | None, why: str) -> None:
        """The next address; without one, the reason is why it failed."""
        if not self._targets:
            self._failed(number, why)
            return
        target = self._targets.pop(0)
        connecting, place = self._open(target), target.place
        if connecting is None:
            return
        self._connecting = connecting
        failed = connecting.connect_ex(place)
        if failed == 0:
            self._connected(place)
        elif failed == errno.EINPROGRESS:
            self._wait(place)
        else:
            self._drop()
            self._tryNext(failed, os.strerror(failed))

    def _wait(self, place: Any) -> None:
        """Until the kernel says how it went."""
        assert self._connecting is not None
        if self._targets:
            # One that answers nothing leaves time for the others.
            left = max(self._deadline - self._reactor.seconds(), 0)
            share = left / (len(self._targets) + 1)
            self._later = self._reactor.callLater(share, self._passOver)
        else:
            self._later = self._callAtDeadline(_LATE)
        poller = self._buffer.poller(self._reactor)
        answered = partial(self._answered, place)
        poller.watch(self._connecting.fileno(), select.EPOLLOUT, answered)

    def _passOver(self) -> None:
        self._later = None
        assert self._connecting is not None
        self._buffer.poller(self._reactor).unwatch(self._connecting.fileno())
        self._drop()
        self._tryNext(errno.ETIMEDOUT, _LATE)

    def _answered(self, place: Any, events: int) -> None:
        connecting = self._connecting
        assert connecting is not None
        self._buffer.poller(self._reactor).unwatch(connecting.fileno())
        self._stopClock()
        failed = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            self._drop()
            self._tryNext(failed, os.strerror(failed))
        else:
            self._connected(place)

    # What they have in common.

    def _open(self, target: Target) -> socket.socket | None:
        try:
            return socket.socket(target.family, target.kind | CLOEXEC)
        except OSError as error:
            self._failed(error.errno, error.strerror or str(error))
            return None

    def _connected(self, place: Any) -> None:
        connecting, self._connecting = self._connecting, None
        assert connecting is not None
        address = addressOf(connecting.family, place)
        try:
            protocol = self._factory.buildProtocol(address)
            if protocol is not None:
                addresses = (_NOWHERE, address)
                serve(self._reactor, connecting, self._buffer, protocol, *addresses, self._bare)
        except Exception:
            closeSocket(connecting)
            if not self.result.called:
                self.result.errback(Failure())
            return
        if protocol is None:
            closeSocket(connecting)
            self._failed(None, "the factory made no protocol")
        else:
            self.result.callback(protocol)

    def _callAtDeadline(self, why: str) -> IDelayedCall:
        def late() -> None:
            self._later = None
            self._giveUp()
            self._failed(errno.ETIMEDOUT, why)

        return self._reactor.callLater(max(self._deadline - self._reactor.seconds(), 0), late)

    def _stopClock(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _drop(self) -> None:
        if self._connecting is not None:
            # Not connected, it has nothing of anybody's.
            self._connecting.close()
            self._connecting = None

    def _giveUp(self) -> None:
        resolving, self._resolving = self._resolving, None
        if resolving is not None:
            resolving.cancel()
        if self._connecting is not None:
            self._buffer.poller(self._reactor).unwatch(self._connecting.fileno())
            self._drop()

    def _cancel(self, result: Deferred[IProtocol]) -> None:
        self._stopWaiting()
        self._stopClock()
        self._giveUp()

    def _failed(self, number: int | None, why: str) -> None:
        if not self.result.called:
            who = f" as user {self._identity.user}" if self._identity is not None else ""
            error = ConnectError(number, f"connecting to {self._address.shown}{who}: {why}")
            self.result.errback(Failure(error))


@implementer(IStreamClientEndpoint)
class ChannelClientEndpoint:
    """
    Connect to any kind of socket, for a bare channel.

    @ivar timeout: seconds to go on trying, on Unix sockets while the backlog is full; may be
        changed.
    """

    bare = True

    def __init__(
        self,
        reactor: ChanproxyReactor,
        address: SocketAddress,
        buffer: PeekBuffer | None = None,
        timeout: float = 30.0,
        lookUp: Callable[[], Deferred[Sequence[tuple[str, int]]]] | None = None,
    ) -> None:
        """@param lookUp: see L{Server}; None: it is the name of a host."""
        looked = lookUp or partial(resolve, reactor, address)
        self._server = Server(reactor, address, buffer or PeekBuffer(), Queue(reactor), looked)
        self.timeout = timeout

    def connect(
        self, protocolFactory: IProtocolFactory, identity: Identity | None = None
    ) -> Deferred[IProtocol]:
        """
        Fires with the protocol, or fails with L{ConnectError}, or with what the factory or its
        protocol raises.  Cancellable.

        @param identity: connect as this user and group, to a Unix socket.
        """
        attempt = Attempt(self._server, protocolFactory, self.timeout, self.bare, identity)
        return attempt.result
