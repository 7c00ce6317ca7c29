"""The how-tos: their blocks run as they stand, and print what the pages show."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy import config
from support.places import DOCS
from tests.shared.needs import needs
from tests.shared.pages import blocks, runs, unsaid

pytestmark = [pytest.mark.cgroup, pytest.mark.lasts(60)]


def _page(name: str, cgroup: str, *programs: str) -> object:
    """A page, the name of its cgroup, and what it needs."""
    return pytest.param(name, cgroup, marks=needs(*programs), id=name)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that others may go through, which pytest's may not."""
    with tempfile.TemporaryDirectory(prefix="chanproxy-docs-") as made:
        directory = Path(made)
        directory.chmod(0o755)
        yield directory


@pytest.mark.parametrize(
    ("name", "cgroup"),
    [
        _page("web", "web", "curl"),
        _page("database", "db", "initdb", "postgres", "psql", "setpriv"),
        _page("dbus", "dbus", "dbus-daemon", "dbus-send"),
        _page("tmux", "tmux", "tmux"),
        _page("development", "development", "redis-server", "redis-cli", "curl"),
    ],
)
def test_runs(directory: Path, name: str, cgroup: str) -> None:
    """The blocks do what the page says, print what it shows, and leave nothing behind."""
    page = DOCS / f"howto-{name}.md"
    assert len("".join(blocks(page, "sh")).splitlines()) > 5
    assert blocks(page, "text")
    output, _ = runs(page, cgroup, directory)
    # Both are waited for, so that it really slept and was woken.
    assert re.search(r"(?m)^\w+ +asleep", output), output
    assert re.search(r"(?m)^\w+ .* woken last by ", output), output
    assert unsaid(page, output) == [], output
    for block in blocks(page, "toml"):
        assert config.load(block).containers


@pytest.mark.parametrize("name", ["twisted", "testing", "plugins"])
def test_library(directory: Path, name: str) -> None:
    """So do those about the library, which freeze nothing, or one process by signals."""
    page = DOCS / f"howto-{name}.md"
    output, _ = runs(page, "none", directory)
    assert blocks(page, "text")
    assert unsaid(page, output) == [], output
