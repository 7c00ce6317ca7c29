"""
Calls about falling asleep and waking, and who is told of it.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chanproxy.container import Container
from chanproxy.container.outcomes import Resumed
from chanproxy.container.watchers import PipeWatcher, TooManyWatchers
from chanproxy.manager.attached import polledSafely
from chanproxy.manager.caller import LONGEST, Reply, Request
from chanproxy.manager.describe import fitting
from chanproxy.manager.errors import (
    ExpectedMore,
    InvalidParameter,
    LimitExceeded,
)
from chanproxy.manager.refusals import sourceError, suspendError
from chanproxy.wake.source import EVENTS, WakeSource, WakeSourceError
from chanproxy.words import listed


def suspendContainer(request: Request) -> Deferred[Reply]:
    """Suspend, and answer after the resume."""
    container = request.container()
    timeout = request.parameters.number("timeout", None, 0, LONGEST)
    request.parameters.end()
    held: WakeSource | None = None
    if len(request.handed):
        request.handed.expect("wake_locks")
        request.expectRoom(container, 1)
        descriptor = request.handed.peek("wake_locks")
        if not request.caller.rights.trusts(container.name) and not polledSafely(descriptor):
            raise InvalidParameter("wake_locks", "give a socket, a pipe or an eventfd")
        try:
            if container.sources.find(descriptor) is None:
                held = container.sources.addDescriptor("wake locks", descriptor, EVENTS["in"])
        except WakeSourceError as error:
            raise sourceError("wake_locks", "wake locks", error) from error

    def over(result: Resumed | Failure) -> Reply:
        if held is not None and held in container.sources:
            container.sources.remove(held)
        if isinstance(result, Failure):
            raise suspendError(container, result)
        reasons = fitting(result.reasons)
        reply = {"resume_reason": listed(reasons), "resume_reasons": reasons}
        return Reply({"suspend_time": result.asleep, **reply})

    return container.suspend(timeout).addBoth(over)


def resumeContainer(request: Request) -> Deferred[Reply]:
    """Wake it, and answer when it is awake."""
    container = request.container()
    reason = request.parameters.text("reason", "ResumeContainer")
    request.end()
    return _answered(container, container.resume(reason))


def pauseContainer(request: Request) -> Deferred[Reply]:
    """Stop it until it is unpaused, and answer when it is stopped."""
    container = request.container()
    by = request.parameters.text("by", "PauseContainer")
    request.end()
    return _answered(container, container.pause(by))


def _answered(container: Container, done: Deferred[None]) -> Deferred[Reply]:
    """When it is done, or why it cannot be."""

    def refused(failure: Failure) -> Reply:
        raise suspendError(container, failure) from failure.value

    return done.addCallbacks(lambda _: Reply(), refused)


def unpauseContainer(request: Request) -> Deferred[Reply]:
    """Wake it if it is paused, and answer when it is awake."""
    container = request.container()
    reason = request.parameters.text("reason", "UnpauseContainer")
    request.end()
    paused = container.suspension.paused is not None
    return container.unpause(reason).addCallback(lambda _: Reply({"paused": paused}))


def registerWakeWatcher(request: Request) -> Reply | None:
    """Tell of each change."""
    container = request.container()
    pipe = request.parameters.flag("pipe", False)
    request.end()
    try:
        container.watchers.expectOne()
    except TooManyWatchers as error:
        raise LimitExceeded("limits.wake-watchers", str(error)) from error
    if pipe:
        request.expectRoom(container, 2)
        watcher = PipeWatcher(request.reactor, container.watchers)
        request.caller.account.keep(1, lambda: not watcher.ended)
        return Reply(descriptors=[watcher.handOver()])
    if not request.call.more or request.call.oneway:
        raise ExpectedMore()
    container.watchers.add(request.caller.watch(container.watchers.remove))
    return None
