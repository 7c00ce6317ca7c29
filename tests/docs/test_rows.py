"""Each row of the original's tables has a test that names it, and the docs name no other tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from support.places import DOCS, ROOT

PAGE = DOCS / "starnix-rows.md"

ROWS = {
    # The scheduler role is row 3, the trace points are row 12.
    "channel proxy": [str(number) for number in range(1, 13)],
    "channel proxy's own tests": ["1", "2", "3", "4"],
    "message counter": ["1", "2", "3", "4"],
    "manager protocol": [
        "ProxyWakeChannel",
        "AddWakeSource",
        "RemoveWakeSource",
        "RegisterWakeWatcher",
        "SuspendContainer",
        "a missing field",
    ],
    "suspending": [
        "one at a time",
        "the attempt is counted",
        "every process",
        "a dead process",
        "a thread that does not stop",
        "wake locks",
        "asleep is told",
        "any wake source",
        "the reason",
        "the answer",
        "success and failure",
        "the histogram",
    ],
    "container side": [
        "create a proxy for wake events",
        "mark handled / mark all handled",
        "owned counter",
        "shared counter",
        "waking proxy / waking stream",
        "wake locks",
        "wake-up sources' statistics",
        "suspend statistics",
    ],
}
"""
As a docstring names them, C{starnix: TABLE: ROW: ...} or with a period; in the order of the docs'
tables.
"""

HEADINGS = {
    "channel proxy": "## The channel proxy",
    "channel proxy's own tests": "### Its own tests",
    "message counter": "## The message counter",
    "manager protocol": "## The manager protocol",
    "suspending": "## Suspending",
    "container side": "## The container's side",
}


def functions(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and docstrings of a file's tests; those of a class with its name."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}::{inner.name}", ast.get_docstring(inner) or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, ast.get_docstring(node) or ""


def allTests() -> dict[str, str]:
    """Docstrings of all tests, by C{tests/ROOM/test_FILE.py::NAME}."""
    return {
        f"{file.relative_to(ROOT)}::{name}": text
        for file in (ROOT / "tests").rglob("test_*.py")
        for name, text in functions(ast.parse(file.read_text()))
        if name.rpartition("::")[2].startswith("test_")
    }


def rowOf(docstring: str) -> tuple[str, str] | None:
    """The table and the row that a test is for, if it says so."""
    found = re.match(r"starnix: ([^:]+): ([^.:]+)[.:]", " ".join(docstring.split()))
    return (found[1], found[2]) if found else None


def table(heading: str) -> list[str]:
    """The rows below a heading of the docs."""
    _, _, below = PAGE.read_text().partition(f"\n{heading}\n")
    section = re.split(r"\n#+ ", below)[0]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


def named(text: str) -> list[str]:
    """The tests that a text names."""
    return re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", text)


def test_everyRow() -> None:
    """None of the rows is without a test, and no test names a row that there is not."""
    rows = {(name, row) for name, names in ROWS.items() for row in names}
    found = {rowOf(text) for text in allTests().values()} - {None}
    assert found == rows
    # A slip in the beginning would go unnoticed otherwise.
    begun = [name for name, text in allTests().items() if "starnix" in text and not rowOf(text)]
    assert begun == []


def test_docs() -> None:
    """Every test that the docs' tables name is there."""
    names = named(PAGE.read_text())
    assert len(names) > 30
    assert set(names) <= set(allTests())


def test_docsRows() -> None:
    """Row by row, of every table there is, the docs name a test that names the row."""
    assert len(re.findall(r"(?m)^\| the original \|", PAGE.read_text())) == len(ROWS)
    known = allTests()
    for name, rows in ROWS.items():
        for row, line in zip(rows, table(HEADINGS[name]), strict=True):
            assert (name, row) in [rowOf(known[test]) for test in named(line)], line
