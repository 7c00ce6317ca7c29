"""
What the name of a host stands for, asked by the reactor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from zope.interface import implementer

from chanproxy.endpoints.addresses import SocketAddress
from chanproxy.interfaces import ChanproxyReactor


@implementer(IResolutionReceiver)
class _Resolving:
    """Collects what a name stands for."""

    def __init__(self, done: Deferred[Sequence[tuple[str, int]]]) -> None:
        self._done = done
        self._found: list[Any] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """See L{IResolutionReceiver}."""

    def addressResolved(self, address: IAddress) -> None:
        """See L{IResolutionReceiver}."""
        self._found.append(address)

    def resolutionComplete(self) -> None:
        """See L{IResolutionReceiver}."""
        self._done.callback([(each.host, each.port) for each in self._found])


def resolve(
    reactor: ChanproxyReactor, address: SocketAddress
) -> Deferred[Sequence[tuple[str, int]]]:
    """By the names of hosts; given up, it may go on in its thread, and nobody listens any more."""
    done: Deferred[Sequence[tuple[str, int]]] = Deferred()
    host, port = address.named
    resolver = cast(IReactorPluggableNameResolver, reactor).nameResolver
    resolver.resolveHostName(_Resolving(done), host, port)
    return done
