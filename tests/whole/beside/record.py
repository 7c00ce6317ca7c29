"""
One thread that stamps what programs say, and looks which containers are frozen.

Knows neither programs nor what is said.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.whole.beside.compare import Sleep

PERIOD = 0.02
"""Seconds between two looks."""

Heard = Callable[[float, str], None]


class Recorder:
    """
    The thread; it runs until it is closed.

    @ivar stall: the most that a look came late, in seconds.
    """

    def __init__(self) -> None:
        self.stall = 0.0
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()
        self._added: list[tuple[int, Heard, bytes]] = []
        self._watched: list[tuple[int, Sleep]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def add(self, fd: int, heard: Heard, ends: str) -> None:
        """
        Have lines or packets heard.

        @param fd: taken, and closed by L{close}.
        @param heard: called in the thread, with a time and a line.
        @param ends: what is put after what was read at once.
        """
        os.set_blocking(fd, False)
        # The thread is never in two minds about the selector: only it changes that.
        self._added.append((fd, heard, ends.encode()))

    def watch(self, cgroup: str) -> Sleep:
        """Look from now on whether a cgroup is frozen."""
        sleep = Sleep()
        path = os.path.join(cgroup, "cgroup.events")
        self._watched.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), sleep))
        return sleep

    def _run(self) -> None:
        partial: dict[int, bytes] = {}
        due = time.monotonic() + PERIOD
        while not self._ended.is_set():
            while self._added:
                fd, heard, ends = self._added.pop(0)
                self._selector.register(fd, selectors.EVENT_READ, (heard, ends))
                partial[fd] = b""
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._read(key, partial)
            now = time.monotonic()
            if now >= due:
                self.stall = max(self.stall, now - due)
                for fd, sleep in list(self._watched):
                    sleep.saw(b"frozen 1" in os.pread(fd, 200, 0), time.monotonic())
                due = max(due + PERIOD, now)

    def _read(self, key: selectors.SelectorKey, partial: dict[int, bytes]) -> None:
        at = time.monotonic()
        try:
            data = os.read(key.fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(key.fd)
            os.close(key.fd)
            del partial[key.fd]
            return
        heard, ends = key.data
        *lines, partial[key.fd] = (partial[key.fd] + data + ends).split(b"\n")
        for line in lines:
            heard(at, line.decode(errors="replace"))

    def close(self) -> None:
        """Stop.  Idempotent."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        for fd in [*(added[0] for added in self._added), *(fd for fd, _ in self._watched)]:
            os.close(fd)
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
