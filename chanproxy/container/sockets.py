"""
proxySockets: a channel proxy between two sockets that a Twisted program has already.

Knows transports and containers; knows no addresses.
"""

from __future__ import annotations

import socket

from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Protocol

from chanproxy.carry.policies import DEFAULT
from chanproxy.carry.proxy import ChannelProxy, ContainerProtocol, RemoteProtocol
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.transport import SeqpacketTransport
from chanproxy.container.container import Container
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.wake.counter import MessageCounter


def proxySockets(
    reactor: ChanproxyReactor,
    container: Container,
    containerChannel: socket.socket,
    remoteChannel: socket.socket,
    name: str,
    counter: MessageCounter | None = None,
    handled: str = DEFAULT,
    buffer: PeekBuffer | None = None,
) -> ChannelProxy:
    """
    Carry messages between two connected packet sockets, and count those into the container.

    @param containerChannel: towards the container; owned by the proxy from now on, as is
        C{remoteChannel}, whatever happens.
    @param counter: see L{Container.proxy}; closed with the proxy.
    @param buffer: shared by the channels of one reactor; without it this one has its own.
    @raise ValueError, WakeSourceError, OSError: see L{Container.proxy}; both are closed.
    """
    buffer = buffer or PeekBuffer()
    inner, outer = ContainerProtocol(), RemoteProtocol()
    ends: tuple[tuple[Protocol, socket.socket], ...] = (
        (inner, containerChannel),
        (outer, remoteChannel),
    )
    transports = []
    nowhere = UNIXAddress(None)
    try:
        for protocol, connected in ends:
            # Not the caller's object, which would close it when it is collected.
            own = socket.socket(fileno=connected.detach())
            transport = SeqpacketTransport(reactor, own, buffer, nowhere, nowhere)
            transport.protocol = protocol
            Protocol.makeConnection(protocol, transport)
            transports.append(transport)
        return container.proxy(inner, outer, name, counter, handled=handled)
    except BaseException:
        for transport in transports:
            transport.abortConnection()
        remoteChannel.close()
        raise
