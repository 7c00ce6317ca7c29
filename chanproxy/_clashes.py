"""
Two keys that mean the same thing of the system, by what is written; nothing is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from chanproxy._tables import Problem


def noteShared(
    users: Mapping[str, list[str]], what: str, remedy: str, problems: list[Problem]
) -> None:
    """A problem on each of the keys that share something, naming the others."""
    for keys in users.values():
        for index, key in enumerate(keys):
            others = ", ".join(keys[:index] + keys[index + 1 :])
            if others:
                problems.append(Problem(key, f"is the same {what} as {others}", remedy))


def plain(path: str) -> str:
    """The same file by the same text; C{..} stays, for symbolic links give it a meaning."""
    if path.startswith("@"):
        return path
    while "/./" in path or "//" in path:
        path = path.replace("/./", "/").replace("//", "/")
    return path.rstrip("/")
