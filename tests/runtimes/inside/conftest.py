"""The runtime that this run is of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.arena import KIND
from support.runtimes import ALL, WITHIN, Runtime


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is not of this runtime is no test here, and not one that is skipped."""
    items[:] = [
        item for item in items if all(KIND in mark.args for mark in item.iter_markers("runtimes"))
    ]


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """It is served, and has no container."""
    made = {**ALL, **WITHIN}[KIND](tmp_path_factory.mktemp("runtime"))
    try:
        made.prepare()
        yield made
    finally:
        made.close()


@pytest.fixture
def place(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a service finds its runtime, and can be seen from there: a directory of its own."""
    for name, value in runtime.variables.items():
        monkeypatch.setenv(name, value)
    directory = runtime.directory / tmp_path.name
    directory.mkdir()
    return directory
