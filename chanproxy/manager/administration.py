"""
ServiceManager: the manager's methods that are about the service itself: which containers it runs,
and its traces.

For callers who could stop the service anyway: root, and the user that it runs as.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chanproxy import config, trace
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.config import Changed, Reloaded, ReloadError, StartError
from chanproxy.config.containers import ALL
from chanproxy.config.setting import SETTABLE, Setting
from chanproxy.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls
from chanproxy.manager.caller import Caller, Method, Reply, Request
from chanproxy.manager.calls_containers import listContainers
from chanproxy.manager.describe import fitting, portion, shortened
from chanproxy.manager.dispatch import METHODS, Manager
from chanproxy.manager.errors import (
    MANAGER,
    ContainerConfigured,
    ContainerExists,
    ContainerNotFound,
    InvalidParameter,
    LimitExceeded,
    PermissionDenied,
    ReloadFailed,
    TraceNotRunning,
    TraceRunning,
)
from chanproxy.manager.parameters import Parameters
from chanproxy.manager.recording import ChromeFormat, Recording
from chanproxy.trace import Format
from chanproxy.words import safe

_KEYS = {key.parameter: key for key in ALL}
"""A container's keys, as parameters of a call: Varlink's words have no hyphen."""


_SETTABLE = {key.parameter: key.name for key in ALL if key.name in SETTABLE}


class LeftAlone(Protocol):
    """A container that is not run, though it wants to be."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def why(self) -> str: ...


class Administered(Protocol):
    """The service, as these methods see it."""

    @property
    def containers(self) -> Mapping[str, Container]: ...
    @property
    def limits(self) -> config.Limits: ...
    @property
    def leftAlone(self) -> Sequence[LeftAlone]: ...
    def addContainer(self, container: config.Container) -> Container: ...
    def removeContainer(self, name: str) -> Deferred[object]: ...
    def setContainer(
        self, name: str, keys: Mapping[str, Any], back: Collection[str] = ()
    ) -> Deferred[tuple[Setting, ...]]: ...
    def reread(self) -> Deferred[Reloaded]: ...


class ServiceManager(Manager):
    """Carries out the calls for a whole service."""

    def __init__(
        self, reactor: ChanproxyReactor, service: Administered, buffer: PeekBuffer
    ) -> None:
        super().__init__(reactor, lambda: service.containers, buffer)
        self._service = service
        self._added: dict[str, Container] = {}
        self._traces: dict[Caller, Recording] = {}

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """Those of the containers, and those of the service."""
        own: dict[str, Method] = {
            "ListContainers": self.listContainers,
            "StartTrace": self.startTrace,
            "StopTrace": self.stopTrace,
            "AddContainer": self.addContainer,
            "RemoveContainer": self.removeContainer,
            "SetContainer": self.setContainer,
            "Reload": self.reload,
        }
        return {**METHODS, MANAGER: {**METHODS[MANAGER], **own}}

    def _admit(self, caller: Caller) -> None:
        if not caller.rights.administers:
            raise PermissionDenied(
                f"{caller.who} may not: this is for root and for the user that the service runs as"
            )

    def listContainers(self, request: Request) -> Reply:
        """Also those that are left alone, though they have a label."""
        details = request.parameters.value("details")
        reply = listContainers(request)
        if not details or "next_container" in reply.parameters:
            return reply
        left = self._service.leftAlone if request.caller.rights.administers else []
        said = [
            {"name": each.name, "engine": each.engine, "why": shortened(each.why)} for each in left
        ]
        return Reply({**reply.parameters, "left_alone": portion(said, 0)[0]}) if said else reply

    def addContainer(self, request: Request) -> Reply:
        """Run one more container."""
        self._admit(request.caller)
        parameters = request.parameters
        name = parameters.text("name")
        lifetime = request.lifetime()
        tree = _keysOf(parameters)
        tree["channels"] = _written(parameters.tree("channels")) or {}
        request.end()
        container = self._configure(name, tree)
        if name in self._service.containers:
            raise ContainerExists(name)
        if len(self._service.containers) >= self._service.limits.containers:
            raise LimitExceeded("limits.containers")
        try:
            made = self._service.addContainer(container)
        except StartError as error:
            raise _invalid(name, error.problems[0].path, str(error)) from error
        self._added[name] = made
        if lifetime == "connection":
            request.caller.ending[f"container {name}"] = lambda: self._forget(name, made)
        return Reply()

    def _configure(self, name: str, tree: dict[str, Any]) -> config.Container:
        try:
            (container,) = config.fromTree({"containers": {name: tree}}).containers
        except config.ConfigurationError as error:
            raise _invalid(name, error.problems[0].path, str(error)) from error
        return container

    def _forget(self, name: str, added: Container) -> Deferred[object] | None:
        if self._added.get(name) is not added:
            return None
        del self._added[name]
        if self._service.containers.get(name) is not added:
            return None
        return self._service.removeContainer(name)

    def removeContainer(self, request: Request) -> Reply | Deferred[Reply]:
        """Forget one that was added."""
        self._admit(request.caller)
        name = request.parameters.text("name")
        request.end()
        if name not in self._service.containers:
            raise ContainerNotFound(name, self._service.containers)
        if name not in self._added:
            raise ContainerConfigured(name)
        request.caller.ending.pop(f"container {name}", None)
        removed = self._forget(name, self._added[name])
        return Reply() if removed is None else removed.addCallback(lambda _: Reply())

    def setContainer(self, request: Request) -> Deferred[Reply]:
        """Change keys of one that runs."""
        self._admit(request.caller)
        parameters = request.parameters
        name = parameters.text("name")
        keys = _keysOf(parameters)
        channels = parameters.tree("channels")
        if channels is not None:
            keys["channels"] = channels
        back: tuple[str, ...] = ()
        if parameters.value("back") is not None:
            back = parameters.names("back", _SETTABLE)
        request.end()
        twice = next((each for each in back if _SETTABLE[each] in keys), None)
        if twice is not None:
            raise InvalidParameter("back", f"{twice} is to be set, too; leave out one of them")
        if name not in self._service.containers:
            raise ContainerNotFound(name, self._service.containers)

        def refused(failure: Failure) -> Failure:
            error = failure.value
            if isinstance(error, KeyError):
                raise ContainerNotFound(name, self._service.containers) from error
            if isinstance(error, config.ConfigurationError):
                raise _invalid(name, error.problems[0].path, str(error)) from error
            return failure

        done = self._service.setContainer(name, keys, [_SETTABLE[each] for each in back])
        return done.addCallbacks(
            lambda changed: Reply({"changed": [each._asdict() for each in changed]}), refused
        )

    def reload(self, request: Request) -> Deferred[Reply]:
        """Follow the configuration as it is written now."""
        self._admit(request.caller)
        request.end()
        return self._service.reread().addCallbacks(_answered, _failed)

    def startTrace(self, request: Request) -> Reply:
        """Trace into a file."""
        self._admit(request.caller)
        kind = request.parameters.choice("format", "json", "json", "perfetto")
        request.end("file")
        descriptor = request.handed.peek("file")
        if not stat.S_ISREG(calls.statusOf(descriptor).mode):
            raise InvalidParameter("file", "it is no regular file, and could make the service wait")
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise InvalidParameter("file", "it is open for reading only; open it for writing")
        if trace.active is not None:
            raise TraceRunning()
        writer = _format(kind)
        request.handed.taken("file")
        recording = Recording(self._reactor, writer, descriptor, self._service.limits.traceBytes)
        caller = request.caller
        self._traces[caller] = recording
        caller.ending["trace"] = lambda: self._endTrace(caller)
        return Reply()

    def _endTrace(self, caller: Caller) -> Recording | None:
        recording = self._traces.pop(caller, None)
        if recording is not None:
            recording.stop()
        return recording

    def stopTrace(self, request: Request) -> Reply:
        """End the caller's trace, and say how much was written."""
        self._admit(request.caller)
        request.end()
        request.caller.ending.pop("trace", None)
        recording = self._endTrace(request.caller)
        if recording is None:
            raise TraceNotRunning()
        return Reply(
            {
                "events": recording.tracer.count,
                "bytes": recording.bytes,
                "complete": recording.complete,
            }
        )


def _keysOf(parameters: Parameters) -> dict[str, Any]:
    """A container's keys that a call gives, as a file has them."""
    return {
        key.name: key.kind.fromCall(value)
        for parameter, key in _KEYS.items()
        if (value := parameters.value(parameter)) is not None
    }


def _answered(reloaded: Reloaded) -> Reply:
    names = ("added", "removed", "applied", "restart")
    changed, following = portion(map(asdict, reloaded.changed), 0)
    if following is not None:
        changed.append(asdict(Changed("...")))
    return Reply({**{n: fitting(getattr(reloaded, n)) for n in names}, "changed": changed})


def _failed(failure: Failure) -> Failure:
    error = failure.value
    if not isinstance(error, ReloadError):
        return failure
    raise ReloadFailed(fitting(list(map(safe, error.sentences)))) from error


def _written(channels: dict[str, Any] | None) -> dict[str, Any] | None:
    """As a file has them; what is left out may be null."""
    return channels and {
        name: {key.replace("_", "-"): value for key, value in channel.items() if value is not None}
        if isinstance(channel, dict)
        else channel
        for name, channel in channels.items()
    }


def _format(kind: str) -> Format:
    if kind == "json":
        return ChromeFormat()
    try:
        from chanproxy.manager.perfetto import PerfettoFormat
    except ImportError as error:
        raise InvalidParameter(
            "format", "the service has no package perfetto; install chanproxy[perfetto] there"
        ) from error
    return PerfettoFormat()


def _invalid(name: str, path: str, text: str) -> InvalidParameter:
    prefix = f"containers.{name}."
    key = path.removeprefix(prefix).partition(".")[0] if path.startswith(prefix) else "name"
    return InvalidParameter(key.replace("-", "_"), text.replace("\n", "; "))
