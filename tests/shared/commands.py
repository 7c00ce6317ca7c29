"""The commands of a shell that start programs, as processes; as another user, too."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.live import PATIENCE

CHANPROXY = [sys.executable, "-m", "chanproxy"]

USER = 65534
"""Who is not root."""


def asUser(argv: Sequence[str]) -> list[str]:
    """
    Run a program as somebody who is not root.

    Its only right beyond that is to read whatever there is: the interpreter may be in a directory
    of root's.
    """
    ids = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    rights = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    return ["setpriv", *ids, *rights, *argv]


def cannotBecomeUser() -> str:
    """Why L{asUser} does not work here; empty if it does."""
    if os.geteuid() != 0:
        return "needs root to become somebody else"
    return "" if shutil.which("setpriv") else "needs setpriv"


class Command:
    """
    One that runs.

    @ivar process: of it.
    """

    def __init__(self, argv: Sequence[str], directory: Path, **options: Any) -> None:
        """
        @param directory: where its runtime directory is, and what it writes.
        @param options: of C{subprocess.Popen}.
        """
        environment = dict(os.environ, CHANPROXY_RUNTIME_DIRECTORY=str(directory / "runtime"))
        descriptor, name = tempfile.mkstemp(".log", dir=directory)
        # Not a pipe: what it leaves running would keep that open.
        self._log = Path(name)
        self._seen = 0
        try:
            self.process = subprocess.Popen(
                argv, stdout=descriptor, stderr=subprocess.STDOUT, env=environment, **options
            )
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    @property
    def lines(self) -> list[str]:
        """What it, and what it has started, has written so far."""
        return self._log.read_text().splitlines()

    @property
    def text(self) -> str:
        """All of that on one line."""
        return " ".join(self._log.read_text().split())

    def says(self, wanted: str, patience: float = PATIENCE) -> None:
        """Wait for a line with a text in it, behind those that were waited for before."""
        deadline = time.monotonic() + patience
        while True:
            ended = self.process.poll() is not None
            lines = self.lines[self._seen :]
            for index, line in enumerate(lines):
                if wanted in line:
                    self._seen += index + 1
                    return
            assert not ended, f"{wanted!r} is not in {lines}"
            assert time.monotonic() < deadline, f"{wanted!r} does not come: {lines}"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send it one."""
        self.process.send_signal(number)

    def ends(self, patience: float = PATIENCE) -> int:
        """Wait for its end; its exit status."""
        return self.process.wait(patience)

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


@contextlib.contextmanager
def running(argv: Sequence[str], directory: Path, **options: Any) -> Iterator[Command]:
    """One command, killed at the end."""
    command = Command(argv, directory, **options)
    try:
        yield command
    finally:
        command.close()
