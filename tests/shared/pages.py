"""
The examples of the documentation: taken from its pages, and run as they stand.

C{python -m tests.shared.pages FILE LANGUAGE} prints a page's blocks, for a shell to run.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.cgroups import TemporaryCgroup, unifiedMount
from support.places import DOCS

PATIENCE = 180.0


def blocks(file: Path, language: str) -> list[str]:
    """The fenced blocks of a Markdown file in one language, in their order."""
    fenced = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    # Those in a list are indented.
    return [textwrap.dedent(inner) for _, inner in fenced.findall(file.read_text())]


@contextmanager
def started(
    argv: Sequence[str | Path], directory: Path, output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own; nothing of that session survives."""
    binaries = os.path.dirname(sys.executable)
    # To a file, not a pipe: what runs in the background would keep a pipe open.
    with output.open("wb") as file:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            env=dict(
                os.environ,
                PATH=f"{binaries}:{os.environ.get('PATH', os.defpath)}",
                TMPDIR=str(directory),
            ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def cgroupOf(name: str) -> Iterator[Path]:
    """A cgroup that somebody else makes, and that is gone afterwards."""
    cgroup = TemporaryCgroup(create=False)
    cgroup.path = os.path.join(unifiedMount() or "", name)
    try:
        yield Path(cgroup.path)
    finally:
        cgroup.close()


def runs(page: Path, name: str, directory: Path) -> tuple[str, Path]:
    """
    Run a page's shell blocks, one after the other in one shell, as they stand.

    @param name: of the page's cgroup, without the number of the shell.
    @return: what they print, and the cgroup, which is gone.
    """
    (directory / "docs").symlink_to(DOCS)
    script, log = directory / "page.sh", directory / "log"
    script.write_text("".join(blocks(page, "sh")))
    with (
        started(["bash", "-e", script], directory, log) as shell,
        cgroupOf(f"{name}-{shell.pid}") as cgroup,
    ):
        with contextlib.suppress(subprocess.TimeoutExpired):
            shell.wait(PATIENCE)
        output = log.read_text()
        assert shell.returncode == 0, output
        assert not cgroup.exists(), output
    there = {path.name for path in directory.iterdir()}
    # The history is to stay.
    assert there <= {"docs", "log", "runtime", "state", "page.sh"}
    return output, cgroup


def gist(line: str) -> str:
    """A line without what is another one each time: numbers, places of files, widths of columns."""
    return re.sub(r"\d+", "N", re.sub(r" +", " ", re.sub(r"\S*/(?=\w)", "", line))).strip()


def unsaid(page: Path, output: str) -> list[str]:
    """What a page shows of outputs, and its blocks have not printed, in that order."""
    rest = list(map(gist, output.splitlines()))
    missing = []
    for line in (line for block in blocks(page, "text") for line in block.splitlines()):
        if gist(line) in rest:
            del rest[: rest.index(gist(line)) + 1]
        else:
            missing.append(line)
    return missing


if __name__ == "__main__":
    print("".join(blocks(Path(sys.argv[1]), sys.argv[2])), end="")
