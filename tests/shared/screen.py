"""A program in a terminal of its own, and somebody who looks at it and types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from support.live import PATIENCE

_CONTROL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()].|[=>])")
"""What moves and colours: ECMA-48, and the choice of letters."""

_HOME = b"\x1b[H"


class Screen:
    """
    A pseudoterminal, and a program that has it.

    @ivar process: the program.
    @ivar output: all that it has written so far.
    """

    def __init__(
        self,
        argv: Sequence[str],
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._terminal, slave = pty.openpty()
        self.output = b""
        try:
            self.resize(columns, lines)
            self.before = self.mode
            self.process = subprocess.Popen(
                argv,
                preexec_fn=lambda: os.login_tty(slave),
                env={**os.environ, "TERM": "xterm", **(environment or {})},
            )
        except BaseException:
            os.close(self._terminal)
            raise
        finally:
            os.close(slave)

    @property
    def mode(self) -> list[Any]:
        """How the terminal is set."""
        return termios.tcgetattr(self._terminal)

    def resize(self, columns: int, lines: int) -> None:
        """As somebody who drags its corner."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def press(self, keys: str) -> None:
        """As somebody who types."""
        os.write(self._terminal, keys.encode())

    def frame(self) -> list[str]:
        """The lines of what was drawn last; without a screen, all lines."""
        last = self.output.rpartition(_HOME)[2]
        return _CONTROL.sub(b"", last).decode(errors="replace").split("\r\n")

    def read(self, timeout: float) -> bool:
        """Take what it writes; whether there was anything."""
        if not select.select([self._terminal], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            # It has closed its side.
            return False
        self.output += data
        return bool(data)

    def until(self, what: str, condition: Callable[[list[str]], object]) -> list[str]:
        """Look until the screen is so; what it shows then."""
        deadline = time.monotonic() + PATIENCE
        while True:
            # Half of what is being drawn is nothing to judge by.
            if self.read(0.05):
                continue
            frame = self.frame()
            if condition(frame):
                return frame
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s: {frame}"
            assert self.process.poll() is None, f"{what}: it has ended: {self.output!r}"

    def shows(self, text: str) -> list[str]:
        """Look until a text is there."""
        return self.until(text, lambda frame: any(text in line for line in frame))

    def ended(self) -> int:
        """Its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.frame()
            # Who is not read from does not end.
            self.read(0.05)
        while self.read(0):
            pass
        return self.process.returncode

    def close(self) -> None:
        """End it.  Idempotent."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
