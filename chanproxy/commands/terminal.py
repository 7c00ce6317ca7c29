"""
A terminal as a screen and a keyboard: keys one at a time, drawn by rich, given back as it was.

Knows nothing of what is drawn.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.control import Control
from rich.screen import Screen

REST = 0.05
"""Seconds until the rest of a key's bytes has come, if there is any: else it was Escape."""

KEYS: Mapping[bytes, str] = {
    **dict.fromkeys((b"\x1b[A", b"\x1bOA"), "up"),
    **dict.fromkeys((b"\x1b[B", b"\x1bOB"), "down"),
    **dict.fromkeys((b"\x1b[H", b"\x1bOH", b"\x1b[1~"), "home"),
    **dict.fromkeys((b"\x1b[F", b"\x1bOF", b"\x1b[4~"), "end"),
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    **dict.fromkeys((b"\r", b"\n"), "enter"),
    b"\x1b": "escape",
    **dict.fromkeys((b"\x7f", b"\x08"), "backspace"),
}
"""What terminals send for keys that are no characters."""


class NoTerminal(Exception):
    """There is nothing to draw on, or nobody to type; the text says what."""


def splitKeys(data: bytes) -> list[str]:
    """The keys in what a terminal has sent; those that nobody knows are left out."""
    found: list[str] = []
    while data:
        length = 1
        if data[:2] in (b"\x1b[", b"\x1bO"):
            # Up to its last byte, ECMA-48.
            length = 2
            while length < len(data) and not 0x40 <= data[length] <= 0x7E:
                length += 1
            length += 1
        key, data = data[:length], data[length:]
        if key in KEYS:
            found.append(KEYS[key])
        elif len(key) == 1 and 0x20 <= key[0] < 0x7F:
            found.append(key.decode())
    return found


class Terminal:
    """
    The one that the command was started in.

    @ivar ending: a signal has asked for the end.
    """

    def __init__(self) -> None:
        """@raise NoTerminal: there is none, or it cannot be drawn on."""
        for stream, what in ((sys.stdin, "input"), (sys.stdout, "output")):
            if not stream.isatty():
                raise NoTerminal(f"the {what} is no terminal")
        self._console = Console(highlight=False)
        if self._console.is_dumb_terminal:
            raise NoTerminal("the terminal (TERM) is a dumb one")
        self._keyboard, self._screen = sys.stdin.fileno(), sys.stdout.fileno()
        self._before: list[Any] = []
        self.ending = False
        self._stopping = False
        # A signal is a byte here, so that it ends a wait.
        self._heard, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as of now; a terminal that knows of none has as many as a VT100."""
        columns, lines = os.get_terminal_size(self._screen)
        return columns or 80, lines or 24

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have it for a while; it is given back whatever happens."""
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)
        before = {number: signal.signal(number, self._signalled) for number in handled}
        wakeup = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        try:
            self._enter()
            try:
                yield
            finally:
                self._leave()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._heard)
            os.close(self._woken)

    def _enter(self) -> None:
        self._before = termios.tcgetattr(self._keyboard)
        tty.setcbreak(self._keyboard)
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)

    def _leave(self) -> None:
        # Who has hung up has taken it along.
        with contextlib.suppress(OSError, termios.error):
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        # It may come in the middle of what is drawn: done about it is something in the next wait.
        if number == signal.SIGTSTP:
            self._stopping = True
        elif number != signal.SIGWINCH:
            self.ending = True

    def _stop(self) -> None:
        """Give the terminal to the shell, until this program is to go on."""
        self._stopping = False
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()

    def draw(self, what: RenderableType) -> None:
        """Show something; what does not go onto the screen is cut off."""
        # What COLUMNS and LINES say was true when the shell was asked last.
        self._console.size = ConsoleDimensions(*self.size)
        # As one write: nothing flickers.
        with self._console:
            self._console.control(Control.home())
            self._console.print(Screen(what), end="")

    def wait(self, timeout: float, others: Mapping[int, Callable[[], None]]) -> list[str]:
        """
        Wait for keys, a signal, or something else.

        @param timeout: seconds, at the most.
        @param others: descriptors, and what to do when one of them is readable.
        @return: the keys.
        """
        poller = select.poll()
        for descriptor in (self._keyboard, self._heard, *others):
            poller.register(descriptor, select.POLLIN)
        keys: list[str] = []
        for descriptor, _ in poller.poll(max(timeout, 0) * 1000):
            if descriptor == self._heard:
                os.read(self._heard, 4096)
                if self._stopping:
                    self._stop()
            elif descriptor == self._keyboard:
                keys += self._keys()
            else:
                others[descriptor]()
        return keys

    def _keys(self) -> list[str]:
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(self._keyboard, 4096)
        # Who has hung up types no more.
        self.ending = self.ending or not data
        if data.endswith((b"\x1b", b"\x1b[", b"\x1bO")):
            poller = select.poll()
            poller.register(self._keyboard, select.POLLIN)
            if poller.poll(REST * 1000):
                data += os.read(self._keyboard, 4096)
        return splitKeys(data)
