"""
Rests: what is left of times that the kernel counts anew after a freeze.

When a freeze interrupts C{select}, C{pselect6} or C{ppoll}, the kernel writes what is left into the
program's memory, and at the thaw the call begins anew with what stands there.  The time asleep has
to be taken off.  Knows processes and addresses; knows nothing of waits.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable

from attrs import frozen

from chanproxy.adopt.reading import Reading
from chanproxy.adopt.waits import Rest

_SECOND = 1_000_000_000


@frozen
class _Left:
    thread: int
    pidfd: int
    rest: Rest
    end: int
    written: Callable[[int], None]


class Rests:
    """What is left of the times that a freeze has cut, in one sleep."""

    def __init__(self, reading: Reading | None = None) -> None:
        """@param reading: the container's."""
        self._reading = reading or Reading()
        self._pidfds: dict[int, int] = {}
        self._all: list[_Left] = []

    def add(
        self, pid: int, thread: int, rest: Rest, end: int, written: Callable[[int], None]
    ) -> None:
        """
        See to one.

        @param thread: a living one of the process.
        @param end: nanoseconds (C{CLOCK_MONOTONIC}) when the wait is over.
        @param written: called with the nanoseconds that were left.
        @raise OSError: the process has ended, or we are out of descriptors.
        """
        pidfd = self._pidfds.get(pid)
        if pidfd is None:
            pidfd = self._pidfds[pid] = os.pidfd_open(pid)
        self._all.append(_Left(thread, pidfd, rest, end, written))

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
                # Its number may be another one's by now.
                signal.pidfd_send_signal(left.pidfd, 0)
                self._reading.write(left.thread, left.rest.address, words)
            except OSError:
                # It is being killed, or nobody answers for its memory.
                continue
            left.written(nanoseconds)

    def close(self) -> None:
        """Give back the descriptors.  Idempotent."""
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pidfds.clear()
        self._all.clear()
