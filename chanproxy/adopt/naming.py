"""
Descriptors in words that a person understands, and the words by which some are ignored.

C{tcp *:80 listening}, C{udp *:5353}, C{unix /run/x.sock}, C{timerfd}.  Looks at descriptors of this
process; never reads from them.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence

from attrs import frozen

from chanproxy.kernel import calls
from chanproxy.kernel.borrowed import borrowed
from chanproxy.words import Wrong, brief, named

_KINDS = {
    socket.SOCK_STREAM: "stream",
    socket.SOCK_DGRAM: "datagram",
    socket.SOCK_SEQPACKET: "seqpacket",
    socket.SOCK_RAW: "raw",
}

WORDS = (
    "tcp",
    "udp",
    "unix",
    "vsock",
    "netlink",
    "socket",
    "pipe",
    "eventfd",
    "timerfd",
    "signalfd",
    "inotify",
    "pidfd",
    "epoll",
    "io_uring",
    "device",
    "file",
)
"""The kinds there are."""

_OURS = ("tcp", "udp", "vsock")

_ADDRESSLESS = (
    *("pipe", "netlink", "eventfd", "timerfd", "signalfd", "inotify", "pidfd", "epoll"),
    "io_uring",
)

_ANONYMOUS = {
    "eventfd": "eventfd",
    "timerfd": "timerfd",
    "signalfd": "signalfd",
    "inotify": "inotify",
    "pidfd": "pidfd",
    "eventpoll": "epoll",
    "io_uring": "io_uring",
}


@frozen
class Description:
    """
    What a descriptor is.

    @ivar kind: one of L{WORDS}.
    @ivar address: of a socket, where it is or whom it speaks to; or a path.  As it is: not quoted.
    @ivar more: C{listening}, or nothing.
    @ivar whole: what is shown instead of both, when it is known who is at the other end; quoted.
    """

    kind: str
    address: str = ""
    more: str = ""
    whole: str = ""

    @property
    def isSocket(self) -> bool:
        """Its peer sees when the last descriptor of it is closed."""
        return self.kind in ("tcp", "udp", "unix", "vsock", "netlink", "socket", "pipe")

    def __str__(self) -> str:
        # Of the internet, an address is ours, and has brackets.
        address = self.address if self.kind in _OURS else named(self.address)
        parts = (self.kind, self.whole) if self.whole else (self.kind, address, self.more)
        return " ".join(part for part in parts if part)


def describe(descriptor: int) -> Description:
    """
    Say what a descriptor of this process is.

    @raise OSError: it is not open.
    """
    mode = calls.statusOf(descriptor).mode
    if stat.S_ISSOCK(mode):
        with borrowed(descriptor) as looked:
            return _describeSocket(looked.socket)
    if stat.S_ISFIFO(mode):
        return Description("pipe")
    return describeLink(os.readlink(f"/proc/self/fd/{descriptor}"), mode)


def describeLink(link: str, mode: int = 0) -> Description:
    """What a link in C{/proc/PID/fd} says; of sockets only that it is one."""
    if link.startswith("socket:"):
        return Description("socket")
    if link.startswith("pipe:"):
        return Description("pipe")
    anonymous = re.fullmatch(r"(?:anon_inode|pidfd):\[?([^\]]*)\]?", link)
    if anonymous:
        name = "pidfd" if link.startswith("pidfd:") else anonymous[1]
        kind = _ANONYMOUS.get(name)
        return Description(kind) if kind else Description("file", name)
    return Description("device" if stat.S_ISCHR(mode) else "file", link)


def _describeSocket(looked: socket.socket) -> Description:
    family, kind = looked.family, _KINDS.get(looked.type, "")
    listening = ""
    try:
        if looked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listening = "listening"
    except OSError:
        listening = ""
    if family in (socket.AF_INET, socket.AF_INET6):
        word = {"stream": "tcp", "datagram": "udp"}.get(kind, "socket")
        return Description(word, _internet(looked.getsockname()), listening)
    if family == socket.AF_UNIX:
        path = looked.getsockname() or _peer(looked)
        return Description("unix", pathOf(path), listening)
    if family == socket.AF_VSOCK:
        return Description("vsock", "{}:{}".format(*looked.getsockname()), listening)
    if family == socket.AF_NETLINK:
        return Description("netlink")
    return Description("socket", kind, listening)


def _peer(looked: socket.socket) -> str | bytes:
    try:
        peer: str | bytes = looked.getpeername()
    except OSError:
        return ""
    return peer


def _internet(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    if host in ("0.0.0.0", "::"):
        host = "*"
    elif ":" in host:
        host = f"[{host}]"
    return f"{host}:{port}"


def pathOf(path: str | bytes) -> str:
    """A Unix socket's address; one that is no file begins with an C{@}."""
    text = os.fsdecode(path)
    return f"@{text[1:]}" if text.startswith("\0") else text


def _meant(kind: str, address: str) -> Iterator[str]:
    """What was meant by a word of a kind that there is not, if that is known."""
    for near in difflib.get_close_matches(kind.lower()[:40], WORDS, 1):
        try:
            _expectAddress(near, address)
        except Wrong as error:
            yield from map(str, error.better)
        else:
            yield f"{near}:{address}" if address else near


def _expectAddress(kind: str, address: str) -> None:
    """@raise Wrong: nothing of the kind has such an address."""
    wild = "*" in address or "?" in address
    if kind in _ADDRESSLESS and address.strip("*"):
        raise Wrong(f"{brief(f'{kind}:{address}')} ignores nothing: {kind} has no address", kind)
    if kind in _OURS and address and not wild and ":" not in address:
        better = f"{kind}:*:{address}" if address.isdigit() else f"{kind}:{address}:*"
        raise Wrong(f"{brief(f'{kind}:{address}')} ignores nothing: it lacks a port", better)


class Ignored:
    """
    Descriptors that wake nobody.

    A word is a kind, C{timerfd}, or a kind and an address with C{*} and C{?}, C{udp:*:5353}.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """@raise Wrong: a word is of no known kind, or none could be like it."""
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for word in words:
            kind, _, address = word.partition(":")
            if kind not in WORDS:
                raise Wrong(
                    f"{brief(word)} begins with no known kind; there are {', '.join(WORDS)}",
                    *_meant(kind, address),
                )
            _expectAddress(kind, address)
            # Not fnmatch: brackets belong to addresses.
            pattern = re.escape(address or "*").replace(r"\*", ".*").replace(r"\?", ".")
            self._patterns.append((kind, re.compile(pattern, re.DOTALL)))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, description: Description) -> bool:
        """Whether it is ignored."""
        return any(
            kind == description.kind and pattern.fullmatch(description.address)
            for kind, pattern in self._patterns
        )

    def kinds(self) -> frozenset[str]:
        """Kinds of which some may be ignored."""
        return frozenset(kind for kind, _ in self._patterns)
