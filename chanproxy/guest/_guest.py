"""
Guest: the manager's calls that a program inside a container makes for its own container.

Blocking; every call may be made from any thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from chanproxy.guest._counters import Counter
from chanproxy.guest._errors import CallRefused, GuestError, ServiceGone
from chanproxy.guest._line import Line
from chanproxy.guest._wire import GUEST, Connection, closeAll, defaultPath


class Resumed(NamedTuple):
    """
    How a suspend ended.

    @ivar asleep: nanoseconds asleep, suspend of the host included.
    @ivar reasons: the names of all that was signalled, or C{timeout}; the last one is C{...} when
        they were too many to be told.
    """

    asleep: int
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All of them in one text, for people."""
        return ", ".join(self.reasons)


class Change(NamedTuple):
    """What a L{Watch} hears: C{awake} or C{asleep}, and why, as in L{Resumed}."""

    state: str
    reasons: tuple[str, ...] = ()


class Watch:
    """
    The container's state, then each change of it; iterate, or C{next} when readable.

    Raises L{ServiceGone} when the service has gone, or drops a watcher that does not read, and
    L{GuestError} after L{close}.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Readable when there is a change to read; -1 after L{close}."""
        return self._connection.fileno()

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        if self._connection.fileno() < 0:
            raise GuestError("the watch is closed; ask for another one")
        parameters, descriptors = self._connection.receive()
        closeAll(descriptors)
        return Change(parameters["state"], tuple(parameters["reasons"]))

    def close(self) -> None:
        """Hear no more.  Idempotent."""
        self._connection.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Guest:
    """
    A program inside a container, as its service sees it: a connection to the control socket.

    Connects with the first call.  Every method raises L{ServiceGone} when the service is not there
    or has gone, after which the next call connects anew, and L{CallRefused} when it says no.
    Counters need no service: what marks messages as handled never fails for want of one.
    """

    def __init__(
        self, container: str | None = None, path: str | None = None, patience: float = 10.0
    ) -> None:
        """
        @param container: the name it has in the service; C{$CHANPROXY_CONTAINER} if not given.  On
            the container's own socket, L{GUEST}, it need not be known.
        @param path: the control socket; C{$CHANPROXY_CONTROL} if not given, or the container's own
            if there is one, or root's default.
        @param patience: seconds to wait for an answer.
        @raise GuestError: nobody says which container it is.
        """
        name = container or os.environ.get("CHANPROXY_CONTAINER")
        self.path = path or defaultPath()
        if not name and self.path != GUEST:
            raise GuestError("which container is this? Give its name, or set CHANPROXY_CONTAINER")
        self.container = name or None
        self._holds: dict[str, int] = {}
        # The service releases them with the connection.
        self._line = Line(self.path, patience, self._holds.clear)

    def call(
        self, method: str, parameters: Mapping[str, Any] | None = None, *descriptors: int
    ) -> dict[str, Any]:
        """
        Call any method of the manager for this container.

        @param parameters: besides C{container}; those that are L{None} are left out.
        @param descriptors: stay the caller's.
        """
        full = {"container": self.container, **(parameters or {})}
        answer, received = self._line.exchange(method, full, descriptors)
        closeAll(received)
        return answer

    @property
    def connected(self) -> int:
        """Which connection it has, and what was made for its time with it; 0: none any more."""
        return self._line.connected()

    def fileno(self) -> int:
        """Of that connection, -1 without one: readable between calls when the service has gone."""
        return self._line.fileno()

    # Counters and channels

    def createProxy(
        self,
        name: str,
        remote: socket.socket | int,
        initial: int = 0,
        kind: str | None = None,
        lifetime: str = "service",
    ) -> tuple[socket.socket, Counter]:
        """
        Put the service between us and a remote: messages from there are counted, and wake us.

        @param name: for log lines and resume reasons.
        @param remote: a connected packet socket to the peer outside.  Close it afterwards: the
            service has its own.
        @param initial: 0, or 1: awake until the first message is marked as handled, this one.
        @param kind: C{shared}, for who is trusted with the counter itself; or C{handled}; if not
            given, what this guest may have.
        @param lifetime: C{service}, or C{connection}: ends with this guest's connection.
        @return: our end of the channel, and its counter.
        """
        if kind is None:
            try:
                return self.createProxy(name, remote, initial, "shared", lifetime)
            except CallRefused as refused:
                if refused.error != "PermissionDenied":
                    raise
            return self.createProxy(name, remote, initial, "handled", lifetime)
        if initial not in (0, 1):
            raise ValueError("a counter starts from 0 or from 1")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        counter: Counter | None = None
        try:
            counter = Counter.make(initial, kind)
            parameters = {
                "name": name,
                "counter": kind,
                "lifetime": lifetime,
                "initial": initial if kind == "handled" and initial else None,
            }
            outer = remote if isinstance(remote, int) else remote.fileno()
            self.call("ProxyWakeChannel", parameters, theirs.fileno(), outer, counter.fileno())
        except BaseException:
            ours.close()
            if counter is not None:
                counter.close()
            raise
        finally:
            theirs.close()
        return ours, counter

    def openCounter(self, name: str, kind: str | None = None) -> Counter:
        """
        The counter of a channel that the configuration has, with C{handled = "explicit"}.

        @param name: the channel's.
        @param kind: C{shared} or C{handled}; if not given, what this guest may have.
        """
        parameters = {"container": self.container, "name": name, "kind": kind}
        answer, descriptors = self._line.exchange("OpenCounter", parameters, ())
        return Counter(descriptors[0], str(answer["kind"]))

    def addWakeSource(
        self,
        name: str,
        descriptor: int,
        events: Sequence[str] = ("in",),
        lifetime: str = "connection",
    ) -> None:
        """
        Be kept awake, and woken, by a descriptor: a socket of our own, a timer, an eventfd.

        @param events: of C{in}, C{out}, C{pri}, C{rdhup}, C{err}, C{hup}.
        """
        parameters = {"name": name, "events": list(events), "lifetime": lifetime}
        self.call("AddWakeSource", parameters, descriptor)

    def removeWakeSource(self, descriptor: int) -> None:
        """Take it back, by any duplicate of it."""
        self.call("RemoveWakeSource", None, descriptor)

    # Wake locks

    def acquireWakeLock(self, name: str, timeout: float | None = None) -> None:
        """
        Stay awake until L{releaseWakeLock}, or as long as this guest is connected.

        @param timeout: seconds after which it is released by itself.
        """
        parameters = {"name": name, "timeout": timeout, "lifetime": "connection"}
        self.call("AcquireWakeLock", parameters)

    def releaseWakeLock(self, name: str) -> None:
        """Give it up.  @raise CallRefused: it is not held; it may have expired."""
        self.call("ReleaseWakeLock", {"name": name, "lifetime": "connection"})

    @contextlib.contextmanager
    def wakeLock(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """
        Stay awake inside a C{with}, also when an exception passes; may be nested.

        Leaving it never raises: a lock that has expired is released, and so is one whose service
        has gone.
        """
        self.acquireWakeLock(name, timeout)
        with self._line.lock:
            self._holds[name] = self._holds.get(name, 0) + 1
        try:
            yield
        finally:
            with self._line.lock:
                left = self._holds.get(name, 0) - 1
                if left > 0:
                    self._holds[name] = left
                else:
                    self._holds.pop(name, None)
            if left == 0:
                with contextlib.suppress(ServiceGone, CallRefused):
                    self.releaseWakeLock(name)

    # Suspending

    def suspend(self, timeout: float | None = None, wakeLocks: int | None = None) -> Resumed:
        """
        Have this container suspended; returns after the resume.  Other threads are stopped, too.

        @param timeout: seconds after which it is resumed.
        @param wakeLocks: a descriptor that is readable while something else must keep it awake.
        @raise WakeLocksExist: something keeps it awake.  L{SuspendFailure}, L{AlreadySuspended}:
            likewise, it is awake now.
        """
        given = () if wakeLocks is None else (wakeLocks,)

        def wait(connection: Connection) -> Resumed:
            parameters = {"container": self.container, "timeout": timeout}
            connection.send("SuspendContainer", parameters, given, False)
            answer, received = connection.receive()
            closeAll(received)
            connection.close()
            return Resumed(answer["suspend_time"], tuple(answer["resume_reasons"]))

        # On a connection of its own: one connection answers one call at a time.
        return self._line.alone(wait)

    def wakeAt(self, at: float, name: str = "alarm") -> None:
        """
        Be woken at a time of day; C{name} is the resume reason.

        @param at: Unix time, seconds, as of C{time.time()}.
        """
        self.call("WakeAt", {"name": name, "at": at})

    def cancelWakeAt(self, name: str = "alarm") -> None:
        """Take it back.  Idempotent."""
        self.call("WakeAt", {"name": name})

    def watch(self) -> Watch:
        """Hear of each change of this container's state; the present one comes first."""

        def start(connection: Connection) -> Watch:
            connection.send("RegisterWakeWatcher", {"container": self.container}, (), True)
            return Watch(connection)

        return self._line.alone(start)

    def watchByPipe(self) -> int:
        """
        As L{watch}, without another connection: the read end of a pipe, the caller's.

        A line is a state, and after a space the reasons, with commas, if there are any.  It ends
        with the container, or when it is full.
        """
        parameters = {"container": self.container, "pipe": True}
        _, descriptors = self._line.exchange("RegisterWakeWatcher", parameters, ())
        return descriptors[0]

    def describe(self) -> dict[str, Any]:
        """
        What the service knows of this container: its state, the statistics of its suspends and of
        each of its wake sources, its last events.
        """
        return _described(lambda first: self.call("Describe", {"first_source": first}))

    def close(self) -> None:
        """Disconnect; wake locks and what else was made for its time go.  Idempotent."""
        self._line.close()

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _described(ask: Callable[[int | None], Mapping[str, Any]]) -> dict[str, Any]:
    """
    A description with all its sources, which come in portions.

    @param ask: for one, by its first source.
    """
    answer = ask(None)
    described = dict(answer["description"])
    while (first := answer.get("next_source")) is not None:
        answer = ask(first)
        described["sources"] = described["sources"] + answer["description"]["sources"]
    return described
