"""
The rooms of the package, and their walls: which of them may use which, and why not.

What is imported only in a function, or for types, counts as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chanproxy

PACKAGE = Path(chanproxy.__file__).parent

HALL = ("interfaces", "trace", "plugins", "words", "_version")
"""Files of the package itself: nouns, and what all rooms use."""

USES: dict[str, tuple[str, ...]] = {
    "hall": (),
    "kernel": ("hall",),
    "channels": ("hall", "kernel"),
    "wake": ("hall", "kernel"),
    "endpoints": ("hall", "kernel", "channels"),
    "carry": ("hall", "kernel", "wake"),
    "freezers": ("hall", "kernel"),
    "adopt": ("hall", "kernel", "wake"),
    "config": ("hall", "kernel", "channels", "endpoints", "carry", "freezers", "adopt"),
    "container": ("hall", "kernel", "channels", "wake", "carry", "freezers", "adopt"),
    "manager": (
        *("hall", "kernel", "channels", "wake", "endpoints", "carry", "config", "container"),
        "guest",
    ),
    "service": (
        *("hall", "kernel", "channels", "endpoints", "carry", "freezers", "adopt"),
        *("config", "container", "manager"),
    ),
    "commands": (
        *("hall", "kernel", "freezers", "config", "container", "manager", "service", "guest"),
    ),
    "testing": (
        *("hall", "kernel", "wake", "carry", "config", "container", "service"),
    ),
    "guest": (),
}
"""From the ground up: what each room may use beside itself."""

WHY = {
    "hall": "all rooms use it, so it can use none",
    "kernel": "it is about files, sockets and processes: what they are to us is not its business",
    "channels": "a channel carries messages: who counts them, and where it came from, is not said",
    "wake": "a source is a descriptor with a name, whatever fills it and whatever it wakes",
    "endpoints": "an address leads to a channel, and not to a container",
    "carry": "a proxy knows channels by their interface: each kind of socket is carried alike",
    "freezers": "a freezer stops and starts; when, is decided elsewhere",
    "adopt": "it looks into processes and finds what they wait for; it neither freezes nor thaws",
    "config": "a configuration is values, so that it can be checked where nothing runs",
    "container": "a container can be made by a program that has neither file nor manager",
    "manager": "what can be asked of a service must not depend on how that starts",
    "service": "commands are one way to run a service; there are others",
    "commands": "nothing is above it",
    "testing": "it is for the tests of others, who have what users have",
    "guest": "it is copied into containers, in which there is nothing but Python itself",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


def roomOf(module: str) -> str:
    first = module.partition(".")[0]
    return first if (PACKAGE / first).is_dir() else "hall"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Lines, and the modules that are imported there."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "chanproxy":
                yield from ((node.lineno, f"chanproxy.{each.name}") for each in node.names)
            else:
                yield node.lineno, node.module


def test_walls() -> None:
    """No room uses one that it must not know."""
    wrong = []
    for module, path in modules():
        # The front door of the package.
        if module in ("__init__", "__main__"):
            continue
        room = roomOf(module)
        for line, imported in imports(path):
            head, _, rest = imported.partition(".")
            used = roomOf(rest) if rest else "hall"
            if head == "chanproxy" and used not in (room, *USES[room]):
                wrong.append(f"{path}:{line}: {room} uses {used}, and must not: {WHY[room]}")
    assert not wrong, "\n".join(wrong)


def test_everyRoom() -> None:
    """Each has a place above those that it uses, and is used as it is said."""
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == USES.keys() - {"hall"}
    order = [*USES]
    for room, used in USES.items():
        assert all(order.index(each) < order.index(room) or each == "guest" for each in used)
    found = {room: set[str]() for room in USES}
    for module, path in modules():
        for _, imported in imports(path):
            head, _, rest = imported.partition(".")
            if head == "chanproxy" and module not in ("__init__", "__main__"):
                found[roomOf(module)].add(roomOf(rest) if rest else "hall")
    assert {room: set(used) for room, used in USES.items()} == {
        room: used - {room} for room, used in found.items()
    }


def test_guestNeedsNothing() -> None:
    """But the standard library."""
    for module, path in modules():
        if roomOf(module) == "guest":
            for line, imported in imports(path):
                head = imported.partition(".")[0]
                own = imported.startswith("chanproxy.guest") or head in sys.stdlib_module_names
                assert own, f"{path}:{line}: {imported}"


@pytest.mark.parametrize("room", [room for room in USES if room != "hall"])
def test_says(room: str) -> None:
    """Each begins with what it is for, and what it must not know."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_bytes())) or ""
    assert "ust not know" in text or "Nothing else imports it" in text, text
