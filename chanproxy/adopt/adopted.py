"""
Adopted: duplicates of what a frozen container waits on, in one epoll; they live for one sleep.

Duplicates are polled and never read, are not inherited, and are never handed out.  Knows nothing of
how they were found.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection, Sequence

from attrs import define, frozen
from twisted.logger import Logger

from chanproxy.adopt.deadlines import Timed
from chanproxy.adopt.explaining import Explainer, Origin, insideOf
from chanproxy.adopt.reading import Reading
from chanproxy.adopt.rests import Rests
from chanproxy.adopt.subject import StillBusy
from chanproxy.adopt.threads import Gone
from chanproxy.kernel import calls
from chanproxy.kernel.foreign import closeDuplicate, closeLast
from chanproxy.wake.source import WakeSource

_log = Logger()

Places = Collection[tuple[int, int]]
"""Descriptors of processes."""


@frozen
class Room:
    """
    How many descriptors may be adopted.

    @ivar more: what to do about it when that is not enough.
    @ivar spare: how many a look may open for itself, and close again.
    """

    count: int
    more: str = "raise limits.wake-sources"
    spare: int = 2**30


@define
class _Own:
    """
    A duplicate.

    @ivar social: its peer would see it closed.
    @ivar place: the process and the descriptor that it is of; None for what is ours.
    """

    source: WakeSource
    social: bool
    place: tuple[int, int] | None
    released: Callable[[], None] = lambda: None


class Adopted:
    """
    The adopted sources of one sleep.

    @ivar room: descriptors that it may hold.
    @ivar label: which of the container's own times wakes it; empty for none.
    @ivar whose: the process and thread that wait for that.
    @ivar rests: what is left of times that the kernel counts anew when the container runs again.
    @ivar thawing: called before the container runs again, with processes and their descriptors:
        those that are ready, and all that are watched.
    @ivar endNow: called right before the thaw: ends those waits whose time has come.
    @ivar watchdog: seconds within which a process has to report to a watchdog; None: none does.
    """

    def __init__(self, room: Room, reading: Reading | None = None) -> None:
        """
        @param reading: the container's.
        @raise OSError: out of descriptors.
        """
        self.room = room
        self.epoll = select.epoll()
        self.label = ""
        self.whose: tuple[int, int] | None = None
        self.rests = Rests(reading)
        self.thawing: Callable[[Places, Places], None] | None = None
        self.endNow: Callable[[bool], None] = lambda breath: None
        self.watchdog: float | None = None
        self._at: int | None = None
        self._own: dict[int, _Own] = {}
        # Kept when everything is closed.
        self._origins: dict[WakeSource, Origin] = {}

    def wakeAt(self, time: Timed) -> None:
        """The container is to be woken at a time that a thread of it waits for."""
        self._at, self.label, self.whose = time.at, time.label, (time.pid, time.tid)

    def within(self) -> float | None:
        """Seconds from now until that time; None without one."""
        return None if self._at is None else max((self._at - time.monotonic_ns()) / 1e9, 0.0)

    def __len__(self) -> int:
        return len(self._own)

    def expectRoom(self) -> None:
        """@raise StillBusy: there is none for one more."""
        if len(self) >= self.room.count:
            raise StillBusy(
                f"busy: it waits on more than {self.room.count} descriptors; {self.room.more}"
            )

    @property
    def sources(self) -> list[WakeSource]:
        """In the order in which they were found."""
        return [own.source for own in self._own.values()]

    def add(
        self,
        name: str,
        descriptor: int,
        events: int,
        social: bool,
        origin: Origin | None = None,
        released: Callable[[], None] = lambda: None,
        ours: bool = False,
    ) -> None:
        """
        Poll a descriptor.

        @param descriptor: owned by this object from now on, whatever happens.
        @param social: it is closed before the container runs again, so that a close by the
            container is the last one.
        @param origin: where it was found.
        @param released: called when the descriptor is closed.
        @param ours: it is no duplicate of the container's.
        @raise OSError: it cannot be polled.
        """
        source = WakeSource(name, descriptor, events, adopted=True)
        if origin is not None:
            self._origins[source] = origin
        place = None if origin is None or ours else (origin.pid, origin.descriptor)
        self._own[descriptor] = _Own(source, social, place, released)
        try:
            self.epoll.register(descriptor, events)
        except BaseException:
            self._close(descriptor)
            raise

    def _close(self, descriptor: int) -> None:
        own = self._own.pop(descriptor)
        own.released()
        if own.place is None:
            os.close(descriptor)
        elif calls.isSameFile(*own.place, descriptor):
            closeDuplicate(descriptor)
        else:
            # Killed meanwhile, most often: ours is the last, with all that is in its queue.
            closeLast(descriptor)

    def poll(self) -> list[WakeSource]:
        """Those that are signalled now."""
        if self.epoll.closed or not self._own:
            return []
        ready = self.epoll.poll(0, len(self._own))
        return [self._own[fd].source for fd, _ in ready if fd in self._own]

    def inside(self, source: WakeSource, until: float) -> tuple[list[str], int]:
        """
        What is in a source that is an epoll: the first ones in words, and how many there are.

        @param until: see L{insideOf}.
        """
        origin = self._origins.get(source)
        if origin is None or not origin.members:
            return [], 0
        try:
            return insideOf(origin, until), len(origin.members)
        except (OSError, Gone):
            return [], len(origin.members)

    def explain(self, signalled: Sequence[WakeSource], wokenAt: int) -> list[str]:
        """
        The names of sources that woke the container, with who is at the other end.

        Call it some milliseconds after the thaw, and never before; everything may be closed.  Takes
        two milliseconds of processor time at most, raises nothing, and leaves nothing open.

        @param signalled: those that were.
        @param wokenAt: when that was seen: nanoseconds (C{CLOCK_MONOTONIC}).
        @return: as many; the old name where nothing better is known.
        """
        explainer = Explainer(wokenAt)
        return [self._explained(source, explainer) for source in signalled]

    def _explained(self, source: WakeSource, explainer: Explainer) -> str:
        origin = self._origins.get(source)
        if origin is None:
            return source.name
        try:
            better = explainer.explain(origin)
        except (OSError, Gone):
            # It has ended, or closed what it was.
            better = None
        except Exception:
            # A name is not worth more than the wake that it is for.
            _log.failure("what woke a container cannot be explained")
            better = None
        if better is None:
            return source.name
        return f"{source.name.removesuffix(str(origin.description))}{better}"

    def beforeThaw(self, breath: bool = False) -> None:
        """
        Close what others would see open, and write down what is left of times; right before the
        container runs again.  Idempotent.
        """
        thawing, self.thawing = self.thawing, None
        if thawing is not None:
            thawing(self._placesOf(self.poll()), self._placesOf(self.sources))
        self.endNow(breath)
        self.rests.write()
        # Closing a duplicate takes it out of no epoll while the container has its own: the epoll is
        # closed next, and holds nothing open by itself.
        for fd in [fd for fd, own in self._own.items() if own.social]:
            self._close(fd)

    def _placesOf(self, sources: Sequence[WakeSource]) -> Places:
        origins = map(self._origins.get, sources)
        return {(origin.pid, origin.descriptor) for origin in origins if origin is not None}

    def drop(self) -> None:
        """Close all duplicates, and go on with the time alone.  Idempotent."""
        for fd in list(self._own):
            self.epoll.unregister(fd)
            self._close(fd)

    def close(self) -> None:
        """Close everything.  Idempotent."""
        for fd in list(self._own):
            self._close(fd)
        self.epoll.close()
        self.rests.close()


@frozen
class Place:
    """
    Where what a container waits on is adopted.

    @ivar room: how many descriptors may be adopted now.
    @ivar attach: called with what will be filled by a look, so that it is polled already.
    """

    room: Callable[[], Room]
    attach: Callable[[Adopted], None]

    def begin(self, reading: Reading) -> Adopted:
        """
        What a look will fill.

        @raise StillBusy: out of descriptors.
        """
        try:
            adopted = Adopted(self.room(), reading)
            self.attach(adopted)
        except OSError as error:
            raise StillBusy(f"out of descriptors: {error.strerror}") from error
        return adopted
