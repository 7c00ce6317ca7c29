"""
Two keys that mean the same thing of the system, by what is written or was found; nothing is looked
at.
"""

from __future__ import annotations

from collections.abc import Mapping

from chanproxy.config.problems import Problem


def noteShared(
    users: Mapping[str, list[str]], what: str, remedy: str, problems: list[Problem]
) -> None:
    """A problem on each of the keys that share something, naming the others."""
    for keys in users.values():
        for index, key in enumerate(keys):
            others = ", ".join(keys[:index] + keys[index + 1 :])
            if others:
                problems.append(Problem(key, f"is the same {what} as {others}", remedy))


def whyNotApart(place: str, others: Mapping[str, str]) -> str | None:
    """
    What is wrong with freezing something, beside what others freeze.

    @param place: of L{chanproxy.interfaces.IExclusiveFreezer.place}, or any text without a slash
        before it that is the same for the same container.
    @param others: the places of the others, by the keys that name them.
    @return: what is to stand behind the key of this one; None: nothing is.
    """
    for key, other in others.items():
        if place == other:
            relation = "is"
        elif _isAround(other, place):
            relation = "is inside"
        elif _isAround(place, other):
            relation = "is around"
        else:
            continue
        return (
            f"{relation} that of {key}: one would be frozen with the other; give each container "
            "a cgroup of its own, with none of another inside it"
        )
    return None


def _isAround(outer: str, inner: str) -> bool:
    return outer.startswith("/") and inner.startswith(f"{outer.rstrip('/')}/")
