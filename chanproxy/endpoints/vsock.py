"""
Addresses between a virtual machine and its host, see C{vsock(7)}: C{vsock:PORT[:cid=any]} to
listen, C{vsock:CID:PORT} to connect.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import frozen

from chanproxy.endpoints.addresses import (
    CLOEXEC,
    SocketAddress,
    Target,
    Traits,
    backlogOf,
    listenOn,
    number,
    unknown,
)
from chanproxy.endpoints.tcp import portOf
from chanproxy.words import brief

ANY_CID = 0xFFFFFFFF
"""C{VMADDR_CID_ANY}, C{linux/vm_sockets.h}."""

_CIDS = {"local": 1, "host": 2, "any": ANY_CID}


@frozen
class VsockAddressSpec(SocketAddress):
    """
    One of them.

    @ivar cid: the machine's number; to listen on, C{ANY_CID} for all of this machine's.
    @ivar port: a number of 32 bits.
    @ivar backlog: connections that the kernel holds before they are accepted.
    """

    cid: int
    port: int
    backlog: int = 128

    scheme: ClassVar[str] = "vsock"

    @property
    def traits(self) -> Traits:
        """See L{Address}."""
        return Traits("bytes", False, False, False)

    @property
    def shown(self) -> str:
        """See L{Address}."""
        return f"vsock {self.cid}:{self.port}"

    def openTo(self) -> tuple[str, str] | None:
        """See L{Address}."""
        if self.cid == _CIDS["local"]:
            return None
        return "other machines, the host or its guests", "leave cid out, so that it is local"

    def _tried(self) -> socket.socket:
        made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | CLOEXEC)
        try:
            made.bind((self.cid, self.port))
        except BaseException:
            made.close()
            raise
        return made

    def _listening(self) -> socket.socket:
        return listenOn(self._tried(), self.backlog)

    def target(self) -> Target:
        """See L{SocketAddress}."""
        return Target(socket.AF_VSOCK, socket.SOCK_STREAM, (self.cid, self.port))


def parseVsock(
    arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> VsockAddressSpec:
    """Make one of the pieces of an endpoint string.  @raise ValueError: what is wrong."""
    wrong = unknown(options, ("cid", "backlog") if listening else (), "connecting takes CID:PORT")
    form = "vsock:PORT[:cid=any]" if listening else "vsock:CID:PORT"
    if len(arguments) != (1 if listening else 2):
        raise ValueError("; ".join([*wrong, f"it is written {form}"]))
    port = portOf(arguments[-1], 0, wrong, 2**32 - 2)
    written = options.get("cid", "local") if listening else arguments[0]
    cid = _CIDS.get(written, number(written, 10, 0, 2**32 - 2))
    if cid is None or (cid == ANY_CID and not listening):
        names = "local, host, any" if listening else "local, host"
        wrong.append(f"cid {brief(written)} is no number, and none of {names}")
    backlog = backlogOf(options, wrong)
    if wrong or port is None or cid is None or backlog is None:
        raise ValueError("; ".join(wrong))
    return VsockAddressSpec(cid, port, backlog)
