"""
Endpoints for packets: listening and connecting, as Twisted programs do it.

C{seqpacket:PATH[:mode=600][:backlog=128][:unlink=yes]} on the server's side, C{seqpacket:PATH} on
the client's; C{@name} is the abstract namespace.  Knows nothing of proxies.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.endpoints.dialling import ChannelClientEndpoint
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.endpoints.ports import ChannelPort
from chanproxy.interfaces import ChanproxyReactor


@implementer(IStreamServerEndpoint)
class SeqpacketServerEndpoint:
    """Listen for packet connections."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        spec: SeqpacketAddressSpec,
        buffer: PeekBuffer | None = None,
    ) -> None:
        self._reactor = reactor
        self._spec = spec
        self._buffer = buffer or PeekBuffer()

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires with the port, or fails with L{CannotListenError}."""
        result: Deferred[IListeningPort] = Deferred()
        port = ChannelPort(self._reactor, self._spec, protocolFactory, self._buffer)
        try:
            port.startListening()
        except CannotListenError:
            result.errback(Failure())
        else:
            result.callback(port)
        return result


class SeqpacketClientEndpoint(ChannelClientEndpoint):
    """Connect to a packet listener, with all that a Twisted protocol expects of a transport."""

    bare = False

    def __init__(
        self,
        reactor: ChanproxyReactor,
        spec: SeqpacketAddressSpec,
        buffer: PeekBuffer | None = None,
        timeout: float = 30.0,
    ) -> None:
        """@param timeout: seconds to go on trying while the server's backlog is full."""
        super().__init__(reactor, spec, buffer, timeout)


def _spec(
    args: tuple[object, ...], kwargs: dict[str, object], listening: bool
) -> SeqpacketAddressSpec:
    options = {name: str(value) for name, value in kwargs.items()}
    return SeqpacketAddressSpec.parse([str(value) for value in args], options, listening)


class SeqpacketParser:
    """The C{seqpacket:} prefix, for both kinds of endpoint plugins."""

    prefix = "seqpacket"

    def parseStreamServer(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> SeqpacketServerEndpoint:
        """See L{twisted.internet.interfaces.IStreamServerEndpointStringParser}."""
        return SeqpacketServerEndpoint(cast(ChanproxyReactor, reactor), _spec(args, kwargs, True))

    def parseStreamClient(
        self, reactor: IReactorCore, *args: object, **kwargs: object
    ) -> SeqpacketClientEndpoint:
        """See L{twisted.internet.interfaces.IStreamClientEndpointStringParserWithReactor}."""
        return SeqpacketClientEndpoint(cast(ChanproxyReactor, reactor), _spec(args, kwargs, False))
