"""
Findings: what was looked for, how it is, and how to mend it.
"""

from __future__ import annotations

from attrs import asdict, frozen

OK, WARNING, PROBLEM = "ok", "warning", "problem"
"""As it should be; something cannot be had; without this, nothing is frozen or something is not
thawed."""


@frozen
class Finding:
    """
    One.

    @ivar kind: L{OK}, L{WARNING} or L{PROBLEM}.
    @ivar topic: what it is about, a word or two.
    @ivar says: how it is, a sentence.
    @ivar remedy: how to mend it; empty where nothing is wrong.
    """

    kind: str
    topic: str
    says: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.topic}: {self.says}" + (
            f"; {self.remedy}" if self.remedy else ""
        )

    def tree(self) -> dict[str, str | None]:
        """For JSON."""
        return {name: value or None for name, value in asdict(self).items()}


def ok(topic: str, says: str) -> Finding:
    """As it should be."""
    return Finding(OK, topic, says)


def warning(topic: str, says: str, remedy: str) -> Finding:
    """Something cannot be had."""
    return Finding(WARNING, topic, says, remedy)


def problem(topic: str, says: str, remedy: str) -> Finding:
    """Nothing goes without."""
    return Finding(PROBLEM, topic, says, remedy)
