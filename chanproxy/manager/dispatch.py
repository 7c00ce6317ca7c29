"""
Manager: the table of the calls about containers, and who may make one.

Those about the service are in L{chanproxy.manager.administration}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager.attached import Handed
from chanproxy.manager.caller import Caller, Method, Reply, Request
from chanproxy.manager.calls_channels import openCounter, proxyWakeChannel
from chanproxy.manager.calls_containers import (
    describe,
    getInfo,
    getInterfaceDescription,
    listContainers,
)
from chanproxy.manager.calls_sleep import (
    pauseContainer,
    registerWakeWatcher,
    resumeContainer,
    suspendContainer,
    unpauseContainer,
)
from chanproxy.manager.calls_sources import (
    acquireWakeLock,
    addWakeSource,
    releaseWakeLock,
    removeWakeSource,
    wakeAt,
)
from chanproxy.manager.errors import (
    MANAGER,
    SERVICE,
    InterfaceNotFound,
    MethodNotFound,
)
from chanproxy.manager.refusals import noAccess
from chanproxy.manager.varlink import Call

METHODS: dict[str, dict[str, Method]] = {
    SERVICE: {
        "GetInfo": getInfo,
        "GetInterfaceDescription": getInterfaceDescription,
    },
    MANAGER: {
        "ProxyWakeChannel": proxyWakeChannel,
        "AddWakeSource": addWakeSource,
        "RemoveWakeSource": removeWakeSource,
        "RegisterWakeWatcher": registerWakeWatcher,
        "SuspendContainer": suspendContainer,
        "ResumeContainer": resumeContainer,
        "PauseContainer": pauseContainer,
        "UnpauseContainer": unpauseContainer,
        "AcquireWakeLock": acquireWakeLock,
        "ReleaseWakeLock": releaseWakeLock,
        "OpenCounter": openCounter,
        "WakeAt": wakeAt,
        "ListContainers": listContainers,
        "Describe": describe,
    },
}


class Manager:
    """Finds the function for a call, and turns what it raises into an error reply."""

    def __init__(
        self,
        reactor: ChanproxyReactor,
        containers: Callable[[], Mapping[str, Container]],
        buffer: PeekBuffer,
    ) -> None:
        """
        @param containers: those of the service at this moment, by name.
        @param buffer: shared by the channels.
        """
        self._reactor = reactor
        self._containers = containers
        self._buffer = buffer

    def dispatch(
        self, caller: Caller, call: Call, handed: Handed
    ) -> Reply | Deferred[Reply] | None:
        """
        Carry out one call.

        @param handed: the call's descriptors; what the method does not take is closed after it.
        @return: the reply, now or later; L{None} when the connection itself goes on answering.
        @raise VarlinkError: the error reply.  A Deferred may fail with it, too.
        """
        methods = self.methods().get(call.interface)
        if methods is None:
            raise InterfaceNotFound(call.interface)
        method = methods.get(call.name)
        if method is None:
            raise MethodNotFound(call.method)
        if not caller.rights.any and call.interface == MANAGER:
            raise noAccess(caller.who)
        tools = (self._reactor, self._containers, self._buffer)
        return method(Request(caller, call, handed, *tools))

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """What can be called, by interface and name."""
        return METHODS
