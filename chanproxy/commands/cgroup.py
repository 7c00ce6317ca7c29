"""
The cgroup of a command: what is in it, and how that is told to end, killed, and it removed.

Blocking, and by the kernel's files alone.  Knows nothing of what freezes it, and when.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from chanproxy.commands.owners import removeAbove, unmarkOwner
from chanproxy.commands.removing import EMPTYING, killAll, removeEmptied
from chanproxy.commands.rights import explained
from chanproxy.freezers.files import cgroupsFrom, processesIn, readLines
from chanproxy.freezers.marks import marked, unmark
from chanproxy.freezers.mounts import cgroupMounts, findCgroup
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.processes import ProcessStatus, maskOf, startTime

SHOWN = 8
"""Processes that are named."""

_MOST = 1 << 22
"""Processes of one cgroup: C{PID_MAX_LIMIT} of C{linux/threads.h}, more cannot be."""


class CommandFailed(Exception):
    """A command was not started; nothing is left behind.  The text says why."""


class CommandCgroup:
    """
    A cgroup, and what a command has in it.  It is a path for C{os}.

    @ivar directory: of the cgroup.
    @ivar spec: what people write for it.
    @ivar mount: that it is below.
    @ivar made: which cgroups were made for it, itself and some above.
    @ivar kept: those that were there before, itself and some inside, and are to stay.
    """

    def __init__(self, path: str) -> None:
        """
        It need not be there, and is not looked at.

        @param path: absolute below any cgroup v2 mount, or relative to the first one.
        @raise CommandFailed: it can be none.
        """
        self.spec = f"cgroup:{path}"
        self.made: list[str] = []
        self.kept: Collection[str] = ()
        self._told: set[tuple[int, int, int]] = set()
        try:
            self.directory, self.mount = findCgroup(path, cgroupMounts())
        except FreezerError as error:
            raise CommandFailed(str(error)) from error

    def __fspath__(self) -> str:
        return self.directory

    def cannot(self, what: str, error: OSError) -> str:
        """In words, with the ways to get the right to."""
        user = f"{self.spec}: user {os.geteuid()} cannot {what}"
        if error.errno == errno.EBUSY:
            return (
                f"{user}: it has controllers for cgroups inside it (cgroup.subtree_control); name"
                " one inside it"
            )
        return explained(user, error)

    @contextlib.contextmanager
    def entering(self) -> Iterator[Callable[[], None]]:
        """
        What moves a child into it, between fork and exec: nothing of its program begins outside.

        @raise CommandFailed: the child may not be moved there.
        """
        what = "start a program in it"
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            try:
                procs = os.open(os.path.join(self.directory, "cgroup.procs"), os.O_WRONLY)
            except OSError as error:
                raise CommandFailed(self.cannot(what, error)) from error
            stack.callback(os.close, procs)

            def enter() -> None:
                try:
                    os.write(procs, b"0")
                except OSError as error:
                    # All that subprocess says of it is that there was an exception.
                    os.write(writer, str(error.errno).encode())
                    raise

            try:
                yield enter
            except subprocess.SubprocessError as error:
                with contextlib.suppress(BlockingIOError):
                    number = int(os.read(reader, 16))
                    text = self.cannot(what, OSError(number, os.strerror(number)))
                    raise CommandFailed(text) from error
                raise

    @property
    def populated(self) -> bool:
        """Whether a process is in it, or in one inside it."""
        return "populated 1" in readLines(os.path.join(self.directory, "cgroup.events"))

    def processes(self) -> list[int]:
        """Those in it and in those inside it, as far as they can be seen from here."""
        found: dict[int, None] = {}
        for directory in cgroupsFrom(self.directory):
            with contextlib.suppress(OSError):
                found.update(dict.fromkeys(processesIn(directory, _MOST)))
        found.pop(0, None)
        return [*found]

    def names(self) -> str:
        """Its processes, for people."""
        pids = self.processes()
        shown = []
        for pid in pids[:SHOWN]:
            with contextlib.suppress(OSError):
                status = ProcessStatus.read(pid)
                shown.append(f"{status.name if status else '?'}[{pid}]")
        more = len(pids) - SHOWN
        return (", ".join(shown) or "none is seen") + (f" and {more} more" if more > 0 else "")

    def tell(
        self,
        number: int,
        but: Callable[[int], bool] = lambda pid: False,
        also: Iterable[int] = (),
    ) -> None:
        """
        Send a signal to each process, unless it was sent to it before; SIGTERM to those that ignore
        a SIGINT.

        @param but: whether a process has it already.
        @param also: processes that may be elsewhere.
        """
        for pid in {*self.processes(), *also}:
            with contextlib.suppress(OSError):
                told = (pid, startTime(pid), number)
                if told in self._told:
                    continue
                self._told.add(told)
                if but(pid):
                    continue
                status = ProcessStatus.read(pid)
                ignores = status is not None and status.ignored & maskOf(number)
                # As what a shell has started in the background does.
                os.kill(pid, signal.SIGTERM if ignores and number == signal.SIGINT else number)
                if status is not None and status.state == "T":
                    # It handles it when it goes on.
                    os.kill(pid, signal.SIGCONT)

    def thaw(self, ours: bool = False) -> None:
        """
        A frozen process handles no signal but SIGKILL.

        @param ours: not if somebody else has paused it.
        """
        with contextlib.suppress(OSError):
            opened = os.open(os.path.join(self.directory, "cgroup.freeze"), os.O_WRONLY)
            try:
                if not ours or marked(opened) is not False:
                    os.write(opened, b"0")
                    unmark(opened)
            finally:
                os.close(opened)

    def kill(self) -> None:
        """All that is in it, at once."""
        killAll(self.directory)
        self.thaw()

    def remove(self) -> str | None:
        """
        Remove what was made, once it is empty: it, those inside it, and those above it that nobody
        else uses.  One that was there before stays.

        @return: why one is left, in words.
        """
        left = removeEmptied(self.directory, time.monotonic() + EMPTYING, self.kept)
        if left:
            return f"{left}; in it: {self.names()}"
        if self.kept:
            unmarkOwner(self.directory)
        removeAbove(self.directory, self.made)
        return None
