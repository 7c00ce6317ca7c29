"""The runtime that this run is of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.runtimes import ALL, Runtime
from tests.runtimes.inside.programs import KIND


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """It is served, and has no container."""
    made = ALL[KIND](tmp_path_factory.mktemp("runtime"))
    try:
        made.prepare()
        yield made
    finally:
        made.close()
