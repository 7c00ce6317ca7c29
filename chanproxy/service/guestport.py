"""
GuestPort: a control socket that is one container's alone.

Who is inside may be root there, and be seen as root here; so what a caller may do is said by the
socket that it came by, not by who it is.  Behind it is a manager that knows no other container and
none of the methods that are about the service.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from chanproxy import config
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.container import Container
from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.fewlines import FewLines
from chanproxy.manager.access import OneContainer
from chanproxy.manager.control import clientsOf
from chanproxy.manager.dispatch import Manager
from chanproxy.manager.ports import controlPort
from chanproxy.service.startable import CannotStart


class GuestPort:
    """
    Listens for one container.

    @ivar container: whose methods can be called.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: ChanproxyReactor,
        container: Container,
        spec: SeqpacketAddressSpec,
        limits: config.Limits,
        buffer: PeekBuffer,
    ) -> None:
        """@param buffer: shared by the channels that are handed over."""
        self.container = container
        alone = {container.name: container}
        access = OneContainer(container.name)
        lines = FewLines(self._log, reactor, f"control of {container.name}", limits.logLines)
        manager = Manager(reactor, lambda: alone, buffer)
        self._clients = clientsOf(reactor, manager, access, limits, lines)
        self._port = controlPort(reactor, spec, self._clients, limits.logLines, self._whyNoRoom)

    def _whyNoRoom(self) -> str:
        return str(self.container.whyNoRoom(1) or "")

    def limit(self, limits: config.Limits) -> None:
        """Have other limits."""
        self._clients.limit(limits)
        self._port.lines.most = limits.logLines

    def start(self) -> None:
        """
        Listen.

        @raise CannotStart: what is wrong, and what to do; nothing is left behind.
        """
        try:
            self._port.startListening()
        except CannotListenError as error:
            raise CannotStart("control", str(error.socketError)) from error

    def stop(self) -> Deferred[None]:
        """Accept no more, and end the connections."""
        self._clients.closeAll()
        return self._port.stopListening()
