"""Keys as options of a command: what is said of a wrong value, and that what it says will do."""

from __future__ import annotations

import shlex

import click
import pytest
from click.testing import CliRunner

from chanproxy.commands.options import KEYS, containerOptions, said


@click.command()
@containerOptions()
def command(**options: object) -> None:
    """Print what stands for the options in a file."""
    click.echo(repr({name: value for name, value in said(options).items() if value is not None}))


def run(*words: str) -> tuple[int, str]:
    """The status, and the last line."""
    done = CliRunner().invoke(command, words)
    return done.exit_code, done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--linger", "5m"], "'5m' is no time; say --linger 300"),
        (["--busy-switches", "5s"], "write a number of times a second from 0 to 1000000"),
        (["--busy-cpu", "5%"], "say --busy-cpu 0.05"),
        (["--max-asleep", "5m"], "'5m' is no time; say --max-asleep 300s"),
        (["--max-asleep", "forever"], "say --max-asleep never"),
        (["--timeouts", "1h"], "say --timeouts 3600s"),
        (["--timeouts", "soon"], "say for example --timeouts 10s"),
        (["--freezer", "cgroup=a b"], "say --freezer 'cgroup:a b'"),
        (["--freezer", "vm:x"], "say for example --freezer cgroup:container"),
        (
            ["--ignore", "tcp:80", "--ignore", "timer"],
            "say --ignore 'tcp:*:80' --ignore timerfd",
        ),
        (["--linger", "-1"], "write a number of seconds from 0 to 86400"),
    ],
)
def test_wrong(words: list[str], remedy: str) -> None:
    """In the words of a command line; what it says to say is taken."""
    status, line = run(*words)
    assert status == 2
    assert line.startswith(f"Error: Invalid value for '{words[0]}': ")
    assert line.endswith(remedy)
    if "say " in remedy:
        better = remedy.partition("--")[2]
        assert run(*shlex.split(f"--{better}"))[0] == 0


def test_each() -> None:
    """Whatever is wrong, a sentence says so; none is a list of Python's."""
    for name in KEYS:
        for value in ("", "x", "5m", "true", "[1]", "-1", "1e400", "nan"):
            status, line = run(f"--{name}", value)
            assert status in (0, 2)
            assert status == 0 or line.startswith(f"Error: Invalid value for '--{name}': "), line
            assert "Error(" not in line
