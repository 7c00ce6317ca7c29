"""
Addresses of containers by the names that their engine has for them: C{docker:NAME:PORT},
C{podman:NAME:PORT}, to connect.

What they stand for is known only at the time, and by others.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from attrs import frozen

from chanproxy.endpoints.addresses import SocketAddress, Traits, unknown
from chanproxy.endpoints.tcp import portOf
from chanproxy.words import brief, isContainerName

ENGINES = ("docker", "podman")
"""What they begin with."""


@frozen
class ContainerAddressSpec(SocketAddress):
    """
    A TCP port of a container.

    @ivar scheme: of L{ENGINES}.
    @ivar name: the container's, or its id.
    """

    scheme: str
    name: str
    port: int

    place: ClassVar[str] = "port"

    @property
    def traits(self) -> Traits:
        """See L{Address}."""
        return Traits("bytes", False, False, False)

    @property
    def shown(self) -> str:
        """See L{Address}."""
        return f"{self.scheme}:{self.name}:{self.port}"

    @property
    def engine(self) -> str:
        """See L{Address}."""
        return self.scheme

    @property
    def near(self) -> bool:
        """See L{SocketAddress}: it may be anywhere."""
        return False

    def _tried(self) -> socket.socket:
        raise ValueError(f"{self.scheme} is for connecting only")

    def _listening(self) -> socket.socket:
        return self._tried()

    def target(self) -> None:
        """See L{SocketAddress}: its engine is asked, each time."""
        return

    @property
    def named(self) -> tuple[str, int]:
        """See L{SocketAddress}."""
        return self.name, self.port


def _parse(
    scheme: str, arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> ContainerAddressSpec:
    if listening:
        raise ValueError(
            f"{scheme} is for connecting only; peers are listened for elsewhere, as in tcp:8080"
        )
    wrong = unknown(options, (), "it takes a name and a port")
    if len(arguments) != 2:
        example = f"it takes a container and a port of it, as in {scheme}:web:80"
        raise ValueError("; ".join([*wrong, example]))
    name, port = arguments[0], portOf(arguments[1], 1, wrong)
    if not isContainerName(name):
        wrong.append(f"{brief(name)} is no name of a container")
    if wrong or port is None:
        raise ValueError("; ".join(wrong))
    return ContainerAddressSpec(scheme, name, port)


PARSERS = {scheme: partial(_parse, scheme) for scheme in ENGINES}
"""By what they begin with."""
