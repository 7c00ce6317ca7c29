"""Docker: see C{inside}."""

from __future__ import annotations

import pytest

from tests.runtimes.insides import inside, needsRoot

pytestmark = [pytest.mark.lasts(60), needsRoot]


def test_inside() -> None:
    """By itself."""
    inside("docker")


def test_hybrid() -> None:
    """Among the machine's own cgroups."""
    inside("docker", hybrid=True)
