"""
SignalTrace: is told by the kernel of signals to frozen processes, where that can be done.

One for all containers of a service.  Knows processes, and nothing of whether a signal is a reason
to wake.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger, LogLevel

from chanproxy.container.bpf.signals import SignalProgram, Unavailable
from chanproxy.kernel.poller import Poller

AT_ONCE = 256
"""Records that are read in one turn; with more, the others come in the next."""

Told = Callable[[int, int | None], None]
"""Called with a process, and the thread that signals came for: its own id when for all of it, None
when for several, or when it is not known that any came."""


class Program(Protocol):
    """See L{SignalProgram}."""

    def fileno(self) -> int:
        """A descriptor that is readable while there is something to read."""

    def add(self, pid: int) -> None:
        """Tell of this process."""

    def clear(self, pid: int) -> None:
        """Tell of it anew."""

    def remove(self, pid: int) -> None:
        """Tell of it no more."""

    def read(self, most: int) -> tuple[list[tuple[int, int | None]], bool]:
        """What there is to tell, and whether some of it is lost."""

    def close(self) -> None:
        """Give it back."""


class SignalTrace:
    """Who is told of signals to which process."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet, load: Callable[[], Program] = SignalProgram) -> None:
        """
        Nothing is opened before it is needed.

        @param load: loads the program; fails with L{Unavailable}.
        """
        self._load = load
        self._poller = Poller(reactor)
        self._program: Program | None = None
        self._told: dict[int, Told] = {}
        self._said = False
        self._why = ""

    @property
    def available(self) -> bool:
        """Whether the kernel tells of signals here; the first to ask waits for 20 ms."""
        return self._opened() is not None

    def watch(self, pids: Iterable[int], told: Told) -> bool:
        """
        Tell of signals to these processes that come from now on.

        What is told must be acknowledged, L{clear}, and looked at after that; all that comes in
        between is told of once.

        @param told: never called from within this.
        @return: whether all of them are told of; if not, none is.
        """
        program = self._opened()
        if program is None:
            return False
        added: list[int] = []
        for pid in pids:
            if pid in self._told:
                # In two containers; one of them has it.
                break
            try:
                program.add(pid)
            except OSError as error:
                self._say(error)
                break
            self._told[pid] = told
            added.append(pid)
        else:
            return True
        self.unwatch(added)
        return False

    def unwatch(self, pids: Iterable[int]) -> None:
        """Tell of them no more.  Harmless for one that is not watched."""
        for pid in pids:
            if self._told.pop(pid, None) is not None and self._program is not None:
                self._program.remove(pid)

    def clear(self, pid: int) -> None:
        """A look at it follows: tell anew of what comes from now on."""
        if self._program is not None:
            self._program.clear(pid)

    def close(self) -> None:
        """Tell of nothing any more, and give back all.  Idempotent; L{watch} opens it again."""
        self._told.clear()
        program, self._program = self._program, None
        if program is not None:
            self._poller.unwatch(program.fileno())
            program.close()

    def _opened(self) -> Program | None:
        if self._program is not None or self._why:
            return self._program
        try:
            program = self._load()
        except Unavailable as error:
            # What was short may be there the next time.
            self._why = "" if error.forNow else str(error)
            self._say(error)
            return None
        try:
            self._poller.watch(program.fileno(), select.EPOLLIN, self._readable)
        except OSError as error:
            program.close()
            self._say(error)
            return None
        self._program = program
        return program

    def _readable(self, _: int) -> None:
        if self._program is None:
            return
        records, lost = self._program.read(AT_ONCE)
        for pid, tid in [(pid, None) for pid in self._told] if lost else records:
            # Whoever is told may watch others after that, or none, or close this.
            told = self._told.get(pid)
            if told is None:
                continue
            try:
                told(pid, tid)
            except Exception:
                # The others are told all the same.
                text = "who is told of signals to process {pid} failed"
                self._log.failure(text, level=LogLevel.error, pid=pid)

    def _say(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            why = (
                "signals to sleeping containers are looked for, not told of by the kernel: {error}"
            )
            self._log.info(why, error=error)
