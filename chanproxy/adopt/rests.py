"""
Rests: what is left of times that the kernel counts anew after a freeze.

When a freeze interrupts C{select}, C{pselect6} or C{ppoll}, the kernel writes what is left into the
program's memory, and at the thaw the call begins anew with what stands there.  The time asleep has
to be taken off.  Knows memory by its descriptor; knows nothing of threads.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

from attrs import frozen

from chanproxy.adopt.decode import Rest

_SECOND = 1_000_000_000


@frozen
class _Left:
    memory: int
    rest: Rest
    end: int
    written: Callable[[int], None]


class Rests:
    """Those of one sleep."""

    def __init__(self) -> None:
        self._memories: dict[int, int] = {}
        self._all: list[_Left] = []

    def add(
        self, pid: int, thread: int, rest: Rest, end: int, written: Callable[[int], None]
    ) -> None:
        """
        See to one.

        @param thread: a living one of the process.
        @param end: nanoseconds (C{CLOCK_MONOTONIC}) when the wait is over.
        @param written: called with the nanoseconds that were left.
        @raise OSError: the process's memory cannot be written, or we are out of descriptors.
        """
        memory = self._memories.get(pid)
        if memory is None:
            memory = self._memories[pid] = os.open(f"/proc/{pid}/task/{thread}/mem", os.O_RDWR)
        self._all.append(_Left(memory, rest, end, written))

    def write(self) -> None:
        """Right before the thaw.  Idempotent."""
        every, self._all = self._all, []
        now = time.monotonic_ns()
        for left in every:
            nanoseconds = max(left.end - now, 0)
            seconds, part = divmod(nanoseconds, _SECOND)
            # Rounded up: whoever asked for a time may rely on it.
            words = struct.pack("=qq", seconds, -(-part // left.rest.unit))
            try:
                os.pwrite(left.memory, words, left.rest.address)
            except OSError:
                # It is being killed.
                continue
            left.written(nanoseconds)

    def close(self) -> None:
        """Give back the descriptors.  Idempotent."""
        for memory in self._memories.values():
            os.close(memory)
        self._memories.clear()
        self._all.clear()
