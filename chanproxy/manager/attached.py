"""
Handed: the descriptors of one call, until somebody takes them; and what may be done with them.

Whatever is not taken is closed.  Knows no methods and no containers.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection, Iterator
from typing import TypeVar

from twisted.internet.protocol import Protocol

from chanproxy.channels.buffers import PeekBuffer
from chanproxy.channels.kinds import attach, whyNotCarried
from chanproxy.channels.streams import TcpChannel
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.kernel import calls
from chanproxy.kernel.borrowed import borrowed
from chanproxy.kernel.foreign import closeForeign, closeSocket
from chanproxy.kernel.keepalive import Keepalive, Keeper
from chanproxy.manager.errors import InvalidParameter

P = TypeVar("P", bound=Protocol)

_SAFE = ("[eventfd]", "[timerfd]", "[signalfd]", "[pidfd]", "inotify", "[inotify]")


class Handed:
    """Descriptors by the names that the method gives them."""

    def __init__(self, descriptors: list[int], homes: Collection[bytes] = ()) -> None:
        """
        @param descriptors: owned by this object from now on.
        @param homes: the addresses at which the caller can connect.
        """
        self._descriptors = descriptors
        self._homes = homes
        self._fields: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._descriptors)

    def expect(self, *fields: str) -> None:
        """
        Name them, in their order.

        @raise VarlinkError: there are fewer, or more; or one is a connection to ourselves: while we
            kept it, it could not end, and what was made for its time would stay.
        """
        count = len(self._descriptors)
        if count < len(fields):
            raise InvalidParameter(
                fields[count],
                f"the descriptor is missing: the call has {count}, and takes {', '.join(fields)}",
            )
        if count > len(fields):
            takes = f"takes {', '.join(fields)}" if fields else "takes none"
            raise InvalidParameter(
                "descriptors", f"there are too many: the call has {count}, and {takes}"
            )
        for field, descriptor in zip(fields, self._descriptors, strict=True):
            if self._homes and _peerOf(descriptor) in self._homes:
                raise InvalidParameter(
                    field, "it is a connection to this very manager; give something else"
                )
        self._fields = fields

    def peek(self, field: str) -> int:
        """The descriptor, still owned here."""
        return self._descriptors[self._fields.index(field)]

    def taken(self, field: str) -> None:
        """Somebody else owns the descriptor now."""
        self._descriptors[self._fields.index(field)] = -1

    def close(self) -> None:
        """Close what nobody took.  Idempotent."""
        left, self._descriptors = self._descriptors, []
        closeForeign([fd for fd in left if fd >= 0])

    def channel(self, field: str) -> None:
        """@raise VarlinkError: it is no connected socket of a kind that is carried."""
        with _asSocket(self.peek(field)) as looked:
            wrong = "it is no socket" if looked is None else whyNotCarried(looked)
        if wrong is not None:
            raise InvalidParameter(field, wrong)

    def different(self, field: str, other: str) -> None:
        """@raise VarlinkError: both are the same open file."""
        with contextlib.suppress(OSError):
            if calls.compareFiles(self.peek(field), self.peek(other)) == 0:
                raise InvalidParameter(field, f"it is the same socket as {other}")

    def connect(self, field: str, protocol: P, reactor: ChanproxyReactor, buffer: PeekBuffer) -> P:
        """Give a protocol a channel that was checked before."""
        connected = socket.socket(fileno=self.peek(field))
        self.taken(field)
        try:
            channel = attach(reactor, connected, buffer, protocol)
        except BaseException:
            closeSocket(connected)
            raise
        kept = connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if isinstance(channel, TcpChannel) and not kept:
            # Where it is set already, whoever did so knows more.
            channel.keepAlive(Keeper(reactor, Keepalive()))
        return protocol


@contextlib.contextmanager
def _asSocket(descriptor: int) -> Iterator[socket.socket | None]:
    """To look at; L{None} when it is no socket, or its file only, opened with C{O_PATH}."""
    try:
        looked = borrowed(descriptor)
    except OSError:
        yield None
    else:
        with looked:
            yield looked.socket


def _peerOf(descriptor: int) -> bytes | None:
    """The address that a Unix socket is connected to; empty when its peer has none."""
    with _asSocket(descriptor) as looked:
        if looked is None or looked.family != socket.AF_UNIX:
            return None
        try:
            return os.fsencode(looked.getpeername())
        except OSError:
            return None


def polledSafely(descriptor: int) -> bool:
    """
    Whether the kernel alone answers a poll of this descriptor.

    For a file of a filesystem in user space (FUSE) it asks that process, and waits; the same goes
    for an epoll that holds one.
    """
    # By its name, which the kernel knows by itself: fstat(2) would ask that process already.  A
    # path cannot look like these, for it begins with a slash; so a named pipe does not count.
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if name.startswith(("socket:", "pipe:", "pidfd:")):
        return True
    return name.startswith("anon_inode:") and name.removeprefix("anon_inode:") in _SAFE
