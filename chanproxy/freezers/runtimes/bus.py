"""
A connection to a D-Bus, in Twisted: calls with a time limit, and signals; by jeepney, which has the
protocol without the waiting.

Knows nothing of who is called.  Loaded only with a unit of systemd's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# jeepney has no annotations.
from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    MatchRule,
    MessageType,
    new_method_call,
)
from jeepney.auth import BEGIN, Authenticator  # type: ignore[import-untyped]
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]
from jeepney.low_level import HeaderFields, Message, Parser  # type: ignore[import-untyped]
from jeepney.wrappers import DBusErrorResponse, unwrap_msg  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from chanproxy.interfaces import ChanproxyReactor

PATIENCE = 10.0
"""Seconds for an answer."""


class BusError(Exception):
    """A call failed; the text is what the other side says, or that it does not answer."""


class Bus(Protocol):
    """
    One connection.

    @ivar ready: fires when calls can be made; fails if they never can.
    """

    def __init__(
        self,
        reactor: ChanproxyReactor,
        name: str,
        signalled: Callable[[str, Any], None],
        lost: Callable[[Failure], None],
    ) -> None:
        """
        @param name: of those who are called.
        @param signalled: called with a signal's name and what it says, for those asked for.
        @param lost: called once, with the reason, when the connection has ended.
        """
        self._reactor = reactor
        self._name = name
        self._signalled = signalled
        self._lost = lost
        self._authenticator = Authenticator()
        self._parser = Parser()
        self._serial = 0
        self._calls: dict[int, Deferred[Any]] = {}
        self.ready: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """It begins with who we are."""
        self._write(self._authenticator.data_to_send() or b"")

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        """What cannot be understood ends the connection, and nothing else."""
        if not self._authenticator.authenticated:
            self._authenticator.feed(data)
            if self._authenticator.authenticated:
                self._write(BEGIN)
                hello = self._send(message_bus.Hello())
                hello.addCallback(lambda _: None).chainDeferred(self.ready)
            return
        self._parser.add_data(data)
        while (message := self._parser.get_next_message()) is not None:
            self._received(message)

    def _received(self, message: Message) -> None:
        fields = message.header.fields
        kind = message.header.message_type
        if kind is MessageType.signal:
            self._signalled(fields.get(HeaderFields.member, ""), message.body)
            return
        waits = self._calls.pop(fields.get(HeaderFields.reply_serial, 0), None)
        if waits is None:
            return
        if kind is MessageType.error:
            name = fields.get(HeaderFields.error_name, "")
            text = message.body[0] if message.body and isinstance(message.body[0], str) else name
            waits.errback(BusError(text))
        else:
            waits.callback(message.body)

    def _send(self, message: Message) -> Deferred[Any]:
        self._serial += 1
        serial = self._serial
        waits: Deferred[Any] = Deferred(lambda _: self._forget(serial))
        waits.addTimeout(PATIENCE, self._reactor, _tooLate)
        self._calls[serial] = waits
        self._write(message.serialise(serial=serial))
        return waits

    def _forget(self, serial: int) -> None:
        self._calls.pop(serial, None)

    def call(
        self, path: str, interface: str, method: str, signature: str = "", *arguments: str
    ) -> Deferred[Any]:
        """
        Call a method of an object.

        @return: fires with the values of the answer; fails with L{BusError}, or with
            L{twisted.internet.error.ConnectionLost} and its like.
        """
        address = DBusAddress(path, self._name, interface)
        return self._send(new_method_call(address, method, signature or None, arguments))

    def match(self, interface: str, member: str) -> Deferred[Any]:
        """Have a signal be sent from now on."""
        rule = MatchRule(type="signal", interface=interface, member=member)
        return self._send(message_bus.AddMatch(rule))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits hears of it."""
        calls, self._calls = self._calls, {}
        for waits in calls.values():
            waits.errback(reason)
        self._lost(reason)


def _tooLate(result: object, seconds: float) -> object:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise BusError(f"there is no answer within {seconds:g} s")
    return result


class Blocking:
    """Calls that are waited for, where nobody but us waits."""

    def __init__(self, path: str, name: str) -> None:
        """
        @param path: where the bus listens.
        @param name: of those who are called.
        @raise BusError: it does not answer.
        """
        self._name = name
        try:
            self._connection = open_dbus_connection(f"unix:path={path}")
        except (OSError, ValueError) as error:
            raise BusError(str(error)) from error

    def call(
        self, path: str, interface: str, method: str, signature: str = "", *arguments: str
    ) -> Any:
        """See L{Bus.call}; raises what that fails with."""
        address = DBusAddress(path, self._name, interface)
        message = new_method_call(address, method, signature or None, arguments)
        try:
            return unwrap_msg(self._connection.send_and_get_reply(message, timeout=PATIENCE / 2))
        except (OSError, DBusErrorResponse) as error:
            raise BusError(str(error)) from error

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()
