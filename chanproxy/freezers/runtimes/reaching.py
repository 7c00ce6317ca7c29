"""
Where a port of an engine's container can be reached, at the time.

Loaded only with an address that names one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from chanproxy.freezers.runtimes.engine import EngineError, engineAt
from chanproxy.freezers.runtimes.followed import describe, isRunning
from chanproxy.freezers.runtimes.hosts import hostOf
from chanproxy.interfaces import ChanproxyReactor

_SHARED = 4
"""Containers that may be in the network of the next, one after the other."""

_ANY = ("", "0.0.0.0", "::")
_LOOPBACK = "127.0.0.1"


def lookUp(
    kind: str, name: str, port: int, reactor: ChanproxyReactor
) -> Deferred[Sequence[tuple[str, int]]]:
    """
    Ask for the addresses of a container's port, those first that are likely to be reached.

    @param kind: of its engine, C{docker} or C{podman}.
    @return: fails with L{EngineError}, whose text follows the name of the address.  Cancellable.
    """
    return Deferred.fromCoroutine(_find(kind, name, port, reactor))


async def _find(
    kind: str, name: str, port: int, reactor: ChanproxyReactor
) -> Sequence[tuple[str, int]]:
    engine = engineAt(reactor, hostOf(kind))
    for _ in range(_SHARED):
        container = await describe(engine, name)
        if not isRunning(container):
            raise EngineError("it is not running")
        mode = str((container.get("HostConfig") or {}).get("NetworkMode", ""))
        if not mode.startswith("container:"):
            break
        name = mode.partition(":")[2]
    own, published = list(_addresses(container, mode, port)), list(_published(container, port))
    # Elsewhere, and in a user's own network, an address of this machine's is somebody else's.
    both = [*published, *own] if engine.host.elsewhere else [*own, *published]
    found = list(dict.fromkeys(both))
    if not found:
        raise EngineError(f"it has no address that is reached from here; publish its port {port}")
    return found


def _addresses(container: Any, mode: str, port: int) -> Iterator[tuple[str, int]]:
    if mode == "host":
        yield _LOOPBACK, port
        return
    settings = container.get("NetworkSettings") or {}
    networks = [settings, *(settings.get("Networks") or {}).values()]
    for each in ("IPAddress", "GlobalIPv6Address"):
        for network in networks:
            if isinstance(network, dict) and network.get(each):
                yield str(network[each]), port


def _published(container: Any, port: int) -> Iterator[tuple[str, int]]:
    settings = container.get("NetworkSettings") or {}
    for published in (settings.get("Ports") or {}).get(f"{port}/tcp") or ():
        host = str(published.get("HostIp") or "")
        yield _LOOPBACK if host in _ANY else host, int(published["HostPort"])
