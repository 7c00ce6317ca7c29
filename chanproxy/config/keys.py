"""
Keys: one line says what may be written for one, in which range, and what it is for.

From these lines come the reader of the file, the parameters of C{AddContainer}, the options of the
commands, and the tables in the documentation.  Pure; knows no key of ours.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import attrs
from attrs import frozen

from chanproxy.words import brief

LONGEST = 86400.0
"""Seconds: a day.  More is a mistake in the unit."""


def sort(value: object) -> str:
    """What sort of value it is, with its article."""
    sorts = {bool: "true or false", int: "a whole number", float: "a number with a fraction"}
    sorts |= {str: "a text", list: "a list", dict: "a table", type(None): "null"}
    return sorts.get(type(value), "a date or time")


class Several(ValueError):
    """More than one thing is wrong with a value; each argument is one."""


class Kind(ABC):
    """
    What may be written for a key.

    @cvar varlink: its type in a call.
    @ivar choices: the words, where only some are allowed and all are known.
    """

    varlink: str = "string"
    choices: tuple[str, ...] = ()

    @property
    @abstractmethod
    def allowed(self) -> str:
        """What is allowed, for the documentation."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """
        Read what is written.

        @raise ValueError: what is wrong, to stand behind the name of the key.
        """

    @abstractmethod
    def remedy(self, key: str, name: str) -> str:
        """
        What to write instead.

        @param name: of the table that the key is in.
        """

    def fromText(self, text: str) -> Any:
        """What a word of a command line is in a file; what is wrong, the check finds."""
        return text

    def fromCall(self, value: Any) -> Any:
        """What a value of a call is in a file."""
        return value

    def shown(self, value: Any) -> str:
        """A value as it stands in a file."""
        return f'"{value}"'


@frozen
class Number(Kind):
    """From C{least} to C{most}."""

    least: float
    most: float
    unit: str = ""

    varlink = "float"
    _kinds: ClassVar[tuple[type, ...]] = (int, float)
    _noun: ClassVar[str] = "number"

    @property
    def allowed(self) -> str:
        """See L{Kind}."""
        of = f"{self._noun}, {self.unit}" if self.unit else self._noun
        return f"{of}, {self._range}"

    @property
    def _range(self) -> str:
        return f"{self.least:.15g} to {self.most:.15g}"

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if isinstance(value, bool) or type(value) not in self._kinds:
            raise ValueError(f"is {sort(value)}")
        # Comparing is safe for a nan and for a whole number that no float can hold.
        if not self.least <= value <= self.most:
            raise ValueError(f"{brief(value)} is out of range")
        return self._kinds[-1](value)

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write a {self._noun} from {self._range}"

    def fromText(self, text: str) -> Any:
        """See L{Kind}."""
        try:
            return int(text) if text.isascii() and text.isdigit() else float(text)
        except ValueError:
            return text

    def shown(self, value: Any) -> str:
        """See L{Kind}."""
        return f"{value:.15g}"


@frozen
class Whole(Number):
    """Likewise, without a fraction."""

    varlink = "int"
    _kinds = (int,)
    _noun = "whole number"


@frozen
class Seconds(Number):
    """
    A time, as C{15} or C{"15s"}.

    @ivar none: the word for 0.
    """

    unit: str = "seconds"
    none: str = "never"

    @property
    def allowed(self) -> str:
        """See L{Kind}."""
        return f'{super().allowed}, or as `"15s"`; `"{self.none}"`'

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, str):
            return super().check(value)
        if value == self.none:
            return 0.0
        try:
            seconds = float(value.removesuffix("s"))
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= self.most:
            raise ValueError(f"{brief(value)} is no time")
        return seconds

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write a number of seconds up to {self.most:.15g}, as 15s, or {self.none}"

    def fromText(self, text: str) -> Any:
        """See L{Kind}."""
        try:
            return self.check(text)
        except ValueError:
            return super().fromText(text)

    def shown(self, value: Any) -> str:
        """See L{Kind}."""
        return f'"{value:.15g}s"' if value else f'"{self.none}"'


class Choice(Kind):
    """One of some words."""

    def __init__(self, *choices: str, more: Callable[[], Iterable[str]] | None = None) -> None:
        """@param more: other choices, asked for only when it is none of the first ones."""
        self._first = choices
        self._more = more
        self.choices = choices if more is None else ()
        if more is None:
            self.varlink = f"({', '.join(each.replace('-', '_') for each in choices)})"

    @property
    def allowed(self) -> str:
        """See L{Kind}."""
        more = "" if self._more is None else ", or a plugin's name"
        return ", ".join(f"`{each}`" for each in self._first) + more

    def _all(self) -> tuple[str, ...]:
        return (*self._first, *(() if self._more is None else self._more()))

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, str):
            raise ValueError(f"is {sort(value)}")
        if value not in self._first and value not in self._all():
            raise ValueError(f"{brief(value)} is not known")
        return value

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write one of {', '.join(self._all())}"

    def fromCall(self, value: Any) -> Any:
        """Words of Varlink's have no hyphen."""
        dashed = value.replace("_", "-") if isinstance(value, str) else value
        return dashed if dashed in self._first else value

    def shown(self, value: Any) -> str:
        """See L{Kind}."""
        return f"{value}"


class Flag(Kind):
    """True or false."""

    varlink = "bool"

    @property
    def allowed(self) -> str:
        """See L{Kind}."""
        return "true, false"

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, bool):
            raise ValueError(f"is {sort(value)}")
        return value

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return "write true or false"

    def fromText(self, text: str) -> Any:
        """See L{Kind}."""
        return {"true": True, "false": False}.get(text, text)

    def shown(self, value: Any) -> str:
        """See L{Kind}."""
        return "true" if value else "false"


@frozen
class Text(Kind):
    """
    A text that something else reads.

    @ivar parse: what it stands for; its C{ValueError} says what is wrong.
    @ivar example: C{{}} in it is the name of the table.
    """

    parse: Callable[[str], Any]
    example: str
    allowed: str = "text"

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, str):
            raise ValueError(f"is {sort(value)}")
        return self.parse(value)

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write for example {key} = {self.example.format(name)!r}"


@frozen
class Items(Kind):
    """
    A list; its good items, each once.

    @ivar parse: reads one.
    @ivar example: of all of it.
    """

    parse: Callable[[Any], Any]
    example: str
    allowed: str = "list of texts"

    varlink = "[]string"

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, list):
            raise ValueError(f"is {sort(value)}")
        if not value:
            raise ValueError("is an empty list")
        good: dict[Any, None] = {}
        wrong = []
        for item in value:
            try:
                good[self.parse(item)] = None
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise Several(*wrong)
        return tuple(good)

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write for example {key} = {self.example}"

    def fromText(self, text: str) -> Any:
        """See L{Kind}; commas stand between them."""
        return [word for word in text.split(",") if word]


@frozen
class Key:
    """
    One of a table.

    @ivar name: as it is written.
    @ivar sentence: what it is for, where there is room for one line.
    @ivar default: what it is without; C{attrs.NOTHING}: it is required.
    @ivar otherwise: what is said of the default, where it depends on others.
    @ivar option: whether it is an option on a command line.
    """

    name: str
    kind: Kind
    sentence: str
    default: Any
    otherwise: str = ""
    option: bool = True

    @property
    def parameter(self) -> str:
        """What it is called in a call of the manager: Varlink's words have no hyphen."""
        return self.name.replace("-", "_")

    @property
    def required(self) -> bool:
        """Whether it has to be there."""
        return self.default is attrs.NOTHING

    @property
    def shownDefault(self) -> str:
        """Its default, for the documentation."""
        if self.otherwise:
            return self.otherwise
        if self.required:
            return "required"
        if self.default is None or self.default == ():
            return "none"
        shown = self.kind.shown(self.default)
        return f"`{shown}`" if shown[0].isalpha() or shown[0] == '"' else shown


def about(kind: Kind, sentence: str, otherwise: str = "", option: bool = True) -> dict[str, Any]:
    """The metadata of an attribute that a key is for; its parameters are those of L{Key}."""
    return {"about": (kind, sentence, otherwise, option)}


def key(default: Any, kind: Kind, sentence: str, otherwise: str = "", option: bool = True) -> Any:
    """Such an attribute; its parameters are those of L{Key}."""
    return attrs.field(default=default, metadata=about(kind, sentence, otherwise, option))


def keysOf(cls: type[Any], **described: dict[str, Any]) -> Mapping[str, Key]:
    """
    The keys of a class, by its attributes; their names are spelled with hyphens.

    @param described: what L{about} says of attributes that do not say it themselves.
    """
    found = {}
    for attribute in attrs.fields(cls):
        said = described.get(attribute.name, attribute.metadata).get("about")
        if said is not None:
            default = attribute.default
            if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # it is a class
                default = default.factory()
            kind, sentence, otherwise, option = said
            found[attribute.name] = Key(
                hyphened(attribute.name), kind, sentence, default, otherwise, option
            )
    return found


def hyphened(attribute: str) -> str:
    """The name of a key: C{maxAsleep} is written C{max-asleep}."""
    return re.sub(r"[A-Z]", lambda upper: f"-{upper[0].lower()}", attribute)
