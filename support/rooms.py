"""
Who imports whom in the package, room by room, as its files say.

What is imported only in a function, or for types, counts as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import chanproxy

PACKAGE = Path(chanproxy.__file__).parent

HALL = ("interfaces", "trace", "plugins", "words", "_version", "__version__", "lazily")
"""What is in no room: the nouns, and what all rooms use."""


def modules() -> Iterator[tuple[str, Path]]:
    """Their names, without the package's, and their files; but for what only opens the door."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if name not in ("__init__", "__main__"):
            yield name, path


def roomOf(module: str) -> str:
    """The room of a module, by its name without the package's; C{hall} for a file of its own."""
    first = module.partition(".")[0]
    return "hall" if first in HALL else first


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Lines, and the modules that are imported there."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            if node.module == "chanproxy":
                yield from ((node.lineno, f"chanproxy.{each.name}") for each in node.names)
            else:
                yield node.lineno, node.module


def used() -> dict[str, set[str]]:
    """What each room uses beside itself; the files of the package itself are the hall."""
    found: dict[str, set[str]] = {}
    for module, path in modules():
        room = found.setdefault(roomOf(module), set())
        for _, imported in imports(path):
            if imported.startswith("chanproxy."):
                room.add(roomOf(imported.removeprefix("chanproxy.")))
    return {room: uses - {room} for room, uses in found.items()}
