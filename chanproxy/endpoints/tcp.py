"""
Addresses of TCP: C{tcp:PORT[:interface=127.0.0.1][:backlog=128]} to listen, C{tcp:HOST:PORT} to
connect.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from attrs import frozen

from chanproxy.endpoints.addresses import (
    CLOEXEC,
    Address,
    SocketAddress,
    Target,
    Traits,
    backlogOf,
    listenOn,
    number,
    unknown,
)
from chanproxy.words import brief

_EVERYWHERE = ("0.0.0.0", "::")


@frozen
class TcpAddressSpec(SocketAddress):
    """
    A TCP address to listen on, or to connect to.

    @ivar host: to listen on, an IP address; to connect to, a name or an IP address.
    @ivar port: 0 to listen on: the kernel chooses.
    @ivar backlog: connections that the kernel holds before they are accepted.
    """

    host: str
    port: int
    backlog: int = 128

    scheme: ClassVar[str] = "tcp"
    place: ClassVar[str] = "port"

    @property
    def traits(self) -> Traits:
        """See L{Address}."""
        return Traits("bytes", False, False, False)

    @property
    def shown(self) -> str:
        """See L{Address}."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def near(self) -> bool:
        """See L{SocketAddress}."""
        return _isLoopback(self.host)

    @property
    def _everywhere(self) -> tuple[int, bool] | None:
        """Port and family, where it listens on all addresses of this machine."""
        return (self.port, ":" in self.host) if self.host in _EVERYWHERE else None

    @property
    def isWide(self) -> bool:
        """See L{Address}."""
        return self._everywhere is not None

    def socketAmong(self, others: Collection[Address]) -> str | None:
        """See L{Address}."""
        if self.port == 0:
            return None
        mine = self.port, ":" in self.host
        if any(isinstance(each, TcpAddressSpec) and each._everywhere == mine for each in others):
            return f"tcp:{mine}"
        return f"tcp:{self.host}:{self.port}"

    def leadsTo(self, other: Address) -> bool:
        """See L{Address}."""
        if not isinstance(other, TcpAddressSpec) or self.port != other.port:
            return False
        near = self.host == "localhost" or _isLoopback(self.host)
        here = other.host in _EVERYWHERE or _isLoopback(other.host)
        same = self.host in (other.host, "localhost") or other.host in _EVERYWHERE
        return self.host == other.host or (near and here and same)

    def openTo(self) -> tuple[str, str] | None:
        """See L{Address}."""
        if _isLoopback(self.host):
            return None
        where = "this machine" if self.host in _EVERYWHERE else self.host
        remedy = (
            "leave interface out, so that it is loopback, and let something that asks (TLS with "
            "certificates, a firewall) stand before it"
        )
        return f"everybody who reaches {where} over the network", remedy

    def _tried(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the scope of a link-local address, fe80::1%eth0.
        numeric = socket.AI_NUMERICHOST
        place: Any = socket.getaddrinfo(self.host, self.port, family, flags=numeric)[0][4]
        made = socket.socket(family, socket.SOCK_STREAM | CLOEXEC, socket.IPPROTO_TCP)
        try:
            # Else connections that were closed lately keep the port for a minute.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(place)
        except BaseException:
            made.close()
            raise
        return made

    def _listening(self) -> socket.socket:
        return listenOn(self._tried(), self.backlog)

    def _explain(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return f"port {self.port} of {self.host} is in use; stop who has it, or choose another"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"this machine has no interface with the address {self.host}; choose another"
        if error.errno == errno.EACCES:
            return (
                f"no permission to listen on port {self.port}; choose one from 1024 on, or run "
                "with CAP_NET_BIND_SERVICE"
            )
        return super()._explain(error)

    @property
    def named(self) -> tuple[str, int]:
        """See L{SocketAddress}."""
        return self.host, self.port

    def target(self) -> Target | None:
        """See L{SocketAddress}."""
        try:
            version = ipaddress.ip_address(self.host).version
        except ValueError:
            return None
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        # No question to anybody: it is a number, perhaps with a scope.
        numeric = socket.AI_NUMERICHOST
        place: Any = socket.getaddrinfo(self.host, self.port, family, flags=numeric)[0][4]
        return Target(family, socket.SOCK_STREAM, place)


def _isLoopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def parseTcp(
    arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> TcpAddressSpec:
    """Make one of the pieces of an endpoint string.  @raise ValueError: what is wrong."""
    return _listening(arguments, options) if listening else _connecting(arguments, options)


def parseTcp6(
    arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> TcpAddressSpec:
    """Likewise, of C{tcp6:}, which listens only."""
    if not listening:
        raise ValueError("tcp6 is for listening; to connect, tcp:HOST:PORT is for both")
    return _listening(arguments, options, "::1")


def _listening(
    arguments: Sequence[str], options: Mapping[str, str], loopback: str = "127.0.0.1"
) -> TcpAddressSpec:
    wrong = unknown(options, ("port", "interface", "backlog"), "")
    ports = [*arguments, *(options[name] for name in ("port",) if name in options)]
    if len(ports) != 1:
        wrong.append("it takes one port, as in tcp:8080 or tcp:8080:interface=0.0.0.0")
    port = portOf(ports[0], 0, wrong) if ports else None
    interface = options.get("interface", loopback)
    try:
        ipaddress.ip_address(interface)
    except ValueError:
        wrong.append(
            f"interface={brief(interface)} is no IP address; 0.0.0.0 stands for all of IPv4, "
            r"and \:\: for all of IPv6"
        )
    backlog = backlogOf(options, wrong)
    if wrong or port is None or backlog is None:
        raise ValueError("; ".join(wrong))
    return TcpAddressSpec(interface, port, backlog)


def _connecting(arguments: Sequence[str], options: Mapping[str, str]) -> TcpAddressSpec:
    wrong = unknown(options, ("host", "port"), "")
    places = list(arguments)
    if "host" in options:
        places.insert(0, options["host"])
    if "port" in options:
        places.append(options["port"])
    if len(places) != 2:
        raise ValueError(
            "; ".join([*wrong, r"it takes a host and a port, as in tcp:localhost:80, tcp:\:\:1:80"])
        )
    host, port = places[0], portOf(places[1], 1, wrong)
    if not host or not host.isprintable() or len(host) > 253 or any(c in " /[]" for c in host):
        wrong.append(f"{brief(host)} is no name of a host and no IP address")
    if wrong or port is None:
        raise ValueError("; ".join(wrong))
    return TcpAddressSpec(host, port)


def portOf(text: str, least: int, wrong: list[str], most: int = 65535) -> int | None:
    """A port as it is written; if it is none, that is noted."""
    port = number(text, 10, least, most)
    if port is None:
        wrong.append(f"{brief(text)} is no port from {least} to {most}")
    return port
