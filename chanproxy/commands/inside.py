"""
What C{chanproxy watch} does whoever freezes the container: its program, and what it prints.

Knows no service.  It is loaded by a process that stays small, and so loads neither Twisted nor
click.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from chanproxy.commands.cgroup import CommandCgroup, CommandFailed
from chanproxy.commands.children import PASSED, passOn, startChild
from chanproxy.commands.stopping import STOPS, Stopping, say
from chanproxy.commands.taking import takeCgroup
from chanproxy.words import LINGERING, safe

LOOK = 1.0
"""Seconds between looks at why it is awake."""


def handled(command: Sequence[str]) -> Sequence[int]:
    """
    The signals that are taken care of.

    @param command: the program, if there is one.
    """
    if command:
        # It goes on itself, that is no word to the program.
        return [each for each in PASSED if each != signal.SIGCONT]
    # With nohup(1) it is to outlive its terminal.
    hangup = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGHUP, *STOPS) if hangup else STOPS


def nameOf(freezer: str, most: int = 1) -> str:
    """
    A name that can be one, made of the path.

    @param most: how many of its last parts are in it.
    """
    parts = [_kept(part) for part in freezer.rpartition(":")[2].split("/")]
    name = "-".join([part for part in parts if part][-most:])
    return name if name.isascii() and name else "container"


def _kept(part: str) -> str:
    return "".join(character for character in part if character.isalnum() or character in "._-")


def complain(text: str) -> None:
    """Why there is nothing to watch."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print("\n".join(map(safe, text.splitlines())), file=sys.stderr, flush=True)


class Printer:
    """Prints a line per change, and why it is awake, when that is another reason than before."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._why = ""

    def state(self, state: str, reasons: str = "") -> None:
        """
        It has changed.

        @param reasons: what has woken it, with commas; if anything.
        """
        woken = state == "awake" and reasons
        self._print(f"{state}, woken by {reasons}" if woken else state)

    def why(self, why: str) -> None:
        """What keeps it awake; empty: nothing does."""
        # Which thread it is, and how much, changes all the time.
        gist = "".join(character for character in why if not character.isdigit())
        if why and why != LINGERING and gist != self._why:
            self._why = gist
            self._print(f"awake: {why}")

    def _print(self, text: str) -> None:
        try:
            print(safe(f"{self._name}: {text}"), flush=True)
        except OSError:
            # Whoever has read it has gone, with a terminal or a pipe: the container is to go on.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Program:
    """
    The program, and its cgroup.

    @ivar pidfd: readable when it has ended; -1 before it is started.
    @ivar stopping: of all that is in its cgroup.
    """

    def __init__(self, freezer: str, grace: float, replace: bool) -> None:
        """
        Take the cgroup.

        @param grace: seconds that what is told to end may take.
        @param replace: end first what a killed one has left.
        @raise CommandFailed: there is no cgroup for it.
        """
        kind, _, path = freezer.partition(":")
        if kind != "cgroup":
            raise CommandFailed(f"{freezer}: a program is started in a cgroup only: cgroup:PATH")

        def end(left: CommandCgroup) -> None:
            Stopping(left, grace).end()

        self.stopping = Stopping(takeCgroup(path, end if replace else None), grace)
        self._process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1

    def start(self, command: Sequence[str], mask: set[int]) -> None:
        """
        Start it, once.

        @param mask: signals that are held back in it.
        @raise CommandFailed: it may not be started there.
        @raise CannotRun: it did not start.
        """
        with self.stopping.cgroup.entering() as enter:
            self._process = startChild(command, mask, enter)
        self.pidfd = os.pidfd_open(self._process.pid)
        self.stopping.of(self._process)

    def signalled(self, received: signal.struct_siginfo) -> bool:
        """
        A signal has come: it is for the program alone, or for all.

        @return: whether it is told to stop now.
        """
        assert self._process is not None
        if received.si_signo not in STOPS:
            passOn(self._process, received)
        elif not self.stopping.begun:
            self.stopping.begin(received)
            return True
        elif self.stopping.isAgain(received):
            self.stopping.cgroup.kill()
        return False

    def end(self) -> int:
        """
        End it, if need be, and all that it has left; then its cgroup is removed.

        @return: its exit status; 0 if it was not started.
        """
        if self._process is None:
            self._remove()
            return 0
        byItself = not self.stopping.begun and self._process.poll() is not None
        left = self.stopping.cgroup.names() if byItself and self.stopping.cgroup.populated else ""
        status = self.stopping.waitFor(self._process)
        if left:
            say(
                f"the program has ended; what it has left is told to end, too: {left} (one that"
                " goes to the background is to be told to stay)"
            )
        self.stopping.end()
        os.close(self.pidfd)
        self._remove()
        return status

    def _remove(self) -> None:
        why = self.stopping.cgroup.remove()
        if why is not None:
            say(why)
