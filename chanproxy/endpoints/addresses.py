"""
Addresses: where a channel listens or connects, as an object that knows what it can carry, how to
listen there, and why it cannot.

What all kinds have in common.  Each kind is in a file of its own, and
L{chanproxy.endpoints.parsing} reads them all.  Knows no reactor and no channels.
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from attrs import frozen
from twisted.internet.error import CannotListenError

CLOEXEC = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
"""What each socket is born with."""


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


class Target(NamedTuple):
    """What a socket connects to: the arguments of C{socket}, and that of C{connect}."""

    family: int
    kind: int
    place: Any


class Address(ABC):
    """
    One of any kind.

    @cvar place: what makes an address of this kind a different one: C{path}, C{port} and so on.
    """

    place: ClassVar[str] = "address"

    @property
    @abstractmethod
    def scheme(self) -> str:
        """What it is written with, before the first colon."""

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What channels of it can carry."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """The address, in words for people."""

    @property
    def isWide(self) -> bool:
        """Whether it takes what is meant by other addresses as well: all of a machine's."""
        return False

    def socketAmong(self, others: Collection[Address]) -> str | None:
        """
        What names the socket that it listens on, the same for two that cannot both do that.

        @param others: all that listen, or those of them that are L{isWide}.
        @return: None: it is a new one each time.
        """
        return repr(self)

    def leadsTo(self, other: Address) -> bool:
        """Whether who connects to it comes to what listens on another one."""
        return False

    @property
    def engine(self) -> str:
        """The engine of containers that says where it is, each time; empty: none does."""
        return ""

    @property
    def file(self) -> str:
        """The file that stands for what listens there; empty: none does."""
        return ""

    def openTo(self) -> tuple[str, str] | None:
        """
        Whom it lets in who listens on it, where that is more than the users who were meant.

        @return: who that is, and what to write so that it does not; L{None}: nobody, or it is not
            known.
        """
        return None


class SocketAddress(Address):
    """One whose sockets are made by us."""

    @property
    def near(self) -> bool:
        """Whether only this machine can connect to what listens there."""
        return True

    @property
    def peerMode(self) -> int | None:
        """Permissions that who listens has to apply to peers; L{None}: the kernel does."""
        return None

    def whyNotBindable(self) -> str | None:
        """
        Look whether it could be listened on, without changing anything.

        @return: what is wrong and what to do, or L{None}.
        """
        try:
            self._tried().close()
        except OSError as error:
            return self._explain(error)
        except ValueError as error:
            return str(error)
        return None

    def listen(self) -> socket.socket:
        """
        Bind and listen, or adopt what listens already.

        @return: it does not block, and belongs to the caller.
        @raise CannotListenError: with what is wrong and what to do; nothing is left behind.
        """
        try:
            return self._listening()
        except OSError as error:
            why = OSError(self._explain(error))
            raise CannotListenError(self.scheme, self.shown, why) from error
        except ValueError as error:
            raise CannotListenError(self.scheme, self.shown, OSError(str(error))) from error

    @abstractmethod
    def _tried(self) -> socket.socket:
        """A socket at this address, as far as that disturbs nobody."""

    @abstractmethod
    def _listening(self) -> socket.socket:
        """
        One that listens.

        @raise ValueError: what is wrong and what to do.
        """

    def _explain(self, error: OSError) -> str:
        """What is wrong, and what to do."""
        if error.errno == errno.EAFNOSUPPORT:
            return f"this kernel has no {self.scheme} for {getattr(self, 'host', 'sockets')}"
        return error.strerror or str(error)

    def target(self) -> Target | None:
        """What to connect to; L{None}: its host has to be looked up first, see L{named}."""
        raise ValueError(f"{self.scheme} is for listening only")

    @property
    def named(self) -> tuple[str, int]:
        """The host's name, and the port."""
        raise ValueError(f"{self.scheme} has no host")


def listenOn(made: socket.socket, backlog: int) -> socket.socket:
    """Have a socket listen that is bound; if it cannot, it is closed."""
    try:
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made


# Reading what is written.


def split(description: str) -> tuple[str, list[str], dict[str, str]]:
    """
    Twisted's endpoint syntax: colons separate, C{=} names, a backslash quotes.

    @raise ValueError: the last backslash quotes nothing.
    """
    # Its own parser is private; the syntax is documented in the endpoints how-to.
    pieces: list[tuple[str | None, str]] = [(None, "")]
    quoted = named = False
    for character in description:
        if quoted or character not in "\\:=" or (character == "=" and named):
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + character)
            quoted = False
        elif character == "\\":
            quoted = True
        elif character == ":":
            pieces.append((None, ""))
            named = False
        else:
            pieces[-1] = (pieces[-1][1], "")
            named = True
    if quoted:
        raise ValueError("the last backslash quotes nothing; write two for one in the path")
    values = [value for name, value in pieces if name is None]
    options = {name: value for name, value in pieces if name is not None}
    return (values[0] if values else ""), values[1:], options


def unknown(options: Mapping[str, str], allowed: Sequence[str], otherwise: str) -> list[str]:
    """A sentence for each argument that there is not."""
    known = f"known are {', '.join(allowed)}" if allowed else otherwise
    return [f"there is no argument {name!r}; {known}" for name in options if name not in allowed]


def backlogOf(options: Mapping[str, str], wrong: list[str]) -> int | None:
    """The backlog that is written; if it is none, that is noted."""
    backlog = number(options.get("backlog", "128"), 10, 1, 65535)
    if backlog is None:
        wrong.append(f"backlog={options['backlog']!r} is no number from 1 to 65535")
    return backlog


def number(text: str, base: int, least: int, most: int) -> int | None:
    """A number as it is written, L{None} if it is none or out of range."""
    if not (text.isascii() and text.isdigit()):
        return None
    try:
        value = int(text, base)
    except ValueError:
        return None
    return value if least <= value <= most else None
