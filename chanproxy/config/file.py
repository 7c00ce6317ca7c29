"""
The file that a configuration is from, so that what is said of a key has the line of it.

Knows no key of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import attrs

from chanproxy.config.places import Place, placesIn
from chanproxy.config.problems import Problem
from chanproxy.config.tables import join


class File:
    """
    One that C{tomllib} has read.

    @ivar name: on one line.
    """

    def __init__(self, path: str | os.PathLike[str], text: str) -> None:
        self.name = onOneLine(path)
        self._text = text
        self._places: dict[str, Place] = {}

    def locate(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """The same problems, each with this file and its line; in the order of the lines."""
        located = [self._located(problem) for problem in problems]
        return tuple(sorted(located, key=lambda each: (each.line or 0, each.column or 0)))

    def _located(self, problem: Problem) -> Problem:
        place = self.place(problem.path)
        if place is None:
            return attrs.evolve(problem, file=self.name)
        return attrs.evolve(problem, file=self.name, line=place.line, column=place.column)

    def place(self, path: str) -> Place | None:
        """
        Where a key is; of one that is missing, the table that it belongs to.

        @param path: as of a L{Problem}.
        @return: None: nothing of it is in the file.
        """
        if not self._places:
            # Rarely needed: most files have nothing wrong with them.
            for names, place in placesIn(self._text).items():
                shown = ""
                for name in names:
                    shown = join(shown, str(name))
                self._places.setdefault(shown, place)
        while path not in self._places:
            # A name may have dots in it.
            path, dot, _ = path.rpartition(".")
            if not dot:
                return None
        return self._places[path]


def onOneLine(path: str | os.PathLike[str]) -> str:
    """The name of a file, which may hold a line break; a problem has one line."""
    name = os.fspath(path)
    return name if name.isprintable() else repr(name)
