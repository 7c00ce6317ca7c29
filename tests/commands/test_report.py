"""C{chanproxy report}: what it shows of a history, for people and for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chanproxy.commands.report import lasted
from chanproxy.wake.history.figures import (
    KEPT,
    SECOND,
    WOKE,
    Batch,
    Because,
    Effect,
    Figures,
    HourOf,
    bucketOf,
)
from chanproxy.wake.history.place import NAME, Unusable
from chanproxy.wake.history.reading import read
from chanproxy.wake.history.store import Store
from support.places import DOCS

LONG = "a-container-with-a-name-that-is-rather-long.slice"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A history: C{editor} slept well, C{redis} badly, C{LONG} in a dry run."""
    path = tmp_path / "state" / NAME
    store = Store(str(path), 30, 1 << 20)
    hour = int(time.time() // 3600)
    for name, dry, asleep in (("editor", False, 3500), ("redis", False, 0), (LONG, True, 60)):
        key = HourOf(hour - 1, name, dry)
        figures = Figures(
            asleep=asleep * SECOND,
            awake=(3600 - asleep) * SECOND,
            sleeps=asleep // 5,
            failures=3,
            breaths=9,
            breathTime=SECOND // 10,
            asleepCpu=SECOND,
            awakeCpu=7 * SECOND,
            idleTime=10 * SECOND if asleep else 0,
            idleCpu=SECOND // 5 if asleep else 0,
            ownCpu=2 * SECOND,
        )
        reasons = {Because(key, KEPT, "it is at work"): Effect(0, 100 * SECOND)}
        if asleep:
            reasons |= {
                Because(key, WOKE, f"tcp 0.0.0.0:{port}"): Effect(port, (9 - port) * SECOND)
                for port in range(1, 7)
            }
        latencies = {(key, bucketOf(200_000)): 99, (key, bucketOf(3_000_000)): 1}
        store.write(
            Batch({key: figures}, reasons, latencies if name == "editor" else {}), time.time()
        )
    store.write(Batch({HourOf(hour - 24 * 20, "old", False): Figures(sleeps=1)}), time.time())
    store.close()
    return path


def report(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it; the state directory is the test's own."""
    return subprocess.run(
        [sys.executable, "-m", "chanproxy", "report", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def shown(*words: str, **environment: str) -> str:
    """What it prints when all is well."""
    done = report(*words, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(text: str) -> dict[str, list[str]]:
    """The lines of tables, by their first cell."""
    split = [re.split(r" {2,}", line.rstrip()) for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in split if len(cells) > 1}


def test_people(file: Path) -> None:
    """Share, wakes, latencies and what is spared of each and of all; who spoils it, worst first."""
    text = shown()
    assert max(len(line) for line in text.splitlines()) <= 80
    found = rows(text)
    assert found["container"] == ["asleep", "for", "wakes", "p50", "p99", "spared", "own"]
    assert found["editor"] == ["97.2%", "58 min", "700", "215 us", "215 us", "1 min", "2.0 s"]
    assert found["redis"] == ["0.0%", "0 s", "0", "-", "-", "-", "2.0 s"]
    assert found["all"] == ["48.6%", "58 min", "700", "215 us", "215 us", "1 min", "4.0 s"]
    assert "old" not in found
    # The three worst, and of the dry run as well.
    order = [line.split()[1] for line in text.splitlines() if line.startswith("tcp ")]
    assert order == ["0.0.0.0:1", "0.0.0.0:2", "0.0.0.0:3"] * 2
    assert found["tcp 0.0.0.0:1"] == ["1", "8.0 s"]
    assert text.count("it is at work") == 3
    assert "dry run: it was not stopped, and is in no total" in text.replace("\n", " ")


def test_one(file: Path) -> None:
    """Of one container all reasons, and what the figures come from."""
    text = shown("editor")
    assert LONG not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    found = rows(text)
    assert "all" not in found
    assert len([name for name in found if name.startswith("tcp ")]) == 6
    assert found["freezes that were given up"] == ["3"]
    assert found["processor, when it was seen awake and idle"] == ["200 ms in 10.0 s"]


def test_wide(file: Path) -> None:
    """A wider terminal is used for long names."""
    assert f"{LONG} (dry run)" not in shown()
    assert f"{LONG} (dry run)" in shown(COLUMNS="160")


def test_days(file: Path) -> None:
    """So many; and what is not in them is said, of a container that is known."""
    assert "old" in rows(shown("--days", "30"))
    assert shown("old") == "There is nothing of old in the last 7 days.\n"
    assert shown("old", "--days", "1") == "There is nothing of old in the last day.\n"


def test_empty(tmp_path: Path) -> None:
    """A history that has just begun."""
    store = Store(str(tmp_path / "state" / NAME), 30, 1 << 20)
    store.write(Batch(), time.time())
    store.close()
    assert shown() == "There is nothing in the last 7 days.\n"
    tree = json.loads(shown("--json"))
    assert (tree["containers"], tree["total"]["asleep_share"]) == ([], None)


def test_hostile(file: Path) -> None:
    """Whatever stands in the file moves no cursor, and means nothing to whoever prints it."""
    store = Store(str(file), 30, 1 << 20)
    key = HourOf(int(time.time() // 3600), "\x1b[31m[bold]x[/bold]", False)
    reasons = {Because(key, WOKE, "\x1b]0;x\x07\n[/red]:smile:"): Effect(1, 1)}
    store.write(Batch({key: Figures(awake=1)}, reasons), time.time())
    store.close()
    text = shown(COLUMNS="200")
    assert "\x1b" not in text
    assert "\\x1b[31m[bold]x[/bold]" in text
    assert "\\x1b]0;x\\x07\\n[/red]:smile:" in text


def test_programs(file: Path) -> None:
    """One object, with the fields that the page describes and no others."""
    tree: dict[str, Any] = json.loads(shown("--json"))
    assert [each["name"] for each in tree["containers"]] == [LONG, "editor", "redis"]
    _, editor, redis = tree["containers"]
    assert editor["asleep"] == 3500.0
    assert editor["spared_cpu"] == 3500 * 0.02 - 1
    assert redis["spared_cpu"] is None
    assert redis["latency_p50"] is None
    assert editor["woken_by"][0] == {"reason": "tcp 0.0.0.0:1", "wakes": 1, "awake": 8.0}
    assert editor["kept_awake_by"] == [{"reason": "it is at work", "awake": 100.0}]
    assert tree["total"]["wakes"] == 700
    assert tree["total"]["spared_cpu"] == editor["spared_cpu"]
    assert tree["since"] % 3600 == 0
    assert time.time() - 600 < tree["until"] <= time.time()
    page = (DOCS / "report.md").read_text().partition("## For programs")[2]
    described = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", page, re.M))))
    assert described == {*tree, *editor}
    assert set(tree["total"]) < set(editor)


def test_unknown(file: Path) -> None:
    """A container that is not in the file: the nearest is named, or all, and the status is 2."""
    done = report("edtor")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no container 'edtor' is in the history; did you mean editor?" in done.stderr
    assert f"there are {LONG}, editor, old, redis" in report("zzz").stderr
    assert report("--days", "0").returncode == 2
    assert report("--days", "nan").returncode == 2


def test_noFile(tmp_path: Path) -> None:
    """Without a history, or with one that cannot be read, it is a sentence and the status 1."""
    done = report()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/state/history.sqlite: there is no history" in done.stderr
    (tmp_path / "text").write_bytes(b"no database" * 100)
    done = report("--history", str(tmp_path / "text"))
    assert done.returncode == 1
    assert "text: cannot be read: file is not a database" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebodyElse(open_: Path) -> None:
    """It is for root and the service's own user."""
    path = open_ / NAME
    store = Store(str(path), 30, 1 << 20)
    store.write(Batch(), time.time())
    store.close()
    os.seteuid(65534)
    try:
        with pytest.raises(Unusable, match="Permission denied; it is for root and the service's"):
            read(str(path), 7, time.time())
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0000004, "0 us"),
        (0.000215, "215 us"),
        (0.00181, "1.81 ms"),
        (0.25, "250 ms"),
        (1, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (3599, "1 h 0 min"),
        (5 * 3600 + 125, "5 h 2 min"),
        (86399, "1 d 0 h"),
        (7 * 86400 + 3600, "7 d 1 h"),
    ],
)
def test_lasted(seconds: float, said: str) -> None:
    """Never sixty of anything."""
    assert lasted(seconds) == said
