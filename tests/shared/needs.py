"""Marks for tests that need what not every machine has."""

from __future__ import annotations

import pytest

from support.cgroups import unusable
from support.programs import find


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where these are not installed, or nothing can be frozen; on CI that is a failure."""
    missing = [program for program in programs if find(program) is None]
    why = unusable() or (f"not installed: {', '.join(missing)}" if missing else "")
    return pytest.mark.skipif(bool(why), reason=why or "all is there")
