"""The page of the commands: it leaves nothing out, and its examples say what it says they say."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chanproxy.commands.main import COMMANDS
from docs import write_commands
from support.cgroups import unusable
from support.live import PATIENCE, until
from support.places import DOCS
from tests.shared.pages import blocks
from tests.shared.stage import Stage

PAGE = DOCS / "commands.md"

MASKS = (
    (r"python[\d.]*(?=[\[ ])", "python3"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", "TIME"),
    (r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", "TIME"),
    (r"(?:\d[\d.]* (?:ms|s|min|h|d)\b ?)+", "LONG "),
    (r"[<>]?\d+ %", "SHARE"),
    # What has been spared is not known at first.
    (r"SHARE +LONG +", "SHARE "),
    (r"\[\d+\]", "[N]"),
    (r"process \d+, user [\w-]+", "process N, user U"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:N"),
    # What is told of who works depends on what else the machine does.
    (
        r"python3\[N\] runs \d+ times a second, and busy-switches = 50"
        r"|it uses SHARE? ?\d*%? ?of a processor, and busy-cpu = 0\.05"
        r"|indexer/python3\[N\] \w+ timeout is over in LONG"
        r"|it has been quiet for less than the linger time|busy: python3\[N\].*",
        "WORK",
    ),
    # And who has woken it cannot always be found out.
    (r"web/python3\[N\] (?:epoll|tcp 127\.0\.0\.1:N (?:listening|from 127\.0\.0\.1:N))", "PEER"),
    (r" +", " "),
)
"""What differs from run to run, and what stands for it."""


def plain(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text)
    return [line.strip() for line in text.splitlines()]


def examples() -> Iterator[tuple[str, list[str]]]:
    """The commands that the page shows, and what they say."""
    for block in blocks(PAGE, "text"):
        if block.startswith("$ "):
            for each in re.split(r"(?m)^\$ ", block)[1:]:
                command, _, output = each.partition("\n")
                yield command, plain(output)


def contains(there: list[str], lines: list[str]) -> bool:
    """Whether lines are there in their order, whatever is between them."""
    rest = iter(there)
    return all(line in rest for line in lines)


def say(stage: Stage, words: list[str]) -> list[str]:
    """What a command says on both its outputs."""
    with stage.command(*words) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 1), errors
    return plain(output + errors)


@pytest.mark.lasts(20)
@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_examples(tmp_path: Path) -> None:
    """Each example in its order, on a real service: what it says is what the page says."""
    with Stage(tmp_path) as stage:
        until("asleep", lambda: stage.isAsleep("web"))
        stage.talk()
        until("awake", lambda: stage.fields("ps", "web")[0]["last_wake"])
        until("asleep", lambda: stage.isAsleep("web"))
        held: list[subprocess.Popen[str]] = []
        try:
            count = 0
            for command, lines in examples():
                count += 1
                program, *words = shlex.split(command)
                assert program == "chanproxy"
                if words[-1] == "&":
                    held.append(stage.command(*words[:-1]))
                    until("held", lambda: "backup" in stage.ask("locks"))
                    continue
                said: list[str] = []
                # It may breathe at this very moment, or just be looked at.
                for _ in range(20):
                    said = say(stage, words)
                    if said == lines or (words[0] == "events" and contains(said, lines)):
                        break
                else:
                    pytest.fail(f"{command}: {said}; the page has {lines}")
            assert count > 10
        finally:
            for each in held:
                each.terminate()
                each.communicate(timeout=PATIENCE)


def documented(command: str) -> set[str]:
    """The fields of JSON that the page has for a command."""
    text = PAGE.read_text().partition(f"\n## `chanproxy {command}`\n")[2].partition("\n## ")[0]
    table = text.partition("| field of `--json` | meaning |\n")[2].partition("\n\n")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines()[1:]]
    return {field for row in rows for field in re.findall(r"`(\w+)`", row)}


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
def test_fields(tmp_path: Path) -> None:
    """The fields for programs are those of the page, no more and no less."""
    with Stage(tmp_path) as stage:
        until("asleep", lambda: stage.isAsleep("web"))
        stage.ask("call", "AcquireWakeLock", "container=editor", "name=lock")
        (locks,) = stage.fields("locks")
        (why,) = stage.fields("why", "editor")
        (lock,) = why["keeps_awake"]
        stage.ask("call", "ReleaseWakeLock", "container=editor", "name=lock")
        (slept,) = stage.fields("suspend", "editor", "--wait", "--timeout", "0")
        for command, fields in (
            ("ps", set(stage.fields("ps")[0])),
            ("why", set(why)),
            ("events", set(stage.fields("events")[0])),
            ("suspend", set(slept)),
            ("locks", set(locks)),
        ):
            assert documented(command) == fields, command
        (holder,) = lock["holders"]
        assert {"name", "lock", *holder} == set(locks)
        (look,) = stage.fields("top", "--count", "1")
        text = PAGE.read_text().partition("\n## `chanproxy top`\n")[2].partition("\n## ")[0]
        assert all(f"`{field}`" in text for field in look)


def test_complete() -> None:
    """Each command has a section with how it is called and all of its options, and the man page."""
    text = PAGE.read_text()
    assert write_commands.page(text) == text, "run make keys"
    manual = write_commands.MANUAL.read_text()
    assert write_commands.manual(text) == manual, "run make keys"
    headings = re.findall(r"(?m)^## `chanproxy (\w+)`$", text)
    assert sorted(headings) == sorted(COMMANDS)
    for name, command, context in write_commands.loaded():
        # In the list at the top, too.
        assert f"(#chanproxy-{name})" in text
        for option, _ in write_commands.options(command, context):
            assert f"| `{option}` |" in text
            assert option.replace("-", "\\-") in manual
    for status in ("0", "1", "2", "3", "130"):
        assert f"\n.B {status}\n" in manual


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_manual() -> None:
    """groff has nothing to complain of in the man page."""
    argv = ["groff", "-man", "-ww", "-Tutf8", "-z", str(write_commands.MANUAL)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
