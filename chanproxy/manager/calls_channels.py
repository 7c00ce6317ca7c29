"""
Calls about channels and the counters of their messages.
"""

from __future__ import annotations

from chanproxy.carry.pairing import CannotPair
from chanproxy.carry.proxy import ContainerProtocol, RemoteProtocol
from chanproxy.carry.reports import Reports
from chanproxy.channels.kinds import hangUp
from chanproxy.manager.caller import Reply, Request
from chanproxy.manager.errors import (
    CounterNotFound,
    InvalidParameter,
    PermissionDenied,
)
from chanproxy.manager.refusals import sourceError
from chanproxy.wake.counter import CounterError, MessageCounter
from chanproxy.wake.source import WakeSourceError

_PROXY = 3
"""Descriptors that a channel takes: its two ends, and its counter."""


def proxyWakeChannel(request: Request) -> Reply:
    """Carry messages between two sockets that somebody else connected."""
    container = request.container()
    name = request.parameters.text("name")
    kind = request.parameters.choice("counter", "shared", "shared", "handled")
    initial = request.parameters.whole("initial", 0, 0, 1)
    lifetime = request.lifetime()
    request.end("container_channel", "remote_channel", "counter")
    if kind == "shared" and not request.caller.rights.trusts(container.name):
        raise PermissionDenied(
            f"{request.caller.who} is not trusted with a shared counter: give an eventfd to which "
            "handled messages are written, and counter = handled; or set trusted = true "
            "in its table [access.NAME]"
        )
    if kind == "shared" and initial:
        raise InvalidParameter(
            "initial", "a shared counter is given with its value; make the eventfd with 1"
        )
    request.expectRoom(container, _PROXY)
    request.handed.channel("container_channel")
    request.handed.channel("remote_channel")
    request.handed.different("remote_channel", "container_channel")
    counter, reports = _counterOf(request, kind, initial)
    inner, outer = ContainerProtocol(), RemoteProtocol()
    try:
        for field, end in (("container_channel", inner), ("remote_channel", outer)):
            request.handed.connect(field, end, request.reactor, request.buffer)
        proxy = container.channels.proxy(inner, outer, name, counter, None, reports)
    except BaseException as error:
        for end in (inner, outer):
            hangUp(end)
        _dispose(counter, reports)
        if isinstance(error, CannotPair):
            raise InvalidParameter("remote_channel", str(error)) from error
        if isinstance(error, WakeSourceError):
            raise sourceError("counter", name, error) from error
        raise
    request.caller.account.keep(_PROXY, lambda: not proxy.ended)
    if lifetime == "connection":
        request.caller.proxies.add(proxy)
        proxy.whenEnded().addCallback(lambda _: request.caller.proxies.discard(proxy))
    return Reply()


def _counterOf(request: Request, kind: str, initial: int) -> tuple[MessageCounter, Reports | None]:
    descriptor = request.handed.peek("counter")
    if kind == "shared":
        try:
            counter = MessageCounter.fromDescriptor(request.reactor, descriptor)
        except CounterError as error:
            raise InvalidParameter("counter", str(error)) from error
        request.handed.taken("counter")
        return counter, None
    counter = MessageCounter(request.reactor, initial)
    try:
        reports = Reports(request.reactor, counter, descriptor)
    except CounterError as error:
        counter.close()
        raise InvalidParameter("counter", str(error)) from error
    except BaseException:
        counter.close()
        raise
    request.handed.taken("counter")
    return counter, reports


def openCounter(request: Request) -> Reply:
    """Hand out a counter, or where to report what is handled."""
    container = request.container()
    name = request.parameters.text("name")
    trusted = request.caller.rights.trusts(container.name)
    kind = request.parameters.choice(
        "kind", "shared" if trusted else "handled", "shared", "handled"
    )
    request.end()
    if kind == "shared" and not trusted:
        raise PermissionDenied(
            f"{request.caller.who} is not trusted with the counter itself: ask for kind = handled"
        )
    counter = container.channels.openCounter(name)
    if counter is None:
        raise CounterNotFound(name)
    if kind == "shared":
        return Reply({"kind": kind}, [counter.duplicate()])
    reports = container.channels.openReports(name)
    assert reports is not None
    return Reply({"kind": kind}, [reports.duplicate()])


def _dispose(counter: MessageCounter, reports: Reports | None) -> None:
    counter.close()
    if reports is not None:
        reports.close()
