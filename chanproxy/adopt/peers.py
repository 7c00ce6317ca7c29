"""
Peers: who is at the other end of a connected socket, in words.

C{tcp 0.0.0.0:80 from 127.0.0.1:5123}, C{tcp 127.0.0.1:5000 to 10.0.0.1:5432},
C{unix /run/x.sock from redis-cli[123]}.  Looks at duplicates; never reads from them.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from functools import cache

from attrs import evolve, frozen

from chanproxy.adopt.naming import Description, describe, pathOf
from chanproxy.kernel.borrowed import borrowed
from chanproxy.words import named

KEPT = 5.0
"""Seconds for which the listening sockets of a network are remembered."""

_LISTEN = b"0A"
"""C{net/tcp_states.h}, as C{/proc/net/tcp} writes it."""


@frozen
class Listening:
    """
    The TCP sockets of a network that listen.

    @ivar addresses: by their ports, as bytes: all zero for "all interfaces".
    """

    addresses: dict[int, set[bytes]]

    def shown(self, host: str, port: int) -> str | None:
        """
        The address of the one that a connection came in by.

        @param host: the connection's own, without a scope.
        """
        there = self.addresses.get(port)
        if there is None:
            return None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        exact = socket.inet_pton(family, host)
        for found in (exact, bytes(len(exact)), bytes(16)):
            if found in there:
                family = socket.AF_INET6 if len(found) == 16 else socket.AF_INET
                return internet(socket.inet_ntop(family, found), port)
        return None


NONE_LISTEN = Listening({})


class Listeners:
    """What listens in the networks that processes are in; each is read now and then."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """@param seconds: by any clock."""
        self._seconds = seconds
        self._known: dict[int, tuple[float, Listening]] = {}

    def of(self, pid: int, since: float | None = None) -> Listening:
        """
        In the network namespace of a process; nothing, when that has ended.

        @param since: it has to have been read then or later.
        """
        try:
            network = os.stat(f"/proc/{pid}/ns/net").st_ino
        except OSError:
            return NONE_LISTEN
        now = self._seconds()
        at, known = self._known.get(network, (0.0, None))
        if known is None or now - at > KEPT or (since is not None and at < since):
            self._known = {key: each for key, each in self._known.items() if now - each[0] <= KEPT}
            known = _listening(pid)
            self._known[network] = now, known
        return known


def _listening(pid: int) -> Listening:
    found: dict[int, set[bytes]] = {}
    for name in ("tcp", "tcp6"):
        try:
            # Those that listen come first, and only as much is read as that takes.
            with open(f"/proc/{pid}/net/{name}", "rb", buffering=4096) as lines:
                next(lines, None)
                for line in lines:
                    _, address, _, state, _ = line.split(None, 4)
                    if state != _LISTEN:
                        break
                    host, _, port = address.partition(b":")
                    found.setdefault(int(port, 16), set()).add(_host(host))
        except OSError:
            # It has ended, or there is no IPv6.
            continue
    return Listening(found)


def _host(text: bytes) -> bytes:
    """An address, of which each word is written as the machine holds it."""
    raw = bytes.fromhex(text.decode())
    return struct.pack(f">{len(raw) // 4}I", *struct.unpack(f"={len(raw) // 4}I", raw))


@cache
def ephemeral() -> tuple[int, int]:
    """
    The ports that the kernel gives to outbound connections, first and last.

    Those of our own network namespace, when first asked for: of others nothing tells.
    """
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            first, last = map(int, file.read().split())
    except OSError:
        return 32768, 60999
    return first, last


def internet(host: str, port: int) -> str:
    """An address as it is written."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describePeer(
    descriptor: int, listening: Callable[[], Listening] = lambda: NONE_LISTEN
) -> Description:
    """
    Say what a descriptor of this process is, and of a connection who is at the other end.

    @param listening: gives what listens in the network that its owner is in.
    @raise OSError: it is not open.
    """
    description = describe(descriptor)
    if description.more or description.kind not in ("tcp", "unix"):
        return description
    with borrowed(descriptor) as looked:
        try:
            if description.kind == "tcp":
                whole = connection(looked.socket, listening())
            else:
                whole = _unixConnection(looked.socket)
        except OSError:
            # Not connected, or not any more.
            return description
    return evolve(description, whole=whole)


def ends(looked: socket.socket) -> tuple[tuple[str, int], tuple[str, int]]:
    """
    The two ends of a TCP connection, its own first: host and port.

    @raise OSError: it is not connected.
    """
    here, there = looked.getsockname(), looked.getpeername()
    return (_plain(here[0]), here[1]), (_plain(there[0]), there[1])


def connection(looked: socket.socket, listening: Listening) -> str:
    """
    A TCP connection, by its two ends.

    @raise OSError: it is not connected.
    """
    here, there = ends(looked)
    server = listening.shown(*here)
    if server is not None:
        return f"{server} from {internet(*there)}"
    first, last = ephemeral()
    # A server's port, though nobody listens there any more.
    word = "to" if first <= here[1] <= last else "from"
    return f"{internet(*here)} {word} {internet(*there)}"


def _unixConnection(looked: socket.socket) -> str:
    here, there = looked.getsockname(), looked.getpeername()
    if not here and not there:
        # A pair, of which the kernel knows only who made it.
        return ""
    credentials = looked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    (pid,) = struct.unpack_from("=i", credentials)
    path = named(pathOf(here or there))
    if not pid:
        return path
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            name = named(file.read().removesuffix(b"\n"))
    except OSError:
        name = "process"
    return f"{path} {'from' if here else 'to'} {name}[{pid}]"


def _plain(host: str) -> str:
    """Without a scope; and an IPv4 address is one, also on a socket for both kinds."""
    return host.partition("%")[0].removeprefix("::ffff:") if "." in host else host.partition("%")[0]
