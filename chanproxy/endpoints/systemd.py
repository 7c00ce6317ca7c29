"""
Sockets that listen already, handed over by C{LISTEN_FDS}, see C{sd_listen_fds(3)}:
C{systemd:domain=UNIX:index=0}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import frozen

from chanproxy.endpoints.addresses import SocketAddress, Traits, number, unknown
from chanproxy.words import brief

_DOMAINS = {"UNIX": socket.AF_UNIX, "INET": socket.AF_INET, "INET6": socket.AF_INET6}

_FIRST_PASSED = 3
"""C{sd_listen_fds(3)}."""


@frozen
class SystemdAddressSpec(SocketAddress):
    """
    One of them.

    @ivar domain: C{UNIX}, C{INET} or C{INET6}.
    @ivar index: its place among those that were passed, from 0; or C{name}: what systemd calls it.
    """

    domain: str
    index: int | None = None
    name: str | None = None

    scheme: ClassVar[str] = "systemd"
    place: ClassVar[str] = "index"

    @property
    def traits(self) -> Traits:
        """See L{Address}."""
        unix = self.domain == "UNIX"
        return Traits(None if unix else "bytes", unix, unix, unix)

    @property
    def shown(self) -> str:
        """See L{Address}."""
        return f"socket {self.index if self.name is None else self.name} of systemd"

    def _tried(self) -> socket.socket:
        return self._listening()

    def _listening(self) -> socket.socket:
        """A duplicate of the socket."""
        names = _passed()
        index = self.index
        if self.name is not None:
            index = names.index(self.name) if self.name in names else None
        if index is None or index >= len(names):
            raise ValueError(
                f"systemd passed no such socket to this process ({len(names)} in LISTEN_FDS); "
                "start it by its socket unit, and with twistd -n"
            )
        descriptor = _FIRST_PASSED + index
        try:
            listening = socket.socket(fileno=os.dup(descriptor))
        except OSError as error:
            raise ValueError(f"descriptor {descriptor} of LISTEN_FDS: {error.strerror}") from error
        try:
            if listening.family != _DOMAINS[self.domain]:
                raise ValueError(f"the socket that systemd passed is no {self.domain} socket")
            if listening.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                raise ValueError("the socket that systemd passed is for datagrams")
            if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ValueError("the socket that systemd passed does not listen (Accept=yes?)")
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
        return listening


def _passed() -> list[str]:
    """The names of the sockets that systemd passed to this process; empty where it has none."""
    # Not by Twisted's ListenFDs: it can be asked once only, for it empties the environment.
    environment = os.environ
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environment.get("LISTEN_FDS", "")
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    passed = int(count) if count.isascii() and count.isdigit() else 0
    return (names + [""] * passed)[:passed]


def parseSystemd(
    arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> SystemdAddressSpec:
    """Make one of the pieces of an endpoint string.  @raise ValueError: what is wrong."""
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
