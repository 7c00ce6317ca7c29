"""
Kinds: which channel carries a connected socket.

Knows sockets; knows no addresses of ours, and nothing of who is told of what comes.
"""

from __future__ import annotations

import socket
from typing import cast

from twisted.internet.interfaces import IProtocol, ITransport

from chanproxy.channels.base import SocketChannel
from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.packets import SeqpacketChannel
from chanproxy.channels.streams import TcpChannel, UnixStreamChannel, VsockChannel, isTcp
from chanproxy.interfaces import ChanproxyReactor, IChannel

_UNIX: dict[int, type[SocketChannel]] = {
    socket.SOCK_SEQPACKET: SeqpacketChannel,
    socket.SOCK_STREAM: UnixStreamChannel,
}


def kindOf(connected: socket.socket) -> type[SocketChannel] | None:
    """What carries this kind of socket; L{None} for a kind that is not carried."""
    if connected.family == socket.AF_UNIX:
        return _UNIX.get(connected.type)
    if connected.family == socket.AF_VSOCK and connected.type == socket.SOCK_STREAM:
        return VsockChannel
    return TcpChannel if isTcp(connected) else None


def whyNotCarried(looked: socket.socket) -> str | None:
    """Why a socket cannot become a channel, as a clause; L{None}: it can."""
    if kindOf(looked) is None:
        if looked.family == socket.AF_UNIX:
            return "it is no SOCK_SEQPACKET and no SOCK_STREAM socket; only those are carried"
        return "it is no Unix and no TCP socket; only those are carried"
    if looked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "it listens; give a connected socket"
    try:
        looked.getpeername()
    except OSError:
        return "it is not connected"
    return None


def attach(
    reactor: ChanproxyReactor,
    connected: socket.socket,
    buffer: PeekBuffer,
    protocol: IProtocol,
) -> SocketChannel:
    """
    Make a channel of a connected socket, and have a protocol told of what comes.

    @param connected: owned by the channel when it is made.
    @return: the channel, which is the protocol's transport: an L{IChannel} and no more.
    @raise ValueError: it is of a kind that is not carried; the text is a clause.
    """
    make = kindOf(connected)
    if make is None:
        raise ValueError(whyNotCarried(connected))
    if make is TcpChannel:
        # What waits for more has waited at the sender already.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    channel = make(reactor, connected, buffer)
    channel.protocol = protocol
    # It is no stream transport, and what it is made for asks for no more.
    protocol.makeConnection(cast(ITransport, channel))
    return channel


def hangUp(protocol: IProtocol, abort: bool = False) -> None:
    """
    Close the channel that a protocol was attached to, if there is one.

    @param abort: see L{IChannel.abort}.
    """
    channel: IChannel | None = getattr(protocol, "transport", None)
    if channel is not None:
        (channel.abort if abort else channel.close)()
