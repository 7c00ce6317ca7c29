"""A program that tells of signals when the test says so, in place of the kernel's."""

from __future__ import annotations

import errno
import os
from typing import Self

from chanproxy.container.bpf.signals import Unavailable


class FakeProgram:
    """
    See L{SignalProgram}.

    @ivar loaded: how many times.
    @ivar closed: likewise.
    @ivar fails: what loading fails with.
    @ivar lost: the next read says that something is lost.
    @ivar most: what each read was asked for.
    """

    def __init__(self, most: int = 100) -> None:
        """@param most: so many processes have room."""
        self._room = most
        self._records: list[tuple[int, int | None]] = []
        self._fd = -1
        self.processes: set[int] = set()
        self.cleared: list[int] = []
        self.fails: Unavailable | None = None
        self.lost = False
        self.loaded = self.closed = 0
        self.most: list[int] = []

    def load(self) -> Self:
        """Load it."""
        self.loaded += 1
        if self.fails is not None:
            raise self.fails
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return self

    def signal(self, pid: int, tid: int | None) -> None:
        """It has something to tell."""
        assert pid in self.processes
        self._records.append((pid, tid))
        os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        """See L{SignalProgram}."""
        return self._fd

    def add(self, pid: int) -> None:
        """See L{SignalProgram}."""
        if len(self.processes) >= self._room:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self.processes.add(pid)

    def clear(self, pid: int) -> None:
        """See L{SignalProgram}."""
        self.cleared.append(pid)

    def remove(self, pid: int) -> None:
        """See L{SignalProgram}."""
        self.processes.remove(pid)

    def read(self, most: int) -> tuple[list[tuple[int, int | None]], bool]:
        """See L{SignalProgram}."""
        self.most.append(most)
        found, self._records = self._records[:most], self._records[most:]
        if not self._records:
            os.eventfd_read(self._fd)
        lost, self.lost = self.lost, False
        return found, lost

    def close(self) -> None:
        """See L{SignalProgram}."""
        self.closed += 1
        self.processes.clear()
        self._records = []
        os.close(self._fd)
