"""How many processes the tests are shared out to; the rest is pytest-xdist's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.workers import AT_LEAST, AT_MOST, isChained, pytest_xdist_auto_num_workers

HERE = Path(__file__)


def workers(*args: str, **options: Any) -> int:
    """For a command line."""
    unset = {"keyword": "", "markexpr": "", "capture": "fd", "collectonly": False}
    made = SimpleNamespace(args=list(args), option=SimpleNamespace(**{**unset, **options}))
    return pytest_xdist_auto_num_workers(cast(pytest.Config, made))


@pytest.mark.parametrize(("processors", "count"), [(1, AT_LEAST), (2, 6), (3, 9), (64, AT_MOST)])
def test_all(monkeypatch: pytest.MonkeyPatch, processors: int, count: int) -> None:
    """More than processors; not too few to wait side by side, and not more than help."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(processors)))
    assert workers("tests") == workers(str(HERE.parent)) == count
    assert workers(str(HERE), str(HERE.parent / "conftest.py")) == count


def test_few() -> None:
    """None for one file, or where it is chosen what is run, or looked at as it runs."""
    assert workers(str(HERE)) == workers(f"{HERE}::test_all", f"{HERE}::test_few") == 0
    for options in ({"keyword": "few"}, {"markexpr": "cgroup"}, {"capture": "no"}):
        assert workers("tests", **options) == 0


def test_chain() -> None:
    """Those that compare times for long; neither one that is short, nor one that merely lasts."""
    assert isChained(HERE.parent / "whole/beside/test_beside.py")
    assert not isChained(HERE.parent / "adopt/test_cutshort.py")
    assert not isChained(HERE.parent / "commands/test_watch.py")
