"""
The errors that a call of the manager can be answered with, each with a sentence for people.

Knows neither packets nor containers; the fields are those of C{org.chanproxy.Manager.varlink} and
of C{org.varlink.service}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from chanproxy.words import brief, named

MANAGER = "org.chanproxy.Manager"
SERVICE = "org.varlink.service"

_ECHOED = 256
"""Characters of a caller's own text that an error repeats to it."""

_NAMED = 5
"""Containers that are named to who asks for one that there is not."""

_SHOWN = 1024
"""Characters of one of many sentences."""


class VarlinkError(Exception):
    """
    An error reply: to be sent, or received.

    @ivar error: its full name.
    @ivar parameters: its fields; C{message} is always among them, and the exception's text.
    """

    def __init__(
        self, error: str, message: str, parameters: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.error = error
        self.parameters: dict[str, Any] = {**(parameters or {}), "message": message}

    def encode(self) -> bytes:
        """The reply that tells a client of it."""
        reply = {"error": self.error, "parameters": self.parameters}
        return json.dumps(reply, separators=(",", ":"), allow_nan=False).encode("ascii")


# What every Varlink service has.


class InvalidParameter(VarlinkError):
    """A parameter is missing, unknown, or has the wrong kind of value."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{SERVICE}.InvalidParameter", message, {"parameter": parameter[:_ECHOED]})


class MethodNotFound(VarlinkError):
    """The interface has no such method."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"{SERVICE}.MethodNotFound",
            f"there is no method {brief(method)}; {SERVICE}.GetInterfaceDescription tells them all",
            {"method": method[:_ECHOED]},
        )


class InterfaceNotFound(VarlinkError):
    """There is no such interface."""

    def __init__(self, interface: str) -> None:
        super().__init__(
            f"{SERVICE}.InterfaceNotFound",
            f"there is no interface {brief(interface)}; there are {MANAGER} and {SERVICE}",
            {"interface": interface[:_ECHOED]},
        )


class PermissionDenied(VarlinkError):
    """The caller has no right to it."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{SERVICE}.PermissionDenied", message)


class ExpectedMore(VarlinkError):
    """The method has several replies, and the caller expects one."""

    def __init__(self) -> None:
        super().__init__(
            f"{SERVICE}.ExpectedMore", 'the method has several replies; call it with "more": true'
        )


# Our own.


class CallMalformed(VarlinkError):
    """The packet is no call."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{MANAGER}.CallMalformed", message)


class CallTooLarge(VarlinkError):
    """The packet has too many bytes."""

    def __init__(self, limit: int, key: str = "limits.control-bytes") -> None:
        super().__init__(
            f"{MANAGER}.CallTooLarge",
            f"the call has more than {limit} bytes; write a shorter one, or raise {key}",
            {"limit": limit},
        )


class ContainerNotFound(VarlinkError):
    """
    There is no such container.

    The first few that there are, are named: of those alone that the caller has access to.
    """

    def __init__(self, container: str, there: Iterable[str] = ()) -> None:
        names = [named(name) for name in islice(there, _NAMED + 1)]
        hint = f"known are {', '.join(names[:_NAMED])}"
        if len(names) > _NAMED:
            hint += " and more; ListContainers names them all"
        elif not names:
            hint = "ListContainers names them all"
        super().__init__(
            f"{MANAGER}.ContainerNotFound",
            f"there is no container {brief(container)}; {hint}",
            {"container": container},
        )


class ContainerExists(VarlinkError):
    """There is a container of that name already."""

    def __init__(self, container: str) -> None:
        super().__init__(
            f"{MANAGER}.ContainerExists",
            f"there is a container {brief(container)} already; take another name",
            {"container": container},
        )


class ContainerConfigured(VarlinkError):
    """The container is the configuration's, and cannot be removed by a call."""

    def __init__(self, container: str) -> None:
        super().__init__(
            f"{MANAGER}.ContainerConfigured",
            f"the container {brief(container)} is in the configuration; take it out there",
            {"container": container},
        )


class ReloadFailed(VarlinkError):
    """The configuration is as it was; C{problems} has a sentence for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            f"{MANAGER}.ReloadFailed",
            f"the configuration is not taken: {problems[0][:_SHOWN]}{more}",
            {"problems": list(problems)},
        )


class TraceRunning(VarlinkError):
    """Somebody traces already."""

    def __init__(self) -> None:
        super().__init__(
            f"{MANAGER}.TraceRunning", "a trace is running already; have it stopped first"
        )


class TraceNotRunning(VarlinkError):
    """Nobody traces."""

    def __init__(self) -> None:
        super().__init__(f"{MANAGER}.TraceNotRunning", "no trace is running on this connection")


class WakeSourceExists(VarlinkError):
    """The same open file is registered already, under whatever name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{MANAGER}.WakeSourceExists",
            f"what is given as {brief(name)} is a wake source already, by this descriptor or a "
            "duplicate of it; remove it first, or give something else",
            {"name": name},
        )


class WakeSourceNotFound(VarlinkError):
    """The descriptor is not registered."""

    def __init__(
        self, message: str = "the descriptor is no wake source; it may have been removed already"
    ) -> None:
        super().__init__(f"{MANAGER}.WakeSourceNotFound", message)


class WakeLockNotHeld(VarlinkError):
    """Nobody holds such a wake lock, in this lifetime."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{MANAGER}.WakeLockNotHeld",
            f"the wake lock {brief(name)} is not held; release one with the lifetime that it was "
            "acquired with",
            {"name": name},
        )


class CounterNotFound(VarlinkError):
    """There is no such channel, or its counter is not handed out."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{MANAGER}.CounterNotFound",
            f'there is no counter {brief(name)}; only channels with handled = "explicit" and '
            "proxies with a shared counter have one to hand out",
            {"name": name},
        )


class WakeLocksExist(VarlinkError):
    """Wake locks keep the container awake."""

    def __init__(self, names: Sequence[str]) -> None:
        shown = ", ".join(brief(name) for name in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        super().__init__(
            f"{MANAGER}.WakeLocksExist",
            f"held wake locks keep the container awake: {shown}{more}; have them released first",
            {"names": list(names)},
        )


class SuspendFailure(VarlinkError):
    """The container is not suspended; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{MANAGER}.SuspendFailure", message)


class AlreadySuspended(VarlinkError):
    """The container is not awake."""

    def __init__(self, state: str) -> None:
        super().__init__(
            f"{MANAGER}.AlreadySuspended",
            f"the container is {state} already; wait until it is awake, or call ResumeContainer",
            {"state": state},
        )


class ContainerPaused(VarlinkError):
    """Nothing but UnpauseContainer wakes the container."""

    def __init__(self, container: str, by: str) -> None:
        super().__init__(
            f"{MANAGER}.ContainerPaused",
            f"{brief(container)} is paused by {brief(by)}; unpause it first (chanproxy unpause)",
            {"container": container, "by": by},
        )


class LimitExceeded(VarlinkError):
    """A limit of the configuration is reached; C{limit} is its key."""

    def __init__(self, limit: str, message: str | None = None) -> None:
        super().__init__(
            f"{MANAGER}.LimitExceeded",
            message or f"{limit} is reached; give something up first, or raise it",
            {"limit": limit},
        )


class InternalError(VarlinkError):
    """A mistake of ours; the service's log has the rest."""

    def __init__(self) -> None:
        super().__init__(f"{MANAGER}.InternalError", "the call failed; see the service's log")


class ReplyMalformed(VarlinkError):
    """The packet is no reply.  Never sent: it is what a client makes of such a packet."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{MANAGER}.ReplyMalformed", message)
