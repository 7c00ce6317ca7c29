"""Which words of a command line are ours, and which are the program's."""

from __future__ import annotations

import math
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from chanproxy.commands.programs import ProgramCommand, graceOption


@click.command("try", ProgramCommand)
@click.option("--linger", type=float)
@click.option("--pair", nargs=2)
@click.option("--dry-run", is_flag=True)
@graceOption
@click.argument("name")
@click.argument("program", nargs=-1)
def tried(**words: object) -> None:
    """As watch and run are."""
    seen.append(words)


seen: list[dict[str, object]] = []


def parsed(line: str) -> dict[str, object]:
    """What they are; the grace only where it was said."""
    result = CliRunner().invoke(tried, line.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    words = seen.pop()
    if words["grace"] == 10.0:
        del words["grace"]
    return {key: value for key, value in words.items() if value is not None and value is not False}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("web", {"program": ()}),
        ("web -- redis --port 1", {"program": ("redis", "--port", "1")}),
        (
            "web --linger 2 -- redis --linger 1",
            {"linger": 2.0, "program": ("redis", "--linger", "1")},
        ),
        ("--linger 2 web --dry-run -- a", {"linger": 2.0, "dry_run": True, "program": ("a",)}),
        ("web --linger=2 a -b", {"linger": 2.0, "program": ("a", "-b")}),
        ("web --pair b c a -d", {"pair": ("b", "c"), "program": ("a", "-d")}),
        ("--dry-run web a --port 1", {"dry_run": True, "program": ("a", "--port", "1")}),
        ("web sh -c x -- --linger 1", {"program": ("sh", "-c", "x", "--", "--linger", "1")}),
        ("web a --help", {"program": ("a", "--help")}),
        ("web -- -- a", {"program": ("--", "a")}),
        ("-- web a --port 1", {"program": ("a", "--port", "1")}),
        ("--grace 3s web", {"program": (), "grace": 3.0}),
        ("--grace 0.5 web", {"program": (), "grace": 0.5}),
        ("--grace 0 web", {"program": (), "grace": 0.0}),
        ("--grace never web", {"program": (), "grace": math.inf}),
    ],
)
def test_words(line: str, words: dict[str, object]) -> None:
    """The program begins after C{--}, or with the second word; options stand before it."""
    assert parsed(line) == {"name": "web", **words}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("web --port 1 redis", "; if it is the program's, write -- before the program"),
        ("web --lingr 1 redis", "--linger"),
        ("web redis --linger 1", "--linger stands behind the program 'redis': write it before"),
        ("web redis -p --linger=1", "if it is the program's, write -- before the program"),
        ("--dry-run", "Missing argument"),
        ("web --linger", "requires an argument"),
        ("web --grace soon", "'soon' is no time; write seconds up to 86400"),
        ("web --grace -1", "out of range; write seconds up to 86400"),
    ],
)
def test_wrong(line: str, says: str) -> None:
    """What cannot be told apart is asked for."""
    result = CliRunner().invoke(tried, line.split())
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


@pytest.mark.parametrize("line", ["watch cgroup:x", "run x", "hold x", "trace x"])
def test_commands(line: str) -> None:
    """Each that starts a program."""
    for words, says in (
        (("--port", "1"), "write -- before the program"),
        (("true", "--help", "--socket", "x", "--name", "x"), "stands behind the program 'true'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "chanproxy", *line.split(), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert says in " ".join(done.stderr.split())
