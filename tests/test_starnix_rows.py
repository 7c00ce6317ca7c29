"""The table of the container's side in the docs names real tests, and each of them its row."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
GUIDE = TESTS.parent / "docs" / "guest.md"

ROWS = (
    "create a proxy for wake events",
    "mark handled / mark all handled",
    "owned counter",
    "shared counter",
    "waking proxy / waking stream",
    "wake locks",
    "wake-up sources' statistics",
    "suspend statistics",
)
"""Of the original's container side."""


def docstrings(file: Path) -> dict[str, str]:
    """The first line of each test's docstring."""
    found = re.findall(r'def (test_\w+)\([^"]*?\) -> None:\n\s+"""(.*)', file.read_text())
    return dict(found)


def test_eachRow() -> None:
    """Every row has a test whose docstring names it."""
    named = [text for file in TESTS.glob("test_*.py") for text in docstrings(file).values()]
    for row in ROWS:
        assert any(text.startswith(f"starnix: container side: {row}: ") for text in named), row


def test_table() -> None:
    """Every row of the docs' table names tests that there are, and that name a row."""
    lines = GUIDE.read_text().rpartition("| --- | --- | --- |\n")[2].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert len(rows) == len(ROWS) + 2
    for _, _, tests in rows:
        file, *names = re.findall(r"`(\w+(?:\.py)?)`", tests)
        known = docstrings(TESTS / file)
        assert names
        for name in names:
            assert known[name].startswith("starnix: "), name
