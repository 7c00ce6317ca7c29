"""
Where the manager is called: a socket of packets, each of which is a call; and one of streams, on
which a zero byte ends each call, as on every other socket of Varlink's.

Both lead to the same callers, with the same rights and the same limits.
"""

from __future__ import annotations

from collections.abc import Callable

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.endpoints.paths import (
    PathSpec,
    SeqpacketAddressSpec,
    UnixStreamAddressSpec,
    kernelPath,
)
from chanproxy.endpoints.ports import ChannelPort, TerminatedPort
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel.descriptors import left, whyScarce
from chanproxy.manager.control import ControlFactory

LAST = 8
"""Descriptors that are left when root cannot connect any more either: a call needs some."""


def _whyNoRoom() -> str:
    """Root can connect when only the reserve is left."""
    return whyScarce() if left() <= LAST else ""


def controlPort(
    reactor: ChanproxyReactor,
    spec: SeqpacketAddressSpec,
    factory: ControlFactory,
    lines: int,
    room: Callable[[], str] = _whyNoRoom,
) -> ChannelPort:
    """
    What listens for packets.

    @param lines: see L{FewLines}.
    @param room: see L{ChannelPort}.
    """
    return _port(ChannelPort, reactor, spec, factory, lines, room)


def varlinkPort(
    reactor: ChanproxyReactor, spec: UnixStreamAddressSpec, factory: ControlFactory, lines: int
) -> ChannelPort:
    """Likewise for streams."""
    return _port(TerminatedPort, reactor, spec, factory, lines, _whyNoRoom)


def _port(
    make: type[ChannelPort],
    reactor: ChanproxyReactor,
    spec: PathSpec,
    factory: ControlFactory,
    lines: int,
    room: Callable[[], str],
) -> ChannelPort:
    factory.homes.add(kernelPath(spec.path))
    buffer = PeekBuffer(factory.messageBytes)
    return make(reactor, spec, factory, buffer, room=room, lines=lines)
