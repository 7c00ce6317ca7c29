"""
Adopted: duplicates of what a frozen container waits on, in one epoll; they live for one sleep.

Duplicates are polled and never read, are not inherited, and are never handed out.  Knows nothing of
how they were found.
"""

from __future__ import annotations

import os
import select
import time

from attrs import define

from chanproxy.adopt.deadlines import Timed
from chanproxy.adopt.rests import Rests
from chanproxy.wake import WakeSource


@define
class _Own:
    """A duplicate, and whether its peer would see it closed."""

    source: WakeSource
    social: bool


class Adopted:
    """
    The adopted sources of one sleep.

    @ivar limit: descriptors that it may hold.
    @ivar label: which of the container's own times wakes it; empty for none.
    @ivar whose: the process and thread that wait for that.
    @ivar rests: what is left of times that the kernel counts anew when the container runs again.
    @ivar watchdog: seconds within which a process has to report to a watchdog; None: none does.
    """

    def __init__(self, limit: int) -> None:
        """@raise OSError: out of descriptors."""
        self.limit = limit
        self.epoll = select.epoll()
        self.label = ""
        self.whose: tuple[int, int] | None = None
        self.rests = Rests()
        self.watchdog: float | None = None
        self._at: int | None = None
        self._own: dict[int, _Own] = {}

    def wakeAt(self, time: Timed) -> None:
        """The container is to be woken at a time that a thread of it waits for."""
        self._at, self.label, self.whose = time.at, time.label, (time.pid, time.tid)

    def within(self) -> float | None:
        """Seconds from now until that time; None without one."""
        return None if self._at is None else max((self._at - time.monotonic_ns()) / 1e9, 0.0)

    def __len__(self) -> int:
        return len(self._own)

    @property
    def sources(self) -> list[WakeSource]:
        """In the order in which they were found."""
        return [own.source for own in self._own.values()]

    def add(self, name: str, descriptor: int, events: int, social: bool) -> None:
        """
        Poll a descriptor.

        @param descriptor: owned by this object from now on, whatever happens.
        @param social: it is closed before the container runs again, so that a close by the
            container is the last one.
        @raise OSError: it cannot be polled.
        """
        self._own[descriptor] = _Own(WakeSource(name, descriptor, events, adopted=True), social)
        try:
            self.epoll.register(descriptor, events)
        except BaseException:
            del self._own[descriptor]
            os.close(descriptor)
            raise

    def poll(self) -> list[WakeSource]:
        """Those that are signalled now."""
        if self.epoll.closed or not self._own:
            return []
        ready = self.epoll.poll(0, len(self._own))
        return [self._own[fd].source for fd, _ in ready if fd in self._own]

    def beforeThaw(self) -> None:
        """
        Close what others would see open, and write down what is left of times; right before the
        container runs again.  Idempotent.
        """
        self.rests.write()
        # Closing a duplicate takes it out of no epoll while the container has its own: the epoll is
        # closed next, and holds nothing open by itself.
        for fd in [fd for fd, own in self._own.items() if own.social]:
            del self._own[fd]
            os.close(fd)

    def drop(self) -> None:
        """Close all duplicates, and go on with the time alone.  Idempotent."""
        for fd in self._own:
            self.epoll.unregister(fd)
            os.close(fd)
        self._own.clear()

    def close(self) -> None:
        """Close everything.  Idempotent."""
        for fd in self._own:
            os.close(fd)
        self._own.clear()
        self.epoll.close()
        self.rests.close()
