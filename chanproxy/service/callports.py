"""
CallPorts: where the service takes calls, by packets (the key C{control}), by a stream (C{varlink}),
or by both.
"""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from chanproxy import config
from chanproxy.endpoints.addresses import SocketAddress
from chanproxy.endpoints.ports import ChannelPort
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.kernel.fewlines import FewLines
from chanproxy.kernel.rundirectory import openDirectory, runtimeDirectory
from chanproxy.manager.access import IAccess
from chanproxy.manager.control import clientsOf
from chanproxy.manager.dispatch import Manager
from chanproxy.manager.ports import controlPort, varlinkPort
from chanproxy.service.preflight import madeByUs
from chanproxy.service.startable import CannotStart


class CallPorts:
    """
    Listens for calls.

    Who calls by the one and by the other is the same caller: what a user may have of the limits is
    for both together.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        configuration: config.Configuration,
        access: IAccess,
        manager: Manager,
    ) -> None:
        """@param manager: what is called."""
        limits = configuration.limits
        lines = FewLines(self._log, reactor, "control", limits.logLines)
        self._clients = clients = clientsOf(reactor, manager, access, limits, lines)
        self._ports: dict[str, tuple[SocketAddress, ChannelPort]] = {}
        if (control := configuration.control) is not None:
            port = controlPort(reactor, control, clients, limits.logLines)
            self._ports["control"] = control, port
        if (varlink := configuration.varlink) is not None:
            port = varlinkPort(reactor, varlink, clients, limits.logLines)
            self._ports["varlink"] = varlink, port

    def start(self) -> None:
        """
        Listen.

        @raise CannotStart: what is wrong, and what to do; nothing is left behind.
        """
        for key, (address, port) in self._ports.items():
            try:
                if madeByUs(address):
                    os.close(openDirectory(runtimeDirectory()))
                port.startListening()
            except (FreezerError, CannotListenError) as error:
                self.stop()
                wrong = error.socketError if isinstance(error, CannotListenError) else error
                raise CannotStart(key, str(wrong)) from error

    def limit(self, limits: config.Limits) -> None:
        """Have other limits."""
        self._clients.limit(limits)
        for _, port in self._ports.values():
            port.lines.most = limits.logLines

    def allow(self, access: IAccess) -> None:
        """From now on others may do other things; whoever may do less is disconnected."""
        self._clients.allow(access)

    def stop(self) -> list[Deferred[None]]:
        """
        Accept no more, and end the connections.

        @return: each fires when one of the sockets is closed.
        """
        stopped = [port.stopListening() for _, port in self._ports.values()]
        self._clients.closeAll()
        return stopped
