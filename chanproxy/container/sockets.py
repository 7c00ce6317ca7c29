"""
proxySockets: a channel proxy between two sockets that a Twisted program has already.

Knows channels and containers; knows no addresses.
"""

from __future__ import annotations

import socket

from chanproxy.carry.policies import DEFAULT
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.kinds import attach, hangUp
from chanproxy.container.channels import Carriage
from chanproxy.container.container import Container
from chanproxy.interfaces import AnyReactor, expectReactor
from chanproxy.kernel.foreign import closeSocket
from chanproxy.wake.counter import MessageCounter


def proxySockets(
    reactor: AnyReactor,
    container: Container,
    ends: tuple[socket.socket, socket.socket],
    name: str,
    counter: MessageCounter | None = None,
    handled: str = DEFAULT,
    buffer: PeekBuffer | None = None,
) -> ChannelProxy:
    """
    Carry messages between two connected sockets, and count those into the container.

    @param ends: towards the container, and towards the remote; owned by the proxy from now on,
        whatever happens.
    @param counter: see L{chanproxy.container.channels.Channels.proxy}; closed with the proxy.
    @param buffer: shared by the channels of one reactor; without it this one has its own.
    @raise ValueError: one of them is of a kind that is not carried; both are closed.
    @raise CannotPair, WakeSourceError, OSError: see
        L{chanproxy.container.channels.Channels.proxy}; likewise.
    """
    buffer = buffer or PeekBuffer()
    inner, outer = ContainerProtocol(), RemoteProtocol()
    # Not the caller's objects, which would close them when they are collected.
    left = [socket.socket(fileno=end.detach()) for end in ends]
    try:
        for protocol in (inner, outer):
            attach(expectReactor(reactor), left[0], buffer, protocol)
            del left[0]
        return container.channels.proxy(inner, outer, name, counter, carriage=Carriage(handled))
    except BaseException:
        for protocol in (inner, outer):
            hangUp(protocol)
        for end in left:
            closeSocket(end)
        raise
