"""
Those who call: one message is one call, one connection answers one call at a time.

Knows the messages and their order, and who calls; where they connect, and what a message is there,
is said in L{chanproxy.manager.ports}; what the calls do is
L{chanproxy.manager.dispatch}'s.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy import config
from chanproxy.channels.transport import MessageProtocol
from chanproxy.container.watchers import WatcherGone
from chanproxy.interfaces import ChannelBroken, ChanproxyReactor, IWakeWatcher, MessageRefused
from chanproxy.kernel.calls import closeAll
from chanproxy.kernel.descriptors import limit
from chanproxy.kernel.fewlines import FewLines
from chanproxy.manager import varlink
from chanproxy.manager.access import Credentials, IAccess, Rights, credentialsOf
from chanproxy.manager.attached import Handed
from chanproxy.manager.caller import Caller, Reply
from chanproxy.manager.crowds import Account, Crowd, Terms
from chanproxy.manager.describe import fitting
from chanproxy.manager.dispatch import Manager
from chanproxy.manager.errors import (
    CallMalformed,
    CallTooLarge,
    InternalError,
    LimitExceeded,
    VarlinkError,
)
from chanproxy.manager.refusals import noAccess, notNow
from chanproxy.manager.varlink import Call
from chanproxy.words import listed

STRANGERS = 1024
"""
Bytes of a call that are read for somebody who has no access, who may only ask what answers here:
that is known before anything is made of them.
"""


class ControlConnection(MessageProtocol):
    """One client of the control socket: its calls, one after the other."""

    _log = Logger()

    def __init__(self, factory: ControlFactory) -> None:
        self._factory = factory
        self._caller: Caller | None = None
        self._pending: Deferred[Reply] | None = None
        self._stream: _Stream | None = None
        self._lost = False
        self._paused = False
        self._account: Account | None = None
        self._credentials: Credentials | None = None
        self._waits = False
        self._heard = 0

    def connectionMade(self) -> None:
        """Somebody connected: who it is stays as it is now."""
        with socket.socket(fileno=os.dup(self.transport.fileno())) as looked:
            credentials = credentialsOf(looked)
        who = self._factory.access.user(credentials).who
        rights = self._factory.access.rights(credentials)
        account = self._factory.admit(self, credentials, rights)
        if account is None:
            self._factory.lines.warn("control: {who} refused: too many connections", who=who)
            self._send(
                LimitExceeded(
                    "limits.control-connections",
                    "there are too many connections; try later, or raise "
                    "limits.control-connections",
                ).encode()
            )
            self.transport.loseConnection()
            return
        if not rights.any:
            self._factory.lines.warn("control: {who} has no access", who=who)
        self._account, self._credentials = account, credentials
        home = self._factory.access.container
        self._caller = Caller(who, credentials, rights, self._watch, account, home)

    def review(self) -> None:
        """Hang up on somebody who may do less by now than when it connected."""
        caller, credentials = self._caller, self._credentials
        if caller is None or credentials is None or self._lost:
            return
        if not self._factory.access.rights(credentials).covers(caller.rights):
            self._factory.lines.warn("control: {who} has lost access: closed", who=caller.who)
            self.transport.abortConnection()

    def messageReceived(self, data: bytes, descriptors: list[int]) -> None:
        """Carry out a call; those of a watcher go unanswered."""
        handed = Handed(descriptors, self._factory.homes)
        caller = self._caller
        if caller is None or self._lost or self._stream is not None:
            # A watcher's calls go unanswered.  Not unread: its own end of the connection may be
            # attached to one, and would stay open in our own queue when it has gone.
            handed.close()
            return
        self._heard += 1
        # Of a processor, as the share is; what others run meanwhile is not this caller's.
        began = time.thread_time()
        try:
            self._received(caller, data, handed)
        finally:
            handed.close()
            caller.account.charge(time.thread_time() - began)
            self._waitForTurn(caller.account)

    def _waitForTurn(self, account: Account) -> None:
        """Whoever has taken more than its share is heard again when that is made up for."""
        if account.owes and not self._lost and not self._waits:
            self._waits = True
            self._pause()
            account.wait(self._goOn)

    def _goOn(self) -> None:
        self._waits = False
        self._resume()

    def _received(self, caller: Caller, data: bytes, handed: Handed) -> None:
        call: Call | None = None
        try:
            if not caller.rights.any and len(data) > STRANGERS:
                raise noAccess(caller.who)
            call = varlink.parseCall(data)
            result = self._factory.manager.dispatch(caller, call, handed)
        except VarlinkError as error:
            self._fail(call, error)
        except OSError as error:
            self._fail(call, notNow(error))
        except Exception:
            self._log.failure("control: {who}: a call failed", who=caller.who)
            self._fail(call, InternalError())
        else:
            self._answer(call, result)

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
        if self._lost or self._waits or self._pending is not None or self._stream is not None:
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
            return
        account = self._account
        if account is not None:
            # Others may have taken what is for all of them.
            self._waitForTurn(account)
        heard, began = self._heard, time.thread_time()
        MessageProtocol.channelReadable(self)
        if account is not None and self._heard == heard:
            # What is no call, or none yet, is looked at as well.
            account.charge(time.thread_time() - began)

    def messagesEnded(self) -> None:
        """The client sends no more: it is answered what it asked; a watcher hears on."""
        if self._stream is None:
            self.transport.loseConnection()
        else:
            self._pause()

    def messageRefused(self, error: MessageRefused) -> None:
        """A call that is too large: it is dropped, unread, and the connection goes on."""
        self.transport.discard()
        large = error.limit == "message-bytes"
        wrong = CallTooLarge(self._factory.messageBytes) if large else CallMalformed(str(error))
        if self._stream is None:
            self._send(wrong.encode())

    def _watch(self, remove: Callable[[IWakeWatcher], None]) -> IWakeWatcher:
        self._stream = _Stream(self, remove)
        return self._stream

    def tell(self, state: str, reasons: Sequence[str]) -> None:
        """One more answer of a watcher."""
        shown = fitting(reasons)
        parameters = {"state": state, "reason": listed(shown), "reasons": shown}
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
        if self._account is not None:
            self._account.leave(self._goOn)
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

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """See L{IWakeWatcher.stateChanged}."""
        self._connection.tell(state, reasons)

    def dropped(self) -> None:
        """See L{IWakeWatcher.dropped}."""
        self._connection.hangUp()


class ControlFactory(Factory):
    """
    Makes a L{ControlConnection} of each client, wherever it connects.

    @ivar homes: the addresses of all sockets that lead here.
    """

    noisy = False

    def __init__(
        self,
        manager: Manager,
        access: IAccess,
        messageBytes: int,
        crowd: Crowd,
        lines: FewLines,
    ) -> None:
        """
        @param messageBytes: the largest call, for people; the transport's buffer enforces it.
        @param crowd: what callers may take.
        @param lines: where it is said who was refused.
        """
        self.manager = manager
        self.access = access
        self.messageBytes = messageBytes
        self.lines = lines
        self.homes: set[bytes] = set()
        self._crowd = crowd
        self._open: dict[ControlConnection, Account] = {}

    def buildProtocol(self, address: IAddress | None) -> ControlConnection:
        """A client connected."""
        return ControlConnection(self)

    def admit(
        self, connection: ControlConnection, credentials: Credentials, rights: Rights
    ) -> Account | None:
        """
        Whether there is room for one more connection.

        @return: what its calls are charged to.
        """
        user = self.access.user(credentials)
        account = self._crowd.account(user.key, user.account, rights.administers, rights.any)
        if not self._crowd.admit(account):
            return None
        self._open[connection] = account
        return account

    def left(self, connection: ControlConnection) -> None:
        """A connection has ended."""
        account = self._open.pop(connection, None)
        if account is not None:
            self._crowd.left(account)

    def limit(self, limits: config.Limits) -> None:
        """Have other limits, but for the largest call."""
        self._crowd.change(_terms(limits))
        self.lines.most = limits.logLines

    def allow(self, access: IAccess) -> None:
        """From now on others may do other things; whoever may do less is disconnected."""
        self.access = access
        for connection in list(self._open):
            connection.review()

    def closeAll(self) -> None:
        """The service stops."""
        for connection in list(self._open):
            connection.transport.loseConnection()

    def stopFactory(self) -> None:
        """Nobody connects any more."""
        self.lines.close()
        self._crowd.close()


def _terms(limits: config.Limits) -> Terms:
    return Terms(limits.controlConnections, limits.userDescriptors or limit() // 16)


def clientsOf(
    reactor: ChanproxyReactor,
    manager: Manager,
    access: IAccess,
    limits: config.Limits,
    lines: FewLines,
) -> ControlFactory:
    """What serves those who connect, within the limits of the configuration."""
    crowd = Crowd(reactor, _terms(limits))
    return ControlFactory(manager, access, limits.controlBytes, crowd, lines)
