"""What stands around the package: news, and what is run before a commit."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_fragments() -> None:
    """No fragment of news has a name that towncrier passes over without a word."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
    kinds = "|".join(each["directory"] for each in settings["type"])
    fragments = [path.name for path in (ROOT / settings["directory"]).iterdir()]
    assert fragments
    assert [name for name in fragments if not re.fullmatch(rf"\+\w+\.({kinds})\.md", name)] == []
    # Where a release writes them.
    changes = (ROOT / settings["filename"]).read_text()
    assert changes.count("<!-- towncrier release notes start -->") == 1


def test_beforeCommit() -> None:
    """What runs before a commit are targets that CI has, too."""
    hooks = re.findall(r"entry: make (\w+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks
    ci = re.findall(r"^timeout .* make (.*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert set(hooks) <= set(" ".join(ci).split())
