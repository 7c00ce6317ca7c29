"""
Addresses that are paths: C{seqpacket:PATH[:mode=600][:backlog=128][:unlink=yes]}, and C{unix:}.

Pure text; imports no configuration and opens nothing.  All the other kinds are in
L{chanproxy.endpoints.parsing}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from attrs import frozen

PATH_BYTES = 107
"""C{unix(7)}: C{sun_path} is 108 bytes, one of them the terminator."""

_LISTENING = ("mode", "backlog", "unlink")


@frozen
class PathSpec:
    """
    A Unix socket's address.

    @ivar path: absolute, or C{@name} in the abstract namespace.
    @ivar mode: the socket file's permissions; for an abstract name, applied to peers' credentials.
    @ivar backlog: connections that the kernel holds before they are accepted.
    @ivar unlink: replace a socket file that no process is bound to.
    """

    path: str
    mode: int = 0o600
    backlog: int = 128
    unlink: bool = True

    scheme: ClassVar[str]


@frozen
class SeqpacketAddressSpec(PathSpec):
    """A packet socket's address."""

    scheme = "seqpacket"


@frozen
class UnixStreamAddressSpec(PathSpec):
    """A stream socket's address."""

    scheme = "unix"


S = TypeVar("S", bound=PathSpec)


def seqpacketSpec(
    arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> SeqpacketAddressSpec:
    """
    Make a packet socket's address of the pieces of an endpoint string.

    @raise ValueError: one sentence for each bad argument, joined by semicolons.
    """
    return pathSpec(SeqpacketAddressSpec, arguments, options, listening)


def pathSpec(
    make: type[S], arguments: Sequence[str], options: Mapping[str, str], listening: bool
) -> S:
    """
    Make an address of the pieces of an endpoint string.

    @raise ValueError: one sentence for each bad argument, joined by semicolons.
    """
    wrong: list[str] = []
    path = arguments[0] if arguments else ""
    if len(arguments) != 1 or not path or path == "@":
        wrong.append(f"it takes exactly one path, as in {make.scheme}:/run/a.sock")
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
    return make(path, mode, backlog, unlink == "yes")


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


def parseSeqpacket(description: str, listening: bool) -> SeqpacketAddressSpec:
    """
    Read the address of a packet socket.

    @raise ValueError: what is wrong, a sentence for each.
    """
    kind, arguments, options = split(description)
    if kind != "seqpacket":
        raise ValueError(
            f"{kind or description!r} is no kind that takes calls; "
            "the only one is seqpacket, as in seqpacket:/run/a.sock"
        )
    return seqpacketSpec(arguments, options, listening)


def parseControl(text: str) -> SeqpacketAddressSpec:
    """
    Read where to listen for calls: an endpoint string, or just a path.

    @raise ValueError: what is wrong, a sentence for each.
    """
    if not text.startswith(("/", "@")):
        # A relative path is refused as such, not as an unknown kind.
        return parseSeqpacket(text if ":" in text else f"seqpacket:{text}", listening=True)
    if ":" in text or "\\" in text:
        raise ValueError(
            f"{text!r} is a path with more after it, or with a colon or backslash in it; "
            "that takes seqpacket: in front, as in seqpacket:/run/a.sock:mode=666"
        )
    return seqpacketSpec([text], {}, listening=True)


def othersMayConnect(spec: SeqpacketAddressSpec) -> bool:
    """Whether the mode lets in anybody beside root and the owner."""
    # The kernel wants write permission; where we apply the mode ourselves, any bit will do.
    return bool(spec.mode & (0o066 if spec.path.startswith("@") else 0o022))


def describe(spec: SeqpacketAddressSpec, mode: int) -> str:
    """The endpoint string, in the quotes of TOML, of the same path with another mode."""
    path = "".join(f"\\{c}" if c in "\\:=" else c for c in spec.path)
    return json.dumps(f"seqpacket:{path}:mode={mode:03o}", ensure_ascii=not path.isprintable())


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
