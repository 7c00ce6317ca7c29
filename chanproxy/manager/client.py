"""
ManagerClient: C{org.chanproxy.Manager} for Twisted programs.

Speaks to a control socket; knows nothing of the service behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from chanproxy.endpoints.paths import SeqpacketAddressSpec
from chanproxy.endpoints.seqpacket import SeqpacketClientEndpoint
from chanproxy.interfaces import AnyReactor, expectReactor
from chanproxy.kernel.calls import closeAll
from chanproxy.manager.administering import Administering
from chanproxy.manager.answers import Answer, Connection, Watch
from chanproxy.manager.errors import MANAGER
from chanproxy.manager.varlink import encodeCall


class ManagerClient(Administering):
    """
    One connection to a control socket.

    Calls are answered one at a time: a call made while a suspend is being waited for is carried out
    after it.  Make another client for what is to happen meanwhile.  Each method's Deferred fails
    with L{VarlinkError} when the service answers with an error, with a
    L{twisted.internet.error.ConnectionClosed} when it does not answer any more, and with an
    L{OSError} or L{ChannelBroken} when the call cannot be sent.

    Descriptors that are passed stay the caller's, and may be closed as soon as a method returns.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, connection: Connection) -> None:
        """Made by L{connect}."""
        self._endpoint = endpoint
        self._connection = connection

    @classmethod
    def connect(cls, reactor: AnyReactor, path: str) -> Deferred[ManagerClient]:
        """
        Connect to a control socket.

        @param path: absolute, or C{@name}.
        @return: fails with L{twisted.internet.error.ConnectError}.
        """
        spec = SeqpacketAddressSpec(path)
        return cls.connectTo(SeqpacketClientEndpoint(expectReactor(reactor), spec))

    @classmethod
    def connectTo(cls, endpoint: IStreamClientEndpoint) -> Deferred[ManagerClient]:
        """Connect by an endpoint for packets, such as C{clientFromString}'s C{seqpacket:}."""
        return _dial(endpoint).addCallback(lambda connection: cls(endpoint, connection))

    def close(self) -> None:
        """Disconnect; what was made with C{lifetime="connection"} goes.  Idempotent."""
        self._connection.transport.loseConnection()

    def call(
        self,
        method: str,
        parameters: Mapping[str, Any] | None = None,
        descriptors: Sequence[int] = (),
    ) -> Deferred[Answer]:
        """
        Call a method.

        @param method: of C{org.chanproxy.Manager}; with a dot in it, of any interface.
        @param parameters: those that are L{None} are left out.
        """
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        full = method if "." in method else f"{MANAGER}.{method}"
        return self._connection.send(encodeCall(full, given), descriptors)

    def _plain(
        self, method: str, parameters: Mapping[str, Any], descriptors: Sequence[int] = ()
    ) -> Deferred[Mapping[str, Any]]:
        def strip(answer: Answer) -> Mapping[str, Any]:
            closeAll(answer.descriptors)
            return answer.parameters

        return self.call(method, parameters, descriptors).addCallback(strip)

    def proxyWakeChannel(
        self,
        container: str,
        name: str,
        descriptors: Sequence[int],
        kind: str = "shared",
        initial: int = 0,
        lifetime: str = "service",
    ) -> Deferred[Mapping[str, Any]]:
        """
        Have messages carried and counted between two connected sockets.

        @param descriptors: of the container's channel, of the remote's, and of the counter.
        @param initial: 1, for the kind C{handled}: awake until the first message is handled.
        """
        return self._plain(
            "ProxyWakeChannel",
            {
                "container": container,
                "name": name,
                "counter": kind,
                "initial": initial,
                "lifetime": lifetime,
            },
            descriptors,
        )

    def addWakeSource(
        self,
        container: str,
        name: str,
        descriptor: int,
        events: Sequence[str] = ("in",),
        lifetime: str = "service",
    ) -> Deferred[Mapping[str, Any]]:
        """Register a descriptor as a wake source."""
        return self._plain(
            "AddWakeSource",
            {"container": container, "name": name, "events": list(events), "lifetime": lifetime},
            [descriptor],
        )

    def removeWakeSource(self, container: str, descriptor: int) -> Deferred[Mapping[str, Any]]:
        """Remove a wake source, by any duplicate of its descriptor."""
        return self._plain("RemoveWakeSource", {"container": container}, [descriptor])

    def suspendContainer(
        self, container: str, timeout: float | None = None, wakeLocks: int | None = None
    ) -> Deferred[Mapping[str, Any]]:
        """
        Suspend; fires after the resume, with C{suspend_time} (ns), C{resume_reason} and
        C{resume_reasons}.

        @param timeout: seconds.
        @param wakeLocks: a descriptor that is readable while a wake lock is held.
        """
        return self._plain(
            "SuspendContainer",
            {"container": container, "timeout": timeout},
            [] if wakeLocks is None else [wakeLocks],
        )

    def resumeContainer(
        self, container: str, reason: str | None = None
    ) -> Deferred[Mapping[str, Any]]:
        """Wake; fires when it is awake."""
        return self._plain("ResumeContainer", {"container": container, "reason": reason})

    def pauseContainer(self, container: str, by: str | None = None) -> Deferred[Mapping[str, Any]]:
        """Have it sleep until L{unpauseContainer}; fires when it is stopped."""
        return self._plain("PauseContainer", {"container": container, "by": by})

    def unpauseContainer(
        self, container: str, reason: str | None = None
    ) -> Deferred[Mapping[str, Any]]:
        """Wake it if it is paused; fires when it is awake, with C{paused}: whether it was."""
        return self._plain("UnpauseContainer", {"container": container, "reason": reason})

    def acquireWakeLock(
        self,
        container: str,
        name: str,
        timeout: float | None = None,
        lifetime: str = "connection",
    ) -> Deferred[Mapping[str, Any]]:
        """Keep a container awake; unless told otherwise, as long as this client is connected."""
        return self._plain(
            "AcquireWakeLock",
            {"container": container, "name": name, "timeout": timeout, "lifetime": lifetime},
        )

    def releaseWakeLock(
        self, container: str, name: str, lifetime: str = "connection"
    ) -> Deferred[Mapping[str, Any]]:
        """Give up a wake lock."""
        return self._plain(
            "ReleaseWakeLock", {"container": container, "name": name, "lifetime": lifetime}
        )

    def openCounter(self, container: str, name: str, kind: str | None = None) -> Deferred[Answer]:
        """Get a counter, the only descriptor of the answer; it is the receiver's."""
        return self.call("OpenCounter", {"container": container, "name": name, "kind": kind})

    def wakeAt(
        self, container: str, at: float | None, name: str | None = None
    ) -> Deferred[Mapping[str, Any]]:
        """Set an alarm (Unix time, seconds), or cancel it (L{None})."""
        return self._plain("WakeAt", {"container": container, "at": at, "name": name})

    def listContainers(self, details: bool = False) -> Deferred[list[Mapping[str, Any]]]:
        """
        Name, state and mode of each container.

        @param details: also what it does, and why.
        """
        return Deferred.fromCoroutine(_listed(self, details))

    def describe(self, container: str) -> Deferred[dict[str, Any]]:
        """All that is known about a container, all its wake sources included."""
        return Deferred.fromCoroutine(_described(self, container))

    def watch(
        self, container: str, changed: Callable[[str, tuple[str, ...]], None]
    ) -> Deferred[Watch]:
        """
        Hear of each change.

        @param changed: called with the state, C{awake} or C{asleep}, and the reasons; the present
            state comes first, before the Deferred fires.
        """
        return Deferred.fromCoroutine(self._watch(container, changed))

    async def _watch(
        self, container: str, changed: Callable[[str, tuple[str, ...]], None]
    ) -> Watch:
        connection = await _dial(self._endpoint)
        parameters = {"container": container}
        first = connection.send(
            encodeCall(f"{MANAGER}.RegisterWakeWatcher", parameters, more=True), ()
        )
        try:
            answer = await first
        except BaseException:
            connection.transport.loseConnection()
            raise
        watch = Watch(connection, changed)
        watch._answered(answer)
        return watch

    def watchByPipe(self, container: str) -> Deferred[int]:
        """The read end of a pipe with a line per change; the receiver closes it."""
        parameters = {"container": container, "pipe": True}
        answer = self.call("RegisterWakeWatcher", parameters)
        return answer.addCallback(lambda received: received.descriptors[0])


def _dial(endpoint: IStreamClientEndpoint) -> Deferred[Connection]:
    return cast("Deferred[Connection]", endpoint.connect(Factory.forProtocol(Connection)))


# Answers that come in parts, each with where the next one begins.


async def _listed(client: ManagerClient, details: bool) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    first: int | None = None
    while True:
        asked = {"first_container": first, "details": details or None}
        answer = await client._plain("ListContainers", asked)
        found += answer["containers"]
        first = answer.get("next_container")
        if first is None:
            return found


async def _described(client: ManagerClient, container: str) -> dict[str, Any]:
    described: dict[str, Any] = {}
    first: int | None = None
    while True:
        answer = await client._plain("Describe", {"container": container, "first_source": first})
        if not described:
            described = dict(answer["description"])
        else:
            described["sources"] = described["sources"] + answer["description"]["sources"]
        first = answer.get("next_source")
        if first is None:
            return described
