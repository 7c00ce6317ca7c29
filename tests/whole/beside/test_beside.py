"""
Programs that are known, side by side with the same run without chanproxy, with all defaults.

All of them run at once, twice each; then each is a test.  With C{CHANPROXY_TEST_TABLE=1} what was
measured goes into the docs, too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cgroups import unusable
from tests.whole.beside.compare import differences
from tests.whole.beside.stores import PostgresServer, RedisServer
from tests.whole.beside.table import PAGE, rows, story, update
from tests.whole.beside.times import Bash, Cron, Executor, Hiding, Perl, Scheduler, Socat, Watched
from tests.whole.beside.twice import Outcome, Program, sideBySide
from tests.whole.beside.web import Gunicorn, Haproxy, Node, NodeCron, Uvicorn

pytestmark = [pytest.mark.lasts(100), pytest.mark.punctual]

KINDS: list[type[Program]] = [
    *[Node, NodeCron, Haproxy, Uvicorn, Gunicorn, RedisServer, PostgresServer],
    *[Scheduler, Executor, Cron, Bash, Socat, Perl, Watched, Hiding],
]


def needed(kind: type[Program]) -> pytest.MarkDecorator:
    """Skip it where something is not there; on CI that is a failure."""
    missing = kind.missing()
    why = unusable() or (f"not installed: {', '.join(missing)}" if missing else "")
    return pytest.mark.skipif(bool(why), reason=why or "all is there")


PARAMETERS = [pytest.param(kind, id=kind.name, marks=needed(kind)) for kind in KINDS]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[str, Outcome]]:
    """What became of each of those that are asked for."""
    wanted = {
        item.callspec.params["kind"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
        if "outcomes" in item.fixturenames
    }
    # Others than root have to come to theirs, and so not one of pytest's own.
    directory = Path(tempfile.mkdtemp(prefix="chanproxy-beside-"))
    directory.chmod(0o711)
    try:
        kinds = [kind for kind in KINDS if kind in wanted and not kind.missing()]
        found = sideBySide(directory, kinds)
        if os.environ.get("CHANPROXY_TEST_TABLE"):
            update(PAGE, [(kind, found[kind.name]) for kind in kinds])
        yield found
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_besideTheRunAlone(kind: type[Program], outcomes: dict[str, Outcome]) -> None:
    """Every event is there, with the right answer, as late as is documented at most."""
    outcome = outcomes[kind.name]
    assert outcome.alone.error == outcome.asleep.error == ""
    found = differences(outcome.alone.events, outcome.asleep.events, outcome.sleep, outcome.stall)
    assert not found, "\n".join([*found, story(outcome)])


@pytest.mark.parametrize("kind", PARAMETERS)
def test_sleepsWhenIdle(kind: type[Program], outcomes: dict[str, Outcome]) -> None:
    """Or the comparison says nothing."""
    outcome = outcomes[kind.name]
    share = outcome.sleep.share(outcome.asleep.idles)
    assert share is not None
    assert share > 0.5, story(outcome)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_stands(kind: type[Program]) -> None:
    """The table in the docs speaks of each, and of what is tried here."""
    cells = rows(PAGE)[kind.name]
    assert cells[1] == kind.tried
    assert all(cells), cells
