"""
A reader of a call's parameters: checked values out, or an error that names the parameter.

Knows nothing of what the values are for.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, TypeVar, overload

from chanproxy.manager.errors import InvalidParameter
from chanproxy.words import brief, meant

T = TypeVar("T")


class _Missing(enum.Enum):
    REQUIRED = "no default"


_REQUIRED = _Missing.REQUIRED

_KINDS = {bool: "true or false", int: "a whole number", float: "a number with a fraction"}
_KINDS |= {str: "a text", list: "a list", dict: "an object", type(None): "null"}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "no JSON value")


class Parameters:
    """
    The parameters of one call; each is asked for by its name, and L{end} comes last.

    What has a default may also be null: so Varlink writes what is left out.  Every method raises
    L{InvalidParameter}.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._values = parameters
        self._known: list[str] = []

    def _value(self, name: str, default: object) -> Any:
        self._known.append(name)
        value = self._values.get(name)
        if value is not None:
            return value
        if default is not _REQUIRED:
            return default
        if name in self._values:
            raise InvalidParameter(name, f"{name} is null; it is required")
        # A typing error in a required name would otherwise only be called missing.
        unknown = islice((key for key in self._values if key not in self._known), 20)
        near = difflib.get_close_matches(name, list(unknown), 1)
        hint = f"did you mean it by {brief(near[0])}?" if near else "it is required"
        raise InvalidParameter(name, f"{name} is missing; {hint}")

    def _wrong(self, name: str, value: object, wanted: str) -> InvalidParameter:
        return InvalidParameter(name, f"{name} is {_kind(value)}; write {wanted}")

    @overload
    def text(self, name: str, *, mostBytes: int = ...) -> str: ...
    @overload
    def text(self, name: str, default: T, mostBytes: int = ...) -> str | T: ...
    def text(self, name: str, default: object = _REQUIRED, mostBytes: int = 1024) -> object:
        """Something to show to people: not empty, and all of it prints."""
        value = self._value(name, default)
        if value is default:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        if not value:
            raise InvalidParameter(name, f"{name} is empty; write at least one character")
        # Half of a surrogate pair does not print either, so what is left is UTF-8.
        for character in value:
            if not character.isprintable():
                code = f"U+{ord(character):04X}"
                raise InvalidParameter(
                    name, f"{name} holds {code}, which does not print; leave it out"
                )
        if len(value.encode()) > mostBytes:
            raise InvalidParameter(
                name, f"{name} has more than {mostBytes} bytes; write a shorter text"
            )
        return value

    def number(self, name: str, default: T, least: float, most: float) -> float | T:
        """With a fraction or without."""
        value = self._value(name, default)
        if value is default:
            return default
        wanted = f"a number from {least:.15g} to {most:.15g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, value, wanted)
        return float(self._within(name, value, least, most, wanted))

    def whole(self, name: str, default: T, least: int, most: int) -> int | T:
        """Without a fraction."""
        value = self._value(name, default)
        if value is default:
            return default
        wanted = f"a whole number from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, wanted)
        return int(self._within(name, value, least, most, wanted))

    def _within(self, name: str, value: float, least: float, most: float, wanted: str) -> float:
        # This way round, a nan is out of range.
        if not least <= value <= most:
            raise InvalidParameter(name, f"{name} = {brief(value)} is out of range; write {wanted}")
        return value

    def choice(self, name: str, default: T, *choices: str) -> str | T:
        """One of some words."""
        value = self._value(name, default)
        if value is default:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, value, f"one of {', '.join(choices)}")
        if value not in choices:
            raise InvalidParameter(
                name, f"{name} = {brief(value)} is not known; {meant(value, choices, 'write')}"
            )
        return value

    def flag(self, name: str, default: T) -> bool | T:
        """True or false."""
        value = self._value(name, default)
        if value is default:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def value(self, name: str) -> Any:
        """Whatever it is, not checked any further than that a text prints; it may be left out."""
        value = self._value(name, None)
        return self.text(name, None, mostBytes=4096) if isinstance(value, str) else value

    def tree(self, name: str) -> dict[str, Any] | None:
        """An object, not checked any further; it may be left out."""
        value = self._value(name, None)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return value

    def names(self, name: str, allowed: Collection[str]) -> tuple[str, ...]:
        """At least one of some words, each once in the result."""
        value = self._value(name, _REQUIRED)
        wanted = f"a list of {', '.join(allowed)}"
        if not isinstance(value, list):
            raise self._wrong(name, value, wanted)
        if not value:
            raise InvalidParameter(name, f"{name} is empty; write {wanted}")
        for item in value:
            if not isinstance(item, str):
                raise InvalidParameter(name, f"{name} holds {_kind(item)}; write {wanted}")
            if item not in allowed:
                raise InvalidParameter(
                    name, f"{name} holds {brief(item)}, which is not known; {meant(item, allowed)}"
                )
        return tuple(dict.fromkeys(value))

    def end(self) -> None:
        """Whatever was not asked for is unknown."""
        for name in self._values:
            if name not in self._known:
                raise InvalidParameter(
                    name, f"there is no parameter {brief(name)}; {meant(name, self._known)}"
                )
