"""
How many processes the tests are shared out to, and who begins with what.

Most of their time is waiting, for programs that sleep on purpose; so there are more of these
workers than processors.  A file stays whole: what it has made for a module is made once.  Knows
pytest and pytest-xdist, and nothing of what is tested.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

AT_LEAST = 4
"""On one processor, too: those that wait leave it to the others."""

AT_MOST = 10
"""The longest file takes as long as all the others together with so many; more would only wait."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None for what is quick to run, or is to be seen: starting one takes seconds."""
    option = config.option
    if option.keyword or option.markexpr or option.capture == "no" or option.collectonly:
        return 0
    places = {Path(place.partition("::")[0]) for place in config.args}
    if all(place.is_file() for place in places) and len(places) == 1:
        return 0
    return min(max(2 * len(os.sched_getaffinity(0)), AT_LEAST), AT_MOST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those files first that last longest, or one worker would wait for the last of them alone."""
    if hasattr(config, "workerinput"):
        items.sort(key=_lasts, reverse=True)


def _lasts(item: pytest.Item) -> float:
    mark = item.get_closest_marker("lasts")
    return 0.0 if mark is None else float(mark.args[0])
