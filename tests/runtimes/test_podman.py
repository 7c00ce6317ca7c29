"""Podman: see C{inside}."""

from __future__ import annotations

import pytest

from tests.runtimes.insides import inside, needsRoot

pytestmark = [pytest.mark.lasts(50), needsRoot]


def test_inside() -> None:
    """By itself."""
    inside("podman")
