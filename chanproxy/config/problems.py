"""
What is wrong with a configuration, or keeps a service from starting: each with its key, and its
line where that is known.

Knows no key of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen


@frozen
class Problem:
    """
    One thing that is wrong: where, what, and what to do.

    @ivar path: the key; empty: the file itself.
    @ivar remedy: empty, where C{wrong} says that, too.
    @ivar passing: somebody else has it, perhaps a predecessor that is on its way out.
    @ivar file: its name, on one line; empty: it is not about a file.
    @ivar line: of the file, from 1 on; L{None}: no line is about it.
    @ivar column: likewise.
    """

    path: str
    wrong: str
    remedy: str = ""
    passing: bool = False
    file: str = ""
    line: int | None = None
    column: int | None = None

    @property
    def where(self) -> str:
        """The file and the line, as compilers write them; empty without a file."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    @property
    def sentence(self) -> str:
        """What is wrong, and what to do."""
        return self.wrong + (f"; {self.remedy}" if self.remedy else "")

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.sentence) if part)


class ConfigurationError(Exception):
    """
    The configuration cannot be used; the text has one line per problem.

    @ivar problems: all that were found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Unreadable(ConfigurationError):
    """There is no such file, or it may not be read."""


class StartError(Exception):
    """The service did not start; nothing of it is left.  The text has a line per problem."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ReloadError(Exception):
    """
    A configuration was not taken.

    What was in force is so, as far as L{lost} does not say otherwise.  The text has a line per
    problem.

    @ivar problems: what is wrong with it.
    @ivar lost: what of the other could not be made again, and is not there any more.
    """

    def __init__(self, problems: Iterable[Problem], lost: Iterable[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.lost = tuple(lost)
        super().__init__("\n".join(self.sentences))

    @property
    def sentences(self) -> list[str]:
        """One for each."""
        lost = (
            evolve(each, wrong=f"is gone, and could not be made again: {each.wrong}")
            for each in self.lost
        )
        return [*map(str, self.problems), *map(str, lost)]
