"""
How what a command has in its cgroup is ended: told, waited for, and at last killed.

Blocking; a signal that comes meanwhile is somebody who does not want to wait.  Knows no service.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from chanproxy.commands.cgroup import CommandCgroup
from chanproxy.commands.children import BY_TERMINAL, shellStatus
from chanproxy.words import safe

GRACE = 10.0
"""Seconds, by default, from the first signal until what is left is killed."""

STOPS = (signal.SIGINT, signal.SIGTERM)
"""What ends a command and all that it has started; others are the command's alone."""

_AGAIN = 0.5
"""
Seconds after which whoever stops it again means it.  A terminal and a supervisor, or what passes on
to its children what the terminal has sent them, too, may both stop it at once.
"""

_LONG = 1.0
"""Seconds after which it is said what is waited for."""

_PAUSES = (0.005, 0.05)
"""Between looks whether it has ended: the first, which is quick, and the longest."""


def say(text: str) -> None:
    """A line for people, who may not be there any more."""
    # Python has none, where a shell has closed it; print would then take the other one.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(safe(f"chanproxy: {text}"), file=sys.stderr, flush=True)


class Stopping:
    """
    Of one cgroup, once.  L{STOPS} are to be held back.

    @ivar cgroup: that one.
    @ivar begun: whether it was told to stop, or its command has ended.
    """

    def __init__(self, cgroup: CommandCgroup, grace: float) -> None:
        """@param grace: seconds from the first signal until what is left is killed."""
        self.cgroup = cgroup
        self._grace = grace
        self._process: subprocess.Popen[bytes] | None = None
        self._sender: tuple[int, int] | None = None
        self._since = 0.0
        self._said = False
        self.begun = False

    def of(self, process: subprocess.Popen[bytes]) -> None:
        """The command, which is told, too, when it is not in the cgroup any more."""
        self._process = process

    def begin(self, received: signal.struct_siginfo | None = None) -> None:
        """
        Tell all of them, once, and the grace time begins.  Idempotent.

        @param received: of L{STOPS}; it is passed on.  Without, it is SIGTERM.
        """
        if self.begun:
            return
        self.begun, self._since = True, time.monotonic()
        self.cgroup.thaw()
        if received is None:
            self._tell(signal.SIGTERM)
            return
        self._sender = received.si_pid, received.si_code
        told = os.getpgrp() if received.si_code == BY_TERMINAL else -1
        self._tell(received.si_signo, lambda pid: os.getpgid(pid) == told)

    def _tell(self, number: int, but: Callable[[int], bool] = lambda pid: False) -> None:
        process = self._process
        also = () if process is None or process.poll() is not None else (process.pid,)
        self.cgroup.tell(number, but, also)

    def isAgain(self, received: signal.struct_siginfo) -> bool:
        """Whether somebody does not want to wait."""
        same = (received.si_pid, received.si_code) == self._sender
        return same or time.monotonic() - self._since > _AGAIN

    def waitFor(self, process: subprocess.Popen[bytes]) -> int:
        """
        Until the command has ended; killed, with all others, when that takes too long.

        @return: its exit status as a shell gives it.
        """
        self.begin()
        if not self._wait(lambda: process.poll() is None):
            # It may have left the cgroup.
            process.kill()
        return shellStatus(process.wait())

    def end(self) -> None:
        """Until nothing is left in the cgroup: told to end, and killed when that takes too long."""
        self.begin()
        # Not those that come later: a program that cleans up may start others for that.
        self._tell(signal.SIGTERM)
        self._wait(lambda: self.cgroup.populated)

    def _wait(self, running: Callable[[], bool]) -> bool:
        """@return: False: it was killed."""
        pause = _PAUSES[0]
        while running():
            now = time.monotonic()
            left = self._since + self._grace - now
            if left <= 0 or self._insisted(min(pause, left)):
                self.cgroup.kill()
                return False
            if now - self._since > _LONG and not self._said:
                self._said = True
                most = "" if math.isinf(left) else f" {left:.0f} s"
                say(
                    f"waits{most} for {self.cgroup.names()} to end; the signal once more kills at"
                    " once"
                )
            pause = min(pause * 1.5, _PAUSES[1])
        return True

    def _insisted(self, seconds: float) -> bool:
        received = signal.sigtimedwait(STOPS, seconds)
        return received is not None and self.isAgain(received)
