"""
Tables of a TOML file, read key by key: checked values out, and a note of all that is wrong.

Pure; knows no key of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chanproxy.config.keys import Key
from chanproxy.config.kinds import (
    Several,
    sort,
)
from chanproxy.config.problems import Problem
from chanproxy.words import Wrong, brief, meant

_NO_PLACES: Mapping[str, str] = {}

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Table:
    """One table of the file: hands out checked values and notes what is wrong."""

    def __init__(
        self,
        value: Any,
        path: str,
        problems: list[Problem],
        name: str = "",
        places: Mapping[str, str] = _NO_PLACES,
    ) -> None:
        """
        @param name: what it is called, in the table that it is in.
        @param places: in which table each key stands, for those that are in a wrong one.
        """
        self._places = places
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
            for each in error.args if isinstance(error, Several) else (error,):
                wrong, remedy = str(each), ""
                if isinstance(each, Wrong):
                    wrong, remedy = each.wrong, each.remedy(key.name)
                self.note(key.name, wrong, remedy or key.kind.remedy(key.name, self._name))
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
            table = Table(content, join(path, name), self._problems, name, self._places)
            if not isName(name):
                table.note(None, "is no usable name", "use letters, digits, dot, - and _")
            found.append((name, table))
        return found

    def table(self, key: str) -> Table:
        """The one of that name; an empty one, if it is not there."""
        self._known.append(key)
        path = join(self._path, key)
        return Table(self._values.get(key, {}), path, self._problems, key, self._places)

    def end(self) -> None:
        """Whatever was not asked for is unknown."""
        for key in self._values:
            if key not in self._known:
                dashed = key.lower().replace("_", "-")
                place = self._places.get(dashed)
                if place is None or dashed in self._known:
                    self.note(key, "is not known", meant(dashed, self._known))
                else:
                    self.note(key, "is not known here", f"write {dashed} {place}")


def isName(text: str) -> bool:
    """Whether a container, a channel or an access entry can be called that."""
    return _NAME.fullmatch(text) is not None


def join(path: str, key: str) -> str:
    """A key's path on one line; what needs quotes in TOML has them here as well."""
    part = key if _NAME.fullmatch(key) else brief(key)
    return f"{path}.{part}" if path else part
