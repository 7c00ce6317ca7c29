"""Each row of the original's tables has a test that names it, and the docs name no other tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs" / "starnix-rows.md"

ROWS = {
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
}
"""As a docstring names them: C{starnix: TABLE: ROW.}; in the order of the docs' tables."""

HEADINGS = {"manager protocol": "## The manager protocol", "suspending": "## Suspending"}


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
    """Docstrings of all tests, by C{tests/FILE.py::NAME}."""
    return {
        f"tests/{file.name}::{name}": text
        for file in TESTS.glob("test_*.py")
        for name, text in functions(ast.parse(file.read_text()))
        if name.rpartition("::")[2].startswith("test_")
    }


def rowOf(docstring: str) -> tuple[str, str] | None:
    """The table and the row that a test is for, if it says so."""
    found = re.match(r"starnix: ([^:]+): ([^.]+)\.", " ".join(docstring.split()))
    return (found[1], found[2]) if found else None


def table(heading: str) -> list[str]:
    """The rows below a heading of the docs."""
    _, _, below = DOCS.read_text().partition(f"\n{heading}\n")
    section = below.partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


def named(text: str) -> list[str]:
    """The tests that a text names."""
    return re.findall(r"`(tests/\w+\.py::[\w:]+)`", text)


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
    names = named(DOCS.read_text())
    assert len(names) > 30
    assert set(names) <= set(allTests())


def test_docsRows() -> None:
    """Row by row, the docs name a test that names the row."""
    known = allTests()
    for name, rows in ROWS.items():
        for row, line in zip(rows, table(HEADINGS[name]), strict=True):
            assert (name, row) in [rowOf(known[test]) for test in named(line)], line


def test_docsGaps() -> None:
    """A row of the docs without a test says that what it is about follows."""
    lines = [line for line in DOCS.read_text().splitlines() if re.match(r"\| (?!---)", line)]
    rows = [line for line in lines if not line.startswith("| the original |")]
    assert len(rows) > 25
    for line in rows:
        assert named(line) or re.search(r"\| Follows?\. \|", line), line
