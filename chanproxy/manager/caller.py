"""
Who calls, with what, and what is answered.

Knows no methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from chanproxy.carry.proxy import ChannelProxy
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor, IWakeWatcher
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.kernel.processes import commandOf
from chanproxy.manager.access import Credentials, Rights
from chanproxy.manager.attached import Handed
from chanproxy.manager.crowds import Account
from chanproxy.manager.errors import (
    ContainerNotFound,
    LimitExceeded,
    PermissionDenied,
)
from chanproxy.manager.parameters import Parameters
from chanproxy.manager.varlink import Call
from chanproxy.wake.locks import Taker
from chanproxy.wake.source import WakeSource

LONGEST = 10 * 365 * 86400.0
"""Seconds: ten years; a longer timeout is a mistake in the unit."""


@define
class Reply:
    """
    What a method answers.

    @ivar descriptors: go with the reply; owned by it.
    """

    parameters: Mapping[str, Any] = field(factory=dict)
    descriptors: list[int] = field(factory=list)


@define(eq=False)
class Caller:
    """
    One connection, as the methods see it.

    @ivar who: for people: process and user.
    @ivar credentials: as of when it connected; None: nobody knows.
    @ivar watch: makes the connection a watcher, which answers again and again.
    @ivar account: its user's.
    @ivar home: the container that its socket is for; none: it says which one it means.
    @ivar ending: what else to do when it is gone, by a name for taking it back.
    """

    who: str
    credentials: Credentials | None
    rights: Rights
    watch: Callable[[Callable[[IWakeWatcher], None]], IWakeWatcher]
    account: Account
    home: str | None = None
    sources: dict[WakeSource, Container] = field(factory=dict, init=False)
    proxies: set[ChannelProxy] = field(factory=set, init=False)
    holding: set[Container] = field(factory=set, init=False)
    ending: dict[str, Callable[[], object]] = field(factory=dict, init=False)

    def taker(self) -> Taker | None:
        """Who holds what it acquires now; None: nobody knows."""
        if self.credentials is None:
            return None
        pid = self.credentials.pid
        return Taker(pid, self.credentials.uid, commandOf(pid) if pid else "")

    def gone(self) -> None:
        """The connection has ended, and with it what was made for its time."""
        for end in list(self.ending.values()):
            end()
        self.ending.clear()
        for proxy in list(self.proxies):
            proxy.stop()
        for source, container in self.sources.items():
            if source in container.sources:
                container.sources.remove(source)
        self.sources.clear()
        for container in self.holding:
            container.sources.locks.releaseAll(self)
        self.holding.clear()


@frozen
class Request:
    """
    One call.

    @ivar handed: its descriptors; what the method does not take is closed after it.
    @ivar containers: those of the service at this moment, by name.
    @ivar buffer: shared by the channels.
    """

    caller: Caller
    call: Call
    handed: Handed
    reactor: ChanproxyReactor
    containers: Callable[[], Mapping[str, Container]]
    buffer: PeekBuffer
    parameters: Parameters = field(init=False)

    @parameters.default
    def _ofCall(self) -> Parameters:
        return Parameters(self.call.parameters)

    def end(self, *fields: str) -> None:
        """
        Nothing more is read of the parameters.

        @param fields: the descriptors that the method takes.
        @raise VarlinkError: something is wrong with what was read, or there is more.
        """
        self.parameters.end()
        self.handed.expect(*fields)

    def lifetime(self) -> str:
        """Until the connection ends, or longer."""
        return self.parameters.choice("lifetime", "service", "service", "connection")

    def container(self) -> Container:
        """
        The one that the call is about.

        @raise VarlinkError: there is none, or no access to it.
        """
        who, home = self.caller.who, self.caller.home
        if home is None:
            name = self.parameters.text("container")
        else:
            name = self.parameters.text("container", home)
        if not self.caller.rights.allows(name):
            if home is not None:
                raise PermissionDenied(
                    f"{who} has no access to the container {name!r}: this socket is for "
                    f"{home} alone"
                )
            raise PermissionDenied(
                f"{who} has no access to the container {name!r}; "
                "the configuration gives it in a table [access.NAME]"
            )
        containers = self.containers()
        if name not in containers:
            raise ContainerNotFound(name, filter(self.caller.rights.allows, containers))
        return containers[name]

    def expectRoom(self, container: Container, count: int) -> None:
        """
        See that so many descriptors may be kept.

        @raise VarlinkError: they may not; it names the limit.
        """
        wrong = container.whyNoRoom(count, self.caller.rights.administers)
        try:
            if wrong is not None:
                raise wrong
            self.caller.account.expect(count)
        except TooManyDescriptors as error:
            raise LimitExceeded(error.limit, str(error)) from error


Method = Callable[[Request], "Reply | Deferred[Reply] | None"]
