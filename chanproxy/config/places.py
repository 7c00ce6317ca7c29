"""
Places: the line and the column of each key of a TOML file.

What is a good file is for C{tomllib} to say, which tells nothing of where things were.  So this is
given what that has read, and has to tell keys from values only; of anything else it makes
something, too, and never fails.  Knows no key of ours.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from attrs import frozen

_TOKEN = re.compile(
    r"""
      [ \t\r]+ | \#[^\n]*
    | (?P<text>
        \"{3} (?: [^"\\]++ | \\[\s\S] | "(?!"") )*+ "{3,5}
      | '{3} (?: [^']++ | '(?!'') )*+ '{3,5}
      | " (?: [^"\\\n]++ | \\. )*+ "
      | '[^'\n]*+'
      )
    | (?P<mark> [\[\]{},=.\n] )
    | (?P<bare> [^\s"'\[\]{},=.\#]++ | . )
    """,
    re.VERBOSE,
)

Path = tuple[str | int, ...]
"""Names of keys; a number is that of an item of a list."""


@frozen
class Place:
    """Where something begins; both count from 1."""

    line: int
    column: int


@frozen
class _Token:
    """
    What is no space and no comment.

    @ivar mark: a bracket, brace, comma, dot, equals sign or line break; empty for all else, which
        is a name or a value.
    """

    text: str
    mark: str
    at: int


_END = _Token("", "end", 0)


def placesIn(text: str) -> Mapping[Path, Place]:
    """
    Where each key stands.

    A table that has a line of its own is there; one that only shows in the names of others, where
    the first of these is.

    @param text: that C{tomllib} has read.
    """
    scanner = _Scanner(text)
    scanner.scan()
    lines = [0, *(found.end() for found in re.finditer("\n", text))]
    places, line = {}, 0
    for path, at in sorted(scanner.found.items(), key=lambda each: each[1]):
        while line < len(lines) and lines[line] <= at:
            line += 1
        places[path] = Place(line, at - lines[line - 1] + 1)
    return places


class _Scanner:
    """
    One text, from its first token to its last.

    @ivar found: where each key begins.
    """

    def __init__(self, text: str) -> None:
        self._tokens = [
            _Token(match[0], match["mark"] or "", match.start())
            for match in _TOKEN.finditer(text)
            if match.lastgroup is not None
        ]
        self._next = 0
        self._lists: dict[Path, int] = {}
        self.found: dict[Path, int] = {}

    def scan(self) -> None:
        """All of it."""
        table: Path = ()
        while (token := self._peek()) is not _END:
            if token.mark == "\n":
                self._next += 1
            elif token.mark == "[":
                table = self._header()
            else:
                self._pair(table)
                self._skipTo("\n")

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else _END

    def _take(self, *marks: str) -> bool:
        """Go past one of these, if it comes next."""
        if self._peek().mark in marks:
            self._next += 1
            return True
        return False

    def _skipTo(self, *marks: str) -> None:
        while self._peek().mark not in (*marks, "end"):
            self._next += 1

    def _header(self) -> Path:
        """The table that C{[NAME]} or C{[[NAME]]} begins."""
        self._take("[")
        several = self._take("[")
        path: Path = ()
        names = self._names()
        for index, (name, at) in enumerate(names):
            path = (*path, name)
            last = index + 1 == len(names)
            if last and several:
                self._lists[path] = self._lists.get(path, -1) + 1
            if path in self._lists:
                self.found.setdefault(path, at)
                path = (*path, self._lists[path])
            self._note(path, at, last)
        self._skipTo("\n")
        return path

    def _names(self) -> list[tuple[str, int]]:
        """A key, which may have dots in it: its parts, and where each is."""
        names = []
        while (token := self._peek()) is not _END and not token.mark:
            self._next += 1
            names.append((_plain(token.text), token.at))
            if not self._take("."):
                break
        return names

    def _pair(self, table: Path) -> None:
        """A key and its value."""
        path = table
        names = self._names()
        for index, (name, at) in enumerate(names):
            path = (*path, name)
            self._note(path, at, index + 1 == len(names))
        if self._take("="):
            self._value(path)

    def _note(self, path: Path, at: int, itself: bool) -> None:
        if itself:
            self.found[path] = at
        else:
            self.found.setdefault(path, at)

    def _value(self, path: Path) -> None:
        if self._take("["):
            self._items(path)
        elif self._take("{"):
            self._inline(path)
        else:
            # A date has a space in it, a number may have a dot.
            self._skipTo("\n", ",", "]", "}")

    def _items(self, path: Path) -> None:
        """What is in a list."""
        number = 0
        while self._peek() is not _END and not self._take("]"):
            if not self._take("\n", ",", "}", "=", "."):
                self._value((*path, number))
                number += 1

    def _inline(self, table: Path) -> None:
        """What is in braces."""
        while self._peek() is not _END and not self._take("}"):
            if not self._take("\n", ",", "[", "]", "{", "=", "."):
                self._pair(table)


def _plain(name: str) -> str:
    """A name without its quotes."""
    if name[0] not in "\"'":
        return name
    try:
        (plain,) = tomllib.loads(f"{name} = 0")
    except ValueError:
        return name
    return plain
