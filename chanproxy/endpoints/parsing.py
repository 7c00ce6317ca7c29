"""
Kinds of addresses: what each is written like, and what a channel of it can carry.

Pure text; imports no configuration and opens nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias

from attrs import frozen

from chanproxy.endpoints.addresses import (
    PathSpec,
    SeqpacketAddressSpec,
    UnixStreamAddressSpec,
    backlogOf,
    number,
    pathSpec,
    split,
    unknown,
)
from chanproxy.words import brief

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_DOMAINS = ("UNIX", "INET", "INET6")

_PLAIN = ("ssl", "tls")
"""Kinds of Twisted's own that carry no descriptors."""


@frozen
class TcpAddressSpec:
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


@frozen
class VsockAddressSpec:
    """
    An address between a virtual machine and its host, see C{vsock(7)}.

    @ivar cid: the machine's number; to listen on, C{ANY_CID} for all of this machine's.
    @ivar port: a number of 32 bits.
    @ivar backlog: connections that the kernel holds before they are accepted.
    """

    cid: int
    port: int
    backlog: int = 128

    scheme: ClassVar[str] = "vsock"


ANY_CID = 0xFFFFFFFF
"""C{VMADDR_CID_ANY}, C{linux/vm_sockets.h}."""

_CIDS = {"local": 1, "host": 2, "any": ANY_CID}


@frozen
class SystemdAddressSpec:
    """
    A socket that listens already, handed over by C{LISTEN_FDS}, see C{sd_listen_fds(3)}.

    @ivar domain: C{UNIX}, C{INET} or C{INET6}.
    @ivar index: the how manyth it is; or C{name}: what systemd calls it.
    """

    domain: str
    index: int | None = None
    name: str | None = None

    scheme: ClassVar[str] = "systemd"


@frozen
class OtherAddressSpec:
    """
    An endpoint of Twisted's, or of a plugin's.

    @ivar description: the whole endpoint string.
    """

    scheme: str
    description: str


AddressSpec: TypeAlias = (
    PathSpec | TcpAddressSpec | VsockAddressSpec | SystemdAddressSpec | OtherAddressSpec
)


@frozen
class Traits:
    """
    What a channel of a kind can carry, as far as its address tells.

    @ivar family: C{packets} or C{bytes}; L{None}: only the socket tells.
    @ivar descriptors: whether descriptors go with messages; L{None}: only the connection tells.
    @ivar showsUnread: whether it shows what the container has read; L{None}: only the socket tells.
    @ivar credentials: whether the kernel knows the peer's user.
    """

    family: str | None
    descriptors: bool | None
    showsUnread: bool | None
    credentials: bool


def traits(spec: AddressSpec) -> Traits:
    """What channels of an address can carry."""
    if isinstance(spec, PathSpec):
        family = "packets" if isinstance(spec, SeqpacketAddressSpec) else "bytes"
        return Traits(family, True, True, True)
    if isinstance(spec, SystemdAddressSpec):
        unix = spec.domain == "UNIX"
        return Traits(None if unix else "bytes", unix, unix, unix)
    other = isinstance(spec, OtherAddressSpec) and spec.scheme.lower() not in _PLAIN
    return Traits("bytes", None if other else False, False, False)


def parseAddress(description: str, listening: bool) -> AddressSpec:
    """
    Read the address of a channel.

    Of kinds that are not ours only the form is checked: what they mean Twisted knows, and its
    plugins.

    @raise ValueError: what is wrong, a sentence for each.
    """
    kind, arguments, options = split(description)
    parse = _PARSERS.get(kind)
    if parse is not None:
        return parse(arguments, options, listening)
    if kind.lower() in _PARSERS:
        # Twisted would take it for its own, which has other rules.
        raise ValueError(f"the kind {kind} is written {kind.lower()}")
    right = _SCHEME.fullmatch(kind) and (arguments or options) and description.isprintable()
    if not right:
        raise ValueError(
            f"{brief(description)} is no address; it begins with a kind and a colon, "
            "as seqpacket:/run/a.sock, unix:/run/a.sock or tcp:8080 do"
        )
    return OtherAddressSpec(kind, description)


def _seqpacket(
    arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> AddressSpec:
    return pathSpec(SeqpacketAddressSpec, arguments, options, listening)


def _unix(arguments: Sequence[str], options: Mapping[str, str], listening: bool) -> AddressSpec:
    return pathSpec(UnixStreamAddressSpec, arguments, options, listening)


def _tcp(arguments: Sequence[str], options: Mapping[str, str], listening: bool) -> AddressSpec:
    return _tcpListening(arguments, options) if listening else _tcpConnecting(arguments, options)


def _tcpListening(
    arguments: Sequence[str], options: Mapping[str, str], loopback: str = "127.0.0.1"
) -> AddressSpec:
    wrong = unknown(options, ("port", "interface", "backlog"), "")
    ports = [*arguments, *(options[name] for name in ("port",) if name in options)]
    if len(ports) != 1:
        wrong.append("it takes one port, as in tcp:8080 or tcp:8080:interface=0.0.0.0")
    port = _port(ports[0], 0, wrong) if ports else None
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


def _tcp6(arguments: Sequence[str], options: Mapping[str, str], listening: bool) -> AddressSpec:
    if not listening:
        raise ValueError("tcp6 is for listening; write tcp:HOST:PORT to connect")
    return _tcpListening(arguments, options, "::1")


def _tcpConnecting(arguments: Sequence[str], options: Mapping[str, str]) -> AddressSpec:
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
    host, port = places[0], _port(places[1], 1, wrong)
    if not host or not host.isprintable() or len(host) > 253 or " " in host:
        wrong.append(f"{brief(host)} is no name of a host and no IP address")
    if wrong or port is None:
        raise ValueError("; ".join(wrong))
    return TcpAddressSpec(host, port)


def _port(text: str, least: int, wrong: list[str], most: int = 65535) -> int | None:
    port = number(text, 10, least, most)
    if port is None:
        wrong.append(f"{brief(text)} is no port from {least} to {most}")
    return port


def _vsock(arguments: Sequence[str], options: Mapping[str, str], listening: bool) -> AddressSpec:
    wrong = unknown(options, ("cid", "backlog") if listening else (), "connecting takes CID:PORT")
    form = "vsock:PORT[:cid=any]" if listening else "vsock:CID:PORT"
    if len(arguments) != (1 if listening else 2):
        raise ValueError("; ".join([*wrong, f"it is written {form}"]))
    port = _port(arguments[-1], 0, wrong, 2**32 - 2)
    written = options.get("cid", "local") if listening else arguments[0]
    cid = _CIDS.get(written, number(written, 10, 0, 2**32 - 2))
    if cid is None or (cid == ANY_CID and not listening):
        wrong.append(f"cid {brief(written)} is no number, and none of local, host, any")
    backlog = backlogOf(options, wrong)
    if wrong or port is None or cid is None or backlog is None:
        raise ValueError("; ".join(wrong))
    return VsockAddressSpec(cid, port, backlog)


def _systemd(arguments: Sequence[str], options: Mapping[str, str], listening: bool) -> AddressSpec:
    if not listening:
        raise ValueError("systemd hands over sockets that listen; it is for listen only")
    wrong = unknown(options, ("domain", "index", "name"), "")
    if arguments:
        wrong.append("it takes domain= and index= or name=, as in systemd:domain=UNIX:index=0")
    domain = options.get("domain", "")
    if domain not in _DOMAINS:
        wrong.append(f"domain={brief(domain)} is none of {', '.join(_DOMAINS)}")
    if ("index" in options) == ("name" in options):
        wrong.append("either index= or name= says which socket it is")
    index = number(options.get("index", "0"), 10, 0, 65535)
    if index is None:
        wrong.append(f"index={brief(options['index'])} is no number from 0 to 65535")
    if wrong:
        raise ValueError("; ".join(wrong))
    name = options.get("name")
    return SystemdAddressSpec(domain, index if name is None else None, name)


_PARSERS: dict[str, Callable[[Sequence[str], Mapping[str, str], bool], AddressSpec]] = {
    "seqpacket": _seqpacket,
    "unix": _unix,
    "tcp": _tcp,
    "tcp6": _tcp6,
    "vsock": _vsock,
    "systemd": _systemd,
}
