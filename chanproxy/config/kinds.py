"""
Kinds of values: what may be written for a key, in which range, and what to write instead.

Pure; knows no key.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from attrs import frozen

from chanproxy.words import Wrong, brief, numberMeant, secondsMeant, secondsWritten, usable, written

LONGEST = 86400.0
"""Seconds: a day.  More is a mistake in the unit."""


def sort(value: object) -> str:
    """What sort of value it is, with its article."""
    sorts = {bool: "true or false", int: "a whole number", float: "a number with a fraction"}
    sorts |= {str: "a text", list: "a list", dict: "a table", type(None): "null"}
    return sorts.get(type(value), "a date or time")


class Several(ValueError):
    """More than one thing is wrong with a value; each argument is the error of one."""


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

        @raise ValueError: what is wrong, to stand behind the name of the key; a L{Wrong} knows what
            to write instead.
        """

    def checkMade(self, value: Any) -> None:
        """
        As L{check}, of what a program has put there itself: it is as that returns it.

        @raise ValueError: likewise.
        """
        self.check(value)

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
    """From C{least} to C{most}; seconds may also be a text, as C{"15s"}."""

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
        text = ', or as `"15s"`' if self.unit == "seconds" else ""
        return f"{of}, {self._range}{text}"

    @property
    def _range(self) -> str:
        return f"{self.least:.15g} to {self.most:.15g}"

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if isinstance(value, str) and self.unit == "seconds":
            seconds = secondsWritten(value)
            if seconds is None:
                raise Wrong(f"{brief(value)} is no time", *self._meant(value))
            value = seconds
        self.checkMade(value)
        return self._kinds[-1](value)

    def checkMade(self, value: Any) -> None:
        """See L{Kind}."""
        if isinstance(value, bool) or type(value) not in self._kinds:
            raise Wrong(f"is {sort(value)}", *self._meant(value))
        # Comparing is safe for a nan and for a whole number that no float can hold.
        if not self.least <= value <= self.most:
            raise ValueError(f"{brief(value)} is out of range")

    def _meant(self, value: Any) -> Iterable[float]:
        """The number that is meant by something else, if that is known and would do."""
        if isinstance(value, str):
            value = secondsMeant(value) if self.unit == "seconds" else numberMeant(value)
        elif isinstance(value, bool) and (self.least, self.most) != (0, 1):
            return
        if isinstance(value, (int, float)) and self.least <= value <= self.most:
            number = float(value)
            if number.is_integer():
                yield int(number)
            elif float in self._kinds:
                yield number

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        of = f" of {self.unit}" if self.unit else ""
        return f"write a {self._noun}{of} from {self._range}"

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
    """A time that may be none at all, which C{none} is the word for."""

    unit: str = "seconds"
    none: str = "never"

    @property
    def allowed(self) -> str:
        """See L{Kind}."""
        return f'{super().allowed}; `"{self.none}"`'

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, str):
            return super().check(value)
        if value == self.none:
            return 0.0
        seconds = secondsWritten(value)
        if seconds is None or not 0 < seconds <= self.most:
            raise Wrong(f"{brief(value)} is no time", *self._times(value))
        return float(seconds)

    def _times(self, value: str) -> Iterable[str]:
        """The time that is meant, in seconds, if that is known and would do."""
        meant = secondsMeant(value)
        if meant == 0 or value.lower() in (self.none, *_NEVER):
            yield self.none
        elif meant is not None and meant <= self.most:
            yield f"{meant:.15g}s"

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write seconds up to {self.most:.15g}, as 15 or '15s', or '{self.none}'"

    def fromText(self, text: str) -> Any:
        """See L{Kind}."""
        try:
            return self.check(text)
        except ValueError:
            return super().fromText(text)

    def shown(self, value: Any) -> str:
        """See L{Kind}."""
        return f'"{value:.15g}s"' if value else f'"{self.none}"'


_NEVER = ("never", "none", "no", "off", "forever", "infinity", "infinite", "inf")
"""What people write for a time that does not end, or for none at all."""


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
            word = value.lower()[:40].replace("_", "-")
            near = difflib.get_close_matches(word, self._all(), 1, 0.75)
            raise Wrong(f"{brief(value)} is not known", *near)
        return value

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write one of {', '.join(map(written, self._all()))}"

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
    @ivar proviso: what has to be for it to work.
    @ivar kept: what it stands for is of one of these types; or it is the text itself.
    """

    parse: Callable[[str], Any]
    example: str
    allowed: str = "text"
    proviso: str = ""
    kept: tuple[type[object], ...] = (str,)

    def check(self, value: Any) -> Any:
        """See L{Kind}."""
        if not isinstance(value, str):
            raise Wrong(f"is {sort(value)}", *self._meant(value))
        return self.parse(value)

    def checkMade(self, value: Any) -> None:
        """See L{Kind}."""
        if str in self.kept:
            self.check(value)
        elif not isinstance(value, self.kept):
            sorts = " or ".join(each.__name__ for each in self.kept)
            raise ValueError(f"is of the type {type(value).__name__}, and no {sorts}")

    def _meant(self, value: Any) -> Iterable[str]:
        """A number may have been meant as a text, as a time without its unit."""
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 1e9:
            for text in (f"{value:.15g}s", f"{value:.15g}"):
                try:
                    self.parse(text)
                except ValueError:
                    continue
                yield text
                return

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        more = f", {self.proviso}" if self.proviso else ""
        return f"write for example {key} = {written(self.example.format(usable(name)))}{more}"


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
            raise Wrong(f"is {sort(value)}", *([[value]] if self._isGood(value) else []))
        if not value:
            raise ValueError("is an empty list")
        good: dict[Any, None] = {}
        errors = []
        mended: list[Any] = []
        for item in value:
            try:
                good[self.parse(item)] = None
            except ValueError as error:
                errors.append(error)
                mended += error.better[:1] if isinstance(error, Wrong) else ()
            else:
                mended.append(item)
        # The whole list, for it is to be written as a whole.
        better = [mended] if len(mended) == len(value) else []
        errors = [Wrong(e.wrong if isinstance(e, Wrong) else str(e), *better) for e in errors]
        if errors:
            raise Several(*errors)
        return tuple(good)

    def checkMade(self, value: Any) -> None:
        """See L{Kind}; one without any is as if it was not there."""
        if not isinstance(value, (tuple, list)):
            self.check(value)
        elif value:
            self.check(list(value))

    def _isGood(self, item: Any) -> bool:
        try:
            self.parse(item)
        except ValueError:
            return False
        return True

    def remedy(self, key: str, name: str) -> str:
        """See L{Kind}."""
        return f"write for example {key} = {self.example}"

    def fromText(self, text: str) -> Any:
        """See L{Kind}; commas stand between them."""
        return [word for word in text.split(",") if word]
