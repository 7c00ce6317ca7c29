"""
Addresses that are paths: C{seqpacket:PATH[:mode=600][:backlog=128][:unlink=yes]}, and C{unix:}.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, Self, TypeVar

from attrs import frozen
from twisted.logger import Logger

from chanproxy.endpoints.addresses import (
    CLOEXEC,
    Address,
    SocketAddress,
    Target,
    Traits,
    backlogOf,
    listenOn,
    number,
    split,
    unknown,
)
from chanproxy.endpoints.guessing import guesses
from chanproxy.words import Wrong, named, plainPath

PATH_BYTES = 107
"""C{unix(7)}: C{sun_path} is 108 bytes, one of them the terminator."""

_LISTENING = ("mode", "backlog", "unlink")

_P = TypeVar("_P", bound="PathSpec")

_log = Logger()


@frozen
class PathSpec(SocketAddress):
    """
    A Unix socket's address.

    @ivar path: absolute, or C{@name} in the abstract namespace.
    @ivar mode: the socket file's permissions; for an abstract name, applied to peers' credentials.
    @ivar backlog: connections that the kernel holds before they are accepted.
    @ivar unlink: replace a socket file that no process is bound to.
    @cvar kind: of its sockets.
    """

    path: str
    mode: int = 0o600
    backlog: int = 128
    unlink: bool = True

    scheme: ClassVar[str]
    place: ClassVar[str] = "path"
    kind: ClassVar[int]
    _family: ClassVar[str]

    @classmethod
    def parse(cls, arguments: Sequence[str], options: Mapping[str, str], listening: bool) -> Self:
        """
        Make one of the pieces of an endpoint string.

        @raise ValueError: one sentence for each bad argument, joined by semicolons.
        """
        wrong: list[str] = []
        path = arguments[0] if arguments else ""
        if len(arguments) != 1 or not path or path == "@":
            wrong.append(f"it takes exactly one path, as in {cls.scheme}:/run/a.sock")
        elif not path.startswith(("/", "@")):
            wrong.append(f"the path {path!r} is relative; write it from / on")
        elif path.startswith("/") and path.endswith("/"):
            wrong.append(f"the path {path!r} is a directory; add the socket's name")
        elif len(os.fsencode(path)) > PATH_BYTES:
            wrong.append(f"the path has {len(os.fsencode(path))} bytes; {PATH_BYTES} is the most")
        elif "\0" in path:
            wrong.append("the path holds a zero byte; the abstract namespace is written @name")
        allowed = _LISTENING if listening else ()
        wrong += unknown(options, allowed, "connecting takes a path only")
        mode = number(options.get("mode", "600"), 8, 0, 0o777)
        if mode is None:
            wrong.append(f"mode={options['mode']!r} is no octal mode from 0 to 777")
        backlog = backlogOf(options, wrong)
        unlink = options.get("unlink", "yes")
        if unlink not in ("yes", "no"):
            wrong.append(f"unlink={unlink!r} is neither yes nor no")
        if wrong or mode is None or backlog is None:
            raise ValueError("; ".join(wrong))
        return cls(path, mode, backlog, unlink == "yes")

    @property
    def abstract(self) -> bool:
        """Whether it has no file."""
        return self.path.startswith("@")

    @property
    def file(self) -> str:
        """See L{SocketAddress}."""
        return "" if self.abstract else self.path

    @property
    def peerMode(self) -> int | None:
        """See L{SocketAddress}."""
        return self.mode if self.abstract else None

    @property
    def traits(self) -> Traits:
        """See L{Address}."""
        return Traits(self._family, True, True, True)

    @property
    def shown(self) -> str:
        """See L{Address}."""
        return named(self.path)

    def socketAmong(self, others: Collection[Address]) -> str:
        """See L{Address}."""
        return plainPath(self.path)

    def leadsTo(self, other: Address) -> bool:
        """See L{Address}."""
        return isinstance(other, PathSpec) and plainPath(self.path) == plainPath(other.path)

    def othersMayConnect(self) -> bool:
        """Whether the mode lets in anybody beside root and the owner."""
        # The kernel wants write permission; where we apply the mode ourselves, any bit will do.
        return bool(self.mode & (0o066 if self.abstract else 0o022))

    def openTo(self) -> tuple[str, str] | None:
        """See L{Address}."""
        if not self.mode & (0o007 if self.abstract else 0o002):
            return None
        return f"every user of this machine (mode {self.mode:03o})", "write mode=660 or less"

    def written(self, mode: int) -> str:
        """The endpoint string, in the quotes of TOML, of the same path with another mode."""
        path = "".join(f"\\{c}" if c in "\\:=" else c for c in self.path)
        text = f"{self.scheme}:{path}:mode={mode:03o}"
        return json.dumps(text, ensure_ascii=not path.isprintable())

    def whyNotBindable(self) -> str | None:
        """See L{SocketAddress}; no file is made for it."""
        if self.abstract:
            return self._whyTaken()
        path, shown = self.path, self.shown
        directory = os.path.dirname(path) or "."
        if not os.path.isdir(directory):
            return f"there is no directory {named(directory)}; create it, or choose another path"
        if not os.access(directory, os.W_OK | os.X_OK):
            return (
                f"no permission to create {shown}; run as another user, or chown {named(directory)}"
            )
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return None
        if not stat.S_ISSOCK(mode):
            return f"{shown} exists and is no socket; remove it, or choose another path"
        if isAlive(path):
            return f"{shown} is in use by a living process; stop it, or choose another path"
        if not self.unlink:
            return (
                f"{shown} is a stale socket file, no process listens there; remove it, or "
                "unlink=yes"
            )
        return None

    def _whyTaken(self) -> str | None:
        """Of an abstract name: there is no file that says it, and no other socket kind sees it."""
        with self._tried() as tried:
            try:
                tried.bind(kernelPath(self.path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return self._explain(error)
                return f"{self.shown} is in use by a living process; stop it, or choose another"
        return None

    def _tried(self) -> socket.socket:
        return socket.socket(socket.AF_UNIX, self.kind | CLOEXEC)

    def _listening(self) -> socket.socket:
        wrong = self.whyNotBindable()
        if wrong is not None:
            raise ValueError(wrong)
        if self.file and os.path.lexists(self.file):
            _log.info("{path} was left by a process that is gone: replaced", path=self.shown)
            os.unlink(self.file)
        made = self._tried()
        # The umask is the only way to be born with a mode: chmod later would leave a gap.
        umask = os.umask(0o777 & ~self.mode)
        try:
            made.bind(kernelPath(self.path))
        except BaseException:
            made.close()
            raise
        finally:
            os.umask(umask)
        return listenOn(made, self.backlog)

    def target(self) -> Target:
        """See L{SocketAddress}."""
        return Target(socket.AF_UNIX, self.kind, kernelPath(self.path))


@frozen
class SeqpacketAddressSpec(PathSpec):
    """A packet socket's address."""

    scheme: ClassVar[str] = "seqpacket"
    kind = socket.SOCK_SEQPACKET
    _family = "packets"


@frozen
class UnixStreamAddressSpec(PathSpec):
    """A stream socket's address."""

    scheme: ClassVar[str] = "unix"
    kind = socket.SOCK_STREAM
    _family = "bytes"


def kernelPath(path: str) -> bytes:
    """The path as C{sockaddr_un} wants it: C{@} stands for the abstract namespace."""
    raw = os.fsencode(path)
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


def isAlive(path: str) -> bool:
    """Whether a process is bound to a socket file, without disturbing it."""
    # A datagram socket cannot connect to a listener of another type: EPROTOTYPE says that one
    # lives, and it does not even see a connection.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(kernelPath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                # A file that we may not connect to is not ours to replace.
                return True
            return error.errno in (errno.EPROTOTYPE, errno.EAGAIN)
        return True


def parsePath(cls: type[_P], description: str, listening: bool) -> _P:
    """
    Read the address of a socket of one kind.

    @raise ValueError: what is wrong, a sentence for each.
    """
    kind, arguments, options = split(description)
    if kind != cls.scheme:
        raise ValueError(
            f"{kind or description!r} is no kind that takes calls here; "
            f"the only one is {cls.scheme}, as in {cls.scheme}:/run/a.sock"
        )
    return cls.parse(arguments, options, listening)


def parseSeqpacket(description: str, listening: bool) -> SeqpacketAddressSpec:
    """
    Read the address of a packet socket.

    @raise ValueError: what is wrong, a sentence for each.
    """
    return parsePath(SeqpacketAddressSpec, description, listening)


def parseControl(text: str) -> SeqpacketAddressSpec:
    """
    Read where to listen for calls: an endpoint string, or just a path.

    @raise Wrong: what is wrong, a sentence for each, and what to write instead.
    """
    return _parseCalled(SeqpacketAddressSpec, text)


def parseVarlink(text: str) -> UnixStreamAddressSpec:
    """
    Likewise, for calls on a stream.

    @raise Wrong: likewise.
    """
    return _parseCalled(UnixStreamAddressSpec, text)


def _parseCalled(cls: type[_P], text: str) -> _P:
    try:
        return _parseEither(cls, text)
    except ValueError as error:
        raise Wrong(str(error), *_meant(cls, text)) from None


def _meant(cls: type[PathSpec], text: str) -> Iterator[str]:
    """The socket that was meant by what is none."""
    scheme = cls.scheme
    kind, colon, rest = text.strip().partition(":")
    described = f"{scheme}:{rest}" if colon and kind in ("unix", "seqpacket") else text
    for guess in guesses(described, True, [scheme]):
        for better in (guess.removeprefix(f"{scheme}:"), guess):
            try:
                _parseEither(cls, better)
            except ValueError:
                continue
            yield better
            return


def _parseEither(cls: type[_P], text: str) -> _P:
    scheme = cls.scheme
    if not text.startswith(("/", "@")):
        # A relative path is refused as such, not as an unknown kind.
        return parsePath(cls, text if ":" in text else f"{scheme}:{text}", listening=True)
    if ":" in text or "\\" in text:
        raise ValueError(
            f"{text!r} is a path with more after it, or with a colon or backslash in it; "
            f"that takes {scheme}: in front, as in {scheme}:/run/a.sock:mode=666"
        )
    return cls.parse([text], {}, listening=True)
