"""
The rooms of the package, and their walls: which of them may use which, and why not.

What is imported only in a function, or for types, counts as well.
"""

from __future__ import annotations

import ast
import re
import sys

import pytest
from twisted.python.reflect import namedAny

from support.places import DOCS, ROOT
from support.rooms import PACKAGE, imports, modules, roomOf, used
from tests.docs.house import figures

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
        *("hall", "kernel", "channels", "wake", "endpoints", "carry", "freezers", "adopt"),
        *("config", "container", "manager"),
    ),
    "commands": (
        *("hall", "kernel", "wake", "freezers", "config", "container", "manager", "service"),
        "guest",
    ),
    "testing": (*("hall", "kernel", "wake", "carry", "config", "container", "service"),),
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


def test_walls() -> None:
    """No room uses one that it must not know."""
    wrong = []
    for module, path in modules():
        room = roomOf(module)
        for line, imported in imports(path):
            other = roomOf(imported.removeprefix("chanproxy."))
            if imported.startswith("chanproxy.") and other not in (room, *USES[room]):
                wrong.append(f"{path}:{line}: {room} uses {other}, and must not: {WHY[room]}")
    assert not wrong, "\n".join(wrong)


def test_everyRoom() -> None:
    """Each has a place above those that it uses, and is used as it is said."""
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms - {"interfaces"} == USES.keys() - {"hall"}
    order = [*USES]
    for room, uses in USES.items():
        assert all(order.index(each) < order.index(room) or each == "guest" for each in uses)
    assert {room: set(uses) for room, uses in USES.items()} == used()


def test_map() -> None:
    """What the map names is there."""
    text = (DOCS / "architecture.md").read_text()
    names = re.findall(r"`(?:chanproxy\.)?([a-z_]+\.[\w.]+)`", text)
    files = re.findall(r"`([a-z]+/[\w.]*)`", text)
    assert len(names) > 15 < len(files)
    for name in names:
        namedAny(f"chanproxy.{name}")
    for file in files:
        assert (PACKAGE / file).exists() or (ROOT / file).exists(), file


def test_figures() -> None:
    """No figure of its shape is beyond what it may be."""
    assert [each for each in figures() if each.wrong] == []


@pytest.mark.parametrize("place", ["bench", "support"])
def test_benchmarksNeedNoTests(place: str) -> None:
    """Nor what tests need: a benchmark starts where only its own programs are."""
    tests = {"tests", "pytest", "pytest_twisted", "hypothesis"}
    others = tests if place == "bench" else {*tests, "bench"}
    files = sorted((ROOT / place).rglob("*.py"))
    assert files
    for path in files:
        for line, imported in imports(path):
            assert imported.partition(".")[0] not in others, f"{path}:{line}: {imported}"


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
