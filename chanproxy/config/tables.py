"""
Tables of a TOML file, read key by key: checked values out, and a note of all that is wrong.

Pure; knows no key of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chanproxy.config.problems import Problem
from chanproxy.words import brief, meant

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Table:
    """One table of the file: hands out checked values and notes what is wrong."""

    def __init__(self, value: Any, path: str, problems: list[Problem]) -> None:
        self._path = path
        self._problems = problems
        self._known: list[str] = []
        self._values: Mapping[str, Any] = {}
        if isinstance(value, dict):
            self._values = value
        else:
            self.note(None, f"is {kind(value)}", "write a table")

    @property
    def noted(self) -> int:
        """How many problems the file has so far."""
        return len(self._problems)

    def has(self, key: str) -> bool:
        """Whether the key is written, whatever its value is."""
        return key in self._values

    def note(self, key: str | None, wrong: str, remedy: str) -> None:
        """Without a key it is the table itself that is wrong."""
        path = self._path if key is None else join(self._path, key)
        self._problems.append(Problem(path or "file", wrong, remedy))

    def number(
        self, key: str, default: float, least: float, most: float, whole: bool = False
    ) -> float:
        self._known.append(key)
        value = self._values.get(key, default)
        kinds = int if whole else (int, float)
        wanted = f"write a {'whole ' if whole else ''}number from {least:.15g} to {most:.15g}"
        if isinstance(value, bool) or not isinstance(value, kinds):
            self.note(key, f"is {kind(value)}", wanted)
            return default
        # Comparing is safe for a nan and for a whole number that no float can hold.
        if not least <= value <= most:
            self.note(key, f"{brief(value)} is out of range", wanted)
            return default
        return value

    def seconds(self, key: str, default: float, most: float, none: str) -> float:
        """
        A time, as C{15} or C{"15s"}, up to C{most}; or a word for none, which is 0.
        """
        value = self._values.get(key, default)
        if isinstance(value, str):
            self._known.append(key)
            try:
                return secondsOf(value, most, none)
            except ValueError as error:
                self.note(key, f"{brief(value)} is no time", str(error))
                return default
        return float(self.number(key, default, 0, most))

    def choice(
        self,
        key: str,
        default: str,
        *choices: str,
        more: Callable[[], Iterable[str]] | None = None,
    ) -> str:
        """@param more: other choices, asked for only when it is none of the first ones."""
        self._known.append(key)
        value = self._values.get(key, default)
        if more is not None and isinstance(value, str) and value not in choices:
            choices = (*choices, *more())
        wanted = f"write one of {', '.join(choices)}"
        if not isinstance(value, str):
            self.note(key, f"is {kind(value)}", wanted)
            return default
        if value not in choices:
            self.note(key, f"{brief(value)} is not known", wanted)
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        self._known.append(key)
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            self.note(key, f"is {kind(value)}", "write true or false")
            return default
        return value

    def text(
        self, key: str, check: Callable[[str], object], example: str, required: bool = True
    ) -> str:
        """Without a usable value the empty text."""
        self._known.append(key)
        if key not in self._values:
            if not required:
                return ""
            self.note(key, "is missing", f"write for example {key} = {example!r}")
            return ""
        value = self._values[key]
        if not isinstance(value, str):
            self.note(key, f"is {kind(value)}", f"write for example {key} = {example!r}")
            return ""
        try:
            check(value)
        except ValueError as error:
            self.note(key, str(error), f"write for example {key} = {example!r}")
            return ""
        return value

    def items(
        self, key: str, check: Callable[[Any], object], example: str, required: bool = False
    ) -> tuple[Any, ...]:
        """A list; its good items, each once."""
        self._known.append(key)
        remedy = f"write for example {key} = {example}"
        if key not in self._values and not required:
            return ()
        value = self._values.get(key)
        if key not in self._values:
            self.note(key, "is missing", remedy)
        elif not isinstance(value, list):
            self.note(key, f"is {kind(value)}", remedy)
        elif not value:
            self.note(key, "is an empty list", remedy)
        good: dict[Any, None] = {}
        for item in value if isinstance(value, list) else []:
            try:
                check(item)
            except ValueError as error:
                self.note(key, str(error), remedy)
            else:
                good[item] = None
        return tuple(good)

    def tables(self, key: str) -> list[tuple[str, Table]]:
        """The tables in a table, by their names."""
        self._known.append(key)
        value = self._values.get(key, {})
        path = join(self._path, key)
        if not isinstance(value, dict):
            self.note(key, f"is {kind(value)}", f"write tables, [{path}.NAME]")
            return []
        found = []
        for name, content in value.items():
            table = Table(content, join(path, name), self._problems)
            if not _NAME.fullmatch(name):
                table.note(None, "is no usable name", "use letters, digits, dot, - and _")
            found.append((name, table))
        return found

    def table(self, key: str) -> Table:
        self._known.append(key)
        return Table(self._values.get(key, {}), join(self._path, key), self._problems)

    def end(self) -> None:
        """Whatever was not asked for is unknown."""
        for key in self._values:
            if key not in self._known:
                dashed = key.lower().replace("_", "-")
                self.note(key, "is not known", meant(dashed, self._known))


def secondsOf(text: str, most: float, none: str) -> float:
    """
    Read a time, as C{15s}; 0 for the word for none.

    @raise ValueError: it is no time; the text says what to write.
    """
    if text == none:
        return 0.0
    try:
        number = float(text.removesuffix("s"))
    except ValueError:
        number = -1.0
    if not 0 < number <= most:
        raise ValueError(f"write a number of seconds up to {most:.15g}, as 15s, or {none}")
    return number


def join(path: str, key: str) -> str:
    """A key's path on one line; what needs quotes in TOML has them here as well."""
    part = key if _NAME.fullmatch(key) else brief(key)
    return f"{path}.{part}" if path else part


def kind(value: object) -> str:
    """What sort of value it is, with its article."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number with a fraction"}
    kinds |= {str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")
