"""
The control socket: one packet is one call, one connection answers one call at a time.

Knows the packets and their order, and who calls; what the calls do is L{chanproxy.manager}'s.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy import varlink
from chanproxy._syscalls import closeAll
from chanproxy.access import Access, Credentials, credentialsOf
from chanproxy.describe import fitting
from chanproxy.handed import Handed
from chanproxy.interfaces import ChannelBroken, IWakeWatcher, MessageRefused
from chanproxy.manager import Caller, Manager, Reply
from chanproxy.transport import MessageProtocol
from chanproxy.varlink import Call
from chanproxy.varlinkerrors import CallTooLarge, InternalError, LimitExceeded, VarlinkError
from chanproxy.watchers import WatcherGone


class ControlConnection(MessageProtocol):
    """One client."""

    _log = Logger()

    def __init__(self, factory: ControlFactory) -> None:
        self._factory = factory
        self._caller: Caller | None = None
        self._pending: Deferred[Reply] | None = None
        self._stream: _Stream | None = None
        self._lost = False
        self._paused = False

    def connectionMade(self) -> None:
        """Somebody connected: who it is stays as it is now."""
        with socket.socket(fileno=os.dup(self.transport.fileno())) as looked:
            credentials = credentialsOf(looked)
        who = f"process {credentials.pid} of user {credentials.uid}"
        if not self._factory.admit(self, credentials):
            self._log.warn("control: {who} refused: too many connections", who=who)
            self._send(
                LimitExceeded(
                    "limits.control-connections", "there are too many connections; try later"
                ).encode()
            )
            self.transport.loseConnection()
            return
        rights = self._factory.access.rights(credentials)
        if not rights.any:
            self._log.warn("control: {who} has no access", who=who)
        self._caller = Caller(who, rights, self._watch)

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        """A call."""
        handed = Handed(descriptors, self.transport.getHost().name)
        caller = self._caller
        if caller is None or self._lost or self._stream is not None:
            # A watcher's calls go unanswered.  Not unread: its own end of the connection may be
            # attached to one, and would stay open in our own queue when it has gone.
            handed.close()
            return
        call: Call | None = None
        try:
            call = varlink.parseCall(data)
            result = self._factory.manager.dispatch(caller, call, handed)
        except VarlinkError as error:
            self._fail(call, error)
        except OSError as error:
            # Out of descriptors or memory; the client may try again.
            self._fail(call, LimitExceeded("RLIMIT_NOFILE", f"not now: {error.strerror}"))
        except Exception:
            self._log.failure("control: {who}: a call failed", who=caller.who)
            self._fail(call, InternalError())
        else:
            self._answer(call, result)
        finally:
            handed.close()

    def _answer(self, call: Call, result: Reply | Deferred[Reply] | None) -> None:
        if isinstance(result, Reply):
            self._succeed(call, result)
        elif result is None:
            # The connection is a watcher now.
            return
        elif result.called:
            self._settle(call, result)
        else:
            self._pending = result
            self._pause()
            self._settle(call, result)

    def _settle(self, call: Call, result: Deferred[Reply]) -> None:
        def done(outcome: Reply | Failure) -> None:
            self._pending = None
            if isinstance(outcome, Reply):
                self._succeed(call, outcome)
            elif isinstance(outcome.value, VarlinkError):
                self._fail(call, outcome.value)
            else:
                self._log.failure("control: a call failed", outcome)
                self._fail(call, InternalError())
            self._resume()

        result.addBoth(done)

    def _succeed(self, call: Call, reply: Reply) -> None:
        try:
            if not call.oneway:
                self._send(varlink.encodeReply(reply.parameters), reply.descriptors)
        finally:
            closeAll(reply.descriptors)

    def _fail(self, call: Call | None, error: VarlinkError) -> None:
        if call is None or not call.oneway:
            self._send(error.encode())

    def _send(self, data: bytes, descriptors: list[int] | None = None) -> None:
        if self._lost:
            return
        try:
            self.transport.sendMessage(data, descriptors or ())
        except ChannelBroken as error:
            self._log.warn("control: a reply cannot be sent: {error}", error=error)
            self.transport.abortConnection()
        if self.transport.pending:
            # Who does not read its answers is asked for no more calls.
            self._pause()

    def _pause(self) -> None:
        self._paused = True
        self.transport.waitReadable(False)
        self.transport.waitGone()

    def _resume(self) -> None:
        if self._lost or self._pending is not None or self._stream is not None:
            return
        if not self.transport.pending:
            self._paused = False
            self.transport.waitReadable(True)

    def channelWritable(self) -> None:
        """All answers are with the kernel."""
        self._resume()

    def channelReadable(self) -> None:
        """A call has arrived, or the client has gone."""
        if self.transport.peerGone() and (self._paused or self._stream is not None):
            # It waits for no answer any more, and what it still had to say depends on one.
            self.transport.abortConnection()
        else:
            MessageProtocol.channelReadable(self)

    def messagesEnded(self) -> None:
        """The client sends no more: it is answered what it asked; a watcher hears on."""
        if self._stream is None:
            self.transport.loseConnection()
        else:
            self._pause()

    def messageRefused(self, error: MessageRefused) -> None:
        """A call that is too large: it is dropped, unread, and the connection goes on."""
        self.transport.discard()
        if self._stream is None:
            self._send(CallTooLarge(self._factory.messageBytes).encode())

    def _watch(self, remove: Callable[[IWakeWatcher], None]) -> IWakeWatcher:
        self._stream = _Stream(self, remove)
        return self._stream

    def tell(self, state: str, reason: str) -> None:
        """One more answer of a watcher."""
        parameters = {"state": state, "reason": fitting(reason)}
        self._send(varlink.encodeReply(parameters, continues=True))
        if self._lost or self.transport.pending:
            raise WatcherGone("it does not read")

    def hangUp(self) -> None:
        """A watcher that is told no more."""
        if not self._lost:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has gone, or was dropped."""
        self._lost = True
        self._factory.left(self)
        if self._stream is not None:
            self._stream.remove(self._stream)
        if self._caller is not None:
            self._caller.gone()


@implementer(IWakeWatcher)
class _Stream:
    """A connection as a wake watcher."""

    def __init__(
        self, connection: ControlConnection, remove: Callable[[IWakeWatcher], None]
    ) -> None:
        self._connection = connection
        self.remove = remove

    def stateChanged(self, state: str, reason: str) -> None:
        """See L{IWakeWatcher.stateChanged}."""
        self._connection.tell(state, reason)

    def dropped(self) -> None:
        """See L{IWakeWatcher.dropped}."""
        self._connection.hangUp()


class ControlFactory(Factory):
    """Makes a L{ControlConnection} of each client."""

    noisy = False

    def __init__(
        self, manager: Manager, access: Access, messageBytes: int, connections: int
    ) -> None:
        """
        @param messageBytes: the largest call, for people; the transport's buffer enforces it.
        @param connections: how many may be open; an eighth of them for each user but root and
            ourselves.
        """
        self.manager = manager
        self.access = access
        self.messageBytes = messageBytes
        self._limit = connections
        self._open: dict[ControlConnection, int] = {}

    def buildProtocol(self, address: IAddress | None) -> ControlConnection:
        """A client connected."""
        return ControlConnection(self)

    def admit(self, connection: ControlConnection, credentials: Credentials) -> bool:
        """Whether there is room for one more connection of this user."""
        mine = sum(1 for uid in self._open.values() if uid == credentials.uid)
        own = credentials.uid in (0, os.geteuid())
        if len(self._open) >= self._limit or (not own and mine >= max(self._limit // 8, 1)):
            return False
        self._open[connection] = credentials.uid
        return True

    def left(self, connection: ControlConnection) -> None:
        """A connection has ended."""
        self._open.pop(connection, None)

    def closeAll(self) -> None:
        """The service stops."""
        for connection in list(self._open):
            connection.transport.loseConnection()
