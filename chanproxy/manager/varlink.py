"""
Calls and replies of the manager protocol: JSON in Varlink's shape, one packet each.

Bytes in, checked objects out, and back.  Knows no sockets, no containers, and not what any method
means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

from attrs import Factory, frozen

from chanproxy.manager.errors import MANAGER, CallMalformed, ReplyMalformed
from chanproxy.manager.errors import VarlinkError as VarlinkError
from chanproxy.words import brief

_CALL = ("method", "parameters", "more", "oneway")

_DIGITS = 20
"""More than any number of 64 bits has; Python would take thousands."""


@frozen
class Call:
    """
    What a client asks.

    @ivar method: with its interface: C{org.chanproxy.Manager.ListContainers}.
    @ivar parameters: not checked; see L{chanproxy.manager.parameters}.
    @ivar more: the client expects any number of replies.
    @ivar oneway: the client expects none.
    """

    method: str
    parameters: Mapping[str, Any] = Factory(dict)
    more: bool = False
    oneway: bool = False

    @property
    def interface(self) -> str:
        """The part of the method before its last dot."""
        return self.method.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The part of the method after its last dot."""
        return self.method.rpartition(".")[2]


@frozen
class Reply:
    """
    What a client gets.

    @ivar continues: another reply to the same call follows.
    """

    parameters: Mapping[str, Any] = Factory(dict)
    continues: bool = False


def parseCall(data: bytes) -> Call:
    """
    Read a packet.

    @raise VarlinkError: L{CallMalformed}, whatever the packet holds.
    """
    try:
        tree = readObject(data)
        for key in tree:
            if key not in _CALL:
                raise ValueError(f"there is no key {brief(key)}; known are {', '.join(_CALL)}")
        if "method" not in tree:
            raise ValueError("method is missing; write INTERFACE.METHOD")
        method = tree["method"]
        if not isinstance(method, str) or not method:
            raise ValueError("method is no text; write INTERFACE.METHOD")
        return Call(method, _parameters(tree), _flag(tree, "more"), _flag(tree, "oneway"))
    except ValueError as error:
        raise CallMalformed(f"the packet is no call: {error}") from None


def parseReply(data: bytes) -> Reply:
    """
    Read a packet; keys that are not known are passed over.

    @raise VarlinkError: it is an error; or L{ReplyMalformed}.
    """
    try:
        tree = readObject(data)
        parameters, continues = _parameters(tree), _flag(tree, "continues")
        if "error" not in tree:
            return Reply(parameters, continues)
        error = tree["error"]
        if not isinstance(error, str) or not error:
            raise ValueError("error is no text")
    except ValueError as wrong:
        raise ReplyMalformed(f"the packet is no reply: {wrong}") from None
    message = parameters.get("message")
    raise VarlinkError(error, message if isinstance(message, str) else error, parameters)


def encodeCall(
    method: str,
    parameters: Mapping[str, Any] | None = None,
    more: bool = False,
    oneway: bool = False,
) -> bytes:
    """The packet of a call."""
    flags = {name: True for name, on in (("more", more), ("oneway", oneway)) if on}
    return _encode({"method": method, "parameters": dict(parameters or {}), **flags})


def encodeReply(parameters: Mapping[str, Any], continues: bool = False) -> bytes:
    """The packet of a reply."""
    tree: dict[str, Any] = {"parameters": dict(parameters)}
    if continues:
        tree["continues"] = True
    return _encode(tree)


def interfaceDescription(interface: str = MANAGER) -> str:
    """C{org.chanproxy.Manager} or C{org.varlink.service}, in Varlink's own language."""
    file = resources.files("chanproxy.manager").joinpath(f"{interface}.varlink")
    return file.read_text("utf-8")


def _encode(tree: Mapping[str, Any]) -> bytes:
    # Escaped down to ASCII: half of a surrogate pair is no UTF-8, but may be in a name.
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode("ascii")


def readObject(data: bytes) -> dict[str, Any]:
    """
    Read a JSON object.

    @raise ValueError: a clause that says what is wrong.
    """
    if data.endswith(b"\0"):
        raise ValueError("it ends with a zero byte; a packet needs no terminator")
    try:
        # Told the encoding: of bytes, json would guess UTF-16 and UTF-32 as well.
        tree = json.loads(
            data.decode("utf-8"),
            parse_float=_fraction,
            parse_int=_whole,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 at byte {error.start}; write UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error}); write one object") from None
    except RecursionError:
        raise ValueError("it is nested too deeply; no method takes that") from None
    if not isinstance(tree, dict):
        raise ValueError("it is no object; write {...}")
    return tree


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("it has a whole number of more than 64 bits; write a smaller one")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"it has a number that is too large, {brief(text)}; write a smaller one")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"it has {text}, which is no JSON; write a number")


def _parameters(tree: Mapping[str, Any]) -> dict[str, Any]:
    parameters = tree.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ValueError("parameters is no object; write {...}, or leave it out")
    return parameters


def _flag(tree: Mapping[str, Any], key: str) -> bool:
    value = tree.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is neither true nor false")
    return value
