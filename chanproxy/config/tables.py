"""
Tables of a TOML file, read key by key: checked values out, and a note of all that is wrong.

Pure; knows no key of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chanproxy.config.keys import Key, Several, sort
from chanproxy.config.problems import Problem
from chanproxy.words import brief, meant

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Table:
    """One table of the file: hands out checked values and notes what is wrong."""

    def __init__(self, value: Any, path: str, problems: list[Problem], name: str = "") -> None:
        """@param name: what it is called, in the table that it is in."""
        self._path = path
        self._name = name
        self._problems = problems
        self._known: list[str] = []
        self._values: Mapping[str, Any] = {}
        if isinstance(value, dict):
            self._values = value
        else:
            self.note(None, f"is {sort(value)}", "write a table")

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

    def read(self, key: Key) -> Any:
        """What is written for a key, or its default; of one that is required, L{None}."""
        self._known.append(key.name)
        default = None if key.required else key.default
        if key.name not in self._values:
            if key.required:
                self.note(key.name, "is missing", key.kind.remedy(key.name, self._name))
            return default
        try:
            return key.kind.check(self._values[key.name])
        except ValueError as error:
            remedy = key.kind.remedy(key.name, self._name)
            for wrong in error.args if isinstance(error, Several) else (error,):
                self.note(key.name, str(wrong), remedy)
            return default

    def readAll(self, keys: Mapping[str, Key]) -> dict[str, Any]:
        """Likewise all of them, by their attributes."""
        return {attribute: self.read(key) for attribute, key in keys.items()}

    def tables(self, key: str) -> list[tuple[str, Table]]:
        """The tables in a table, by their names."""
        self._known.append(key)
        value = self._values.get(key, {})
        path = join(self._path, key)
        if not isinstance(value, dict):
            self.note(key, f"is {sort(value)}", f"write tables, [{path}.NAME]")
            return []
        found = []
        for name, content in value.items():
            table = Table(content, join(path, name), self._problems, name)
            if not _NAME.fullmatch(name):
                table.note(None, "is no usable name", "use letters, digits, dot, - and _")
            found.append((name, table))
        return found

    def table(self, key: str) -> Table:
        """The one of that name; an empty one, if it is not there."""
        self._known.append(key)
        return Table(self._values.get(key, {}), join(self._path, key), self._problems, key)

    def end(self) -> None:
        """Whatever was not asked for is unknown."""
        for key in self._values:
            if key not in self._known:
                dashed = key.lower().replace("_", "-")
                self.note(key, "is not known", meant(dashed, self._known))


def join(path: str, key: str) -> str:
    """A key's path on one line; what needs quotes in TOML has them here as well."""
    part = key if _NAME.fullmatch(key) else brief(key)
    return f"{path}.{part}" if path else part
