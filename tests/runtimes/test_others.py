"""Runtimes without an engine: see C{inside}."""

from __future__ import annotations

import pytest

from tests.runtimes.insides import inside, needsRoot

pytestmark = [pytest.mark.lasts(55), needsRoot]


@pytest.mark.parametrize("kind", ["systemd", "lxc", "runc", "crun"])
def test_inside(kind: str) -> None:
    """Each by itself."""
    inside(kind)
