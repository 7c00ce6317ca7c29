"""
Calls about what keeps a container awake, or wakes it.
"""

from __future__ import annotations

from chanproxy.manager.attached import polledSafely
from chanproxy.manager.caller import LONGEST, Reply, Request
from chanproxy.manager.errors import (
    InvalidParameter,
    LimitExceeded,
    WakeLockNotHeld,
    WakeSourceNotFound,
)
from chanproxy.manager.refusals import sourceError
from chanproxy.wake.alarms import TooManyAlarms
from chanproxy.wake.locks import TooManyWakeLocks, WakeLockError
from chanproxy.wake.source import EVENTS, WakeSourceError


def addWakeSource(request: Request) -> Reply:
    """Register a descriptor."""
    container = request.container()
    name = request.parameters.text("name")
    events = request.parameters.names("events", EVENTS)
    lifetime = request.lifetime()
    request.end("source")
    descriptor = request.handed.peek("source")
    if not request.caller.rights.trusts(container.name) and not polledSafely(descriptor):
        raise InvalidParameter(
            "source",
            f"{request.caller.who} may give sockets, pipes, eventfds, timerfds, signalfds, pidfds "
            "and inotify descriptors only: asking others for events can take for ever",
        )
    request.expectRoom(container, 1)
    mask = 0
    for event in events:
        mask |= EVENTS[event]
    try:
        source = container.sources.addDescriptor(name, descriptor, mask)
    except WakeSourceError as error:
        raise sourceError("source", name, error) from error
    request.caller.account.keep(1, lambda: source in container.sources)
    if lifetime == "connection":
        request.caller.sources[source] = container
    return Reply()


def removeWakeSource(request: Request) -> Reply:
    """Remove it again."""
    container = request.container()
    request.end("source")
    descriptor = request.handed.peek("source")
    if not request.caller.rights.trusts(container.name) and not polledSafely(descriptor):
        # It cannot have been registered by one who is not trusted.
        raise WakeSourceNotFound()
    try:
        source = container.sources.find(descriptor)
    except WakeSourceError as error:
        raise sourceError("source", "", error) from error
    if source is None:
        raise WakeSourceNotFound()
    container.sources.remove(source)
    request.caller.sources.pop(source, None)
    return Reply()


def acquireWakeLock(request: Request) -> Reply:
    """Keep it awake by name."""
    container = request.container()
    name = request.parameters.text("name")
    timeout = request.parameters.number("timeout", None, 0, LONGEST)
    lifetime = request.lifetime()
    request.end()
    holder = request.caller if lifetime == "connection" else None
    try:
        container.sources.locks.acquire(name, timeout, holder, request.caller.taker())
    except TooManyWakeLocks as error:
        raise LimitExceeded("limits.wake-locks", str(error)) from error
    if holder is not None:
        request.caller.holding.add(container)
    return Reply()


def releaseWakeLock(request: Request) -> Reply:
    """Let go of it."""
    container = request.container()
    name = request.parameters.text("name")
    lifetime = request.lifetime()
    request.end()
    try:
        container.sources.locks.release(name, request.caller if lifetime == "connection" else None)
    except WakeLockError as error:
        raise WakeLockNotHeld(name) from error
    return Reply()


def wakeAt(request: Request) -> Reply:
    """Set an alarm, or cancel it."""
    container = request.container()
    name = request.parameters.text("name", "alarm")
    at = request.parameters.number("at", None, 0, 2.0**33)
    request.end()
    if at is None:
        container.alarms.cancel(name)
        return Reply()
    known = name in container.alarms
    if not known:
        request.expectRoom(container, 1)
    try:
        container.alarms.set(name, at)
    except TooManyAlarms as error:
        raise LimitExceeded("limits.wake-locks", str(error)) from error
    if not known:
        request.caller.account.keep(1, lambda: name in container.alarms)
    return Reply()
