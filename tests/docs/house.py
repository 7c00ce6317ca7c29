"""
Figures of the package's shape: C{python -m tests.docs.house}, or C{make house}.

Those with a limit are rules; L{tests.docs.test_rooms} holds them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

from attrs import frozen

from chanproxy.config.containers import KEYS
from chanproxy.config.keys import Key
from chanproxy.container import Bounds
from support.rooms import PACKAGE, modules

ENTRIES, LINES, CLASS_LINES = 22, 400, 250
"""Of the package's directory; of a file; of a class."""

MOST_PARAMETERS = 7
"""Of a function, without the object that it is a method of."""

FILES = 3
"""Its line, what carries it, and what acts on it."""

IDEAS = ("linger", "max-asleep")
"""Keys whose words stand for an idea of the program's as well."""

SPECS = 5
"""How often it may be asked of what kind an address is."""

OURS, TWISTEDS = 10, 0
"""Modules that C{chanproxy call} loads."""

STRANGE = 0
"""Modules that a watch loads as a client, and that are neither ours nor Python's."""

JOINED = """
import sys
before = set(sys.modules)
import chanproxy.commands.joining
heads = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(len(heads - sys.stdlib_module_names - {"chanproxy"}))
"""

LOADED = """
import sys
sys.argv = ["chanproxy", "call", "--help"]
from chanproxy.commands.main import main
try:
    main()
except SystemExit:
    pass
for head in ("chanproxy", "twisted"):
    print(sum(name.partition(".")[0] == head for name in sys.modules), file=sys.stderr)
"""


@frozen
class Figure:
    """
    One.

    @ivar most: what it may be; None: no rule.
    @ivar where: whose it is.
    """

    what: str
    value: int
    most: int | None = None
    where: str = ""

    @property
    def wrong(self) -> bool:
        return self.most is not None and self.value > self.most


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for module, path in modules():
        yield module, ast.parse(path.read_bytes())


def _longest() -> Iterator[tuple[int, str]]:
    for module, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield (node.end_lineno or 0) - node.lineno + 1, f"{module}.{node.name}"


def _parameters() -> Iterator[tuple[int, str]]:
    for module, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
                yield (
                    len([name for name in names if name not in ("self", "cls")]),
                    f"{module}.{node.name}",
                )


def _specs() -> int:
    """How often it is asked of what kind an address is."""
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and "Spec" in ast.unparse(node.args[1])
        for _, tree in _trees()
        for node in ast.walk(tree)
    )


def _knowing(attribute: str, key: Key) -> int:
    """In how many files a key of a container stands, however it is spelled."""
    words = {key.name, key.parameter, attribute}
    return sum(
        any(re.search(rf"\b{word}\b", path.read_text()) for word in words) for _, path in modules()
    )


def _mostKnown() -> tuple[int, str]:
    """Of the keys that limit something, which is what most keys do."""
    return max(
        (_knowing(attribute, key), key.name)
        for attribute, key in KEYS.items()
        if hasattr(Bounds(), attribute) and key.name not in IDEAS
    )


def figures() -> list[Figure]:
    """All of them."""
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    lines = max((path.read_bytes().count(b"\n"), module) for module, path in modules())
    command = [sys.executable, "-c", LOADED]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    joined = subprocess.run(
        [sys.executable, "-c", JOINED], capture_output=True, text=True, check=True
    )
    ours, twisteds = map(int, loaded.stderr.split()[-2:])
    longest, parameters, known = max(_longest()), max(_parameters()), _mostKnown()
    return [
        Figure("entries of the package", len(entries), ENTRIES),
        Figure("modules", sum(1 for _ in modules())),
        Figure("lines of the longest file", lines[0], LINES, lines[1]),
        Figure("lines of the longest class", longest[0], CLASS_LINES, longest[1]),
        Figure("most parameters", parameters[0], MOST_PARAMETERS, parameters[1]),
        Figure("files that one container key stands in", known[0], FILES, known[1]),
        Figure("isinstance(..., ...Spec)", _specs(), SPECS),
        Figure("modules that `chanproxy call` loads: ours", ours, OURS),
        Figure("and Twisted's", twisteds, TWISTEDS),
        Figure("strange modules of `chanproxy watch` as a client", int(joined.stdout), STRANGE),
    ]


def main() -> None:
    """Print them."""
    print("| | is | at most | |\n| --- | ---: | ---: | --- |")
    for each in figures():
        most = "" if each.most is None else each.most
        print(f"| {each.what} | {each.value} | {most} | {each.where} |")


if __name__ == "__main__":
    main()
