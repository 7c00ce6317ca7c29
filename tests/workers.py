"""
How many processes the tests are shared out to, and who begins with what.

Most of their time is waiting, for programs that sleep on purpose; so there are more of these
workers than processors.  A file stays whole: what it has made for a module is made once; and those
that compare times for long are one worker's, one after the other: dozens of programs each, all with
priority, would starve each other as well as the rest.  Knows pytest and pytest-xdist, and nothing
of what is tested.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import xdist.scheduler  # type: ignore[import-untyped]  # it has no annotations for others

EACH = 3
"""Workers by processor: one of them waits for its turn, or for what sleeps."""

AT_LEAST = 4
"""On one processor, too: those that wait leave it to the others."""

AT_MOST = 10
"""The longest file takes as long as all the others together with so many; more would only wait."""

CHAIN = "those that compare times for long"
"""What pytest-xdist takes for one file."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None for what is quick to run, or is to be seen: starting one takes seconds."""
    option = config.option
    if option.keyword or option.markexpr or option.capture == "no" or option.collectonly:
        return 0
    places = {Path(place.partition("::")[0]) for place in config.args}
    if all(place.is_file() for place in places) and len(places) == 1:
        return 0
    return min(max(EACH * len(os.sched_getaffinity(0)), AT_LEAST), AT_MOST)


class _Scheduling(xdist.scheduler.LoadFileScheduling):  # type: ignore[misc]  # see its import
    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return CHAIN if isChained(self.config.rootpath / file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    """For C{--dist loadfile}; None where something else was asked for."""
    return _Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@cache
def isChained(file: Path) -> bool:
    """Whether it compares times, and lasts; who shares tests out has their names, and no marks."""
    text = file.read_text()
    return all(re.search(rf"\bmark\.{mark}\b", text) for mark in ("punctual", "lasts"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those files first that last longest, or one worker would wait for the last of them alone."""
    if hasattr(config, "workerinput"):
        items.sort(key=_lasts, reverse=True)


def _lasts(item: pytest.Item) -> tuple[bool, float]:
    mark = item.get_closest_marker("lasts")
    return isChained(item.path), 0.0 if mark is None else float(mark.args[0])
