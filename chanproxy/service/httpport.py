"""
HttpPort: the service over HTTP.  Loaded only where the configuration has the key C{http}.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from chanproxy import config
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.container import Container
from chanproxy.endpoints.ports import StreamPort
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.kernel.descriptors import limit
from chanproxy.kernel.fewlines import FewLines
from chanproxy.kernel.rundirectory import openDirectory, runtimeDirectory
from chanproxy.manager.access import IAccess
from chanproxy.manager.crowds import Crowd, Terms
from chanproxy.manager.dispatch import Manager
from chanproxy.manager.http.doors import IDoor, TcpDoor, UnixDoor, readToken
from chanproxy.manager.http.events import Feed
from chanproxy.manager.http.resources import Resources, Tools
from chanproxy.manager.http.server import Bounds, HttpFactory
from chanproxy.service.preflight import madeByUs
from chanproxy.service.startable import CannotStart


class HttpPort:
    """Listens for requests."""

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        configuration: config.Configuration,
        access: IAccess,
        containers: Callable[[], Mapping[str, Container]],
        buffer: PeekBuffer,
    ) -> None:
        """
        @param containers: those of the service at this moment, by name.
        @param buffer: shared by the channels.
        @raise CannotStart: what is wrong with the token.
        """
        assert configuration.http is not None
        address = configuration.http
        limits = configuration.limits
        crowd = Crowd(reactor, _terms(limits))
        self._feed = Feed(reactor, containers)
        manager = Manager(reactor, containers, buffer)
        door: IDoor = UnixDoor(access, crowd)
        if not address.traits.credentials:
            door = TcpDoor(_token(configuration), crowd)
        tools = Tools(manager, self._feed, containers, reactor)
        self._resources = Resources(tools, limits.httpStreams)
        self._clients = clients = HttpFactory(
            reactor,
            self._resources,
            door,
            crowd,
            _bounds(limits),
            FewLines(self._log, reactor, "http", limits.logLines),
        )
        self._address = address
        self._port = StreamPort(reactor, address, clients, buffer, lines=limits.logLines)

    def start(self) -> None:
        """
        Listen.

        @raise CannotStart: what is wrong, and what to do; nothing is left behind.
        """
        try:
            if madeByUs(self._address):
                os.close(openDirectory(runtimeDirectory()))
            self._port.startListening()
        except FreezerError as error:
            raise CannotStart("http", str(error)) from error
        except CannotListenError as error:
            raise CannotStart("http", str(error.socketError)) from error

    def limit(self, limits: config.Limits) -> None:
        """Have other limits."""
        self._clients.limit(_terms(limits), _bounds(limits))
        self._clients.lines.most = self._port.lines.most = limits.logLines
        self._resources.streams = limits.httpStreams

    def allow(self, access: IAccess) -> None:
        """From now on others may do other things; whoever may do less is disconnected."""
        self._clients.allow(access)

    def stop(self) -> Deferred[None]:
        """Accept no more, and end the connections."""
        self._feed.close()
        self._clients.closeAll()
        return self._port.stopListening()


def _terms(limits: config.Limits) -> Terms:
    return Terms(limits.httpConnections, limits.userDescriptors or limit() // 16)


def _bounds(limits: config.Limits) -> Bounds:
    return Bounds(limits.httpBytes, limits.httpTimeout)


def _token(configuration: config.Configuration) -> bytes | None:
    if configuration.httpTokenFile is None:
        return None
    try:
        return readToken(configuration.httpTokenFile)
    except ValueError as error:
        raise CannotStart("http-token-file", str(error)) from error
