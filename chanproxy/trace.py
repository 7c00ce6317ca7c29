"""
Trace points: what channels and containers do, instant by instant, for a viewer of traces.

Off, they cost a look at L{active}, which is L{None}.  Durations are kept as a stack for each track
(a channel, or a container), so that they nest whatever happens.  Knows no files: see
L{chanproxy.manager.recording}.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from attrs import define, field, frozen

CATEGORY = "power"

FLUSH_EVENTS = 4096
"""Events that are kept before they are written."""

active: Tracer | None = None
"""Where trace points go; L{None} while nobody traces.  Read it each time anew."""


@frozen
class Event:
    """
    One trace point.

    @ivar phase: C{B}: a duration begins; C{E}: the innermost one ends; C{i}: an instant.
    @ivar at: nanoseconds, C{CLOCK_BOOTTIME}.
    """

    phase: str
    track: int
    at: int
    name: str
    arguments: dict[str, object]


class Format(Protocol):
    """How a trace is written.  The parts, one after the other, are the file."""

    def begin(self) -> bytes: ...
    def track(self, number: int, name: str) -> bytes: ...
    def events(self, events: list[Event]) -> bytes: ...
    def end(self) -> bytes: ...


@define
class _Track:
    number: int
    name: str
    open: list[str] = field(factory=list)


class Tracer:
    """Takes trace points; ends what is still open when it is closed."""

    def __init__(
        self,
        format: Format,
        write: Callable[[bytes], None],
        nanoseconds: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        """@param write: what takes the file's parts; what it raises comes out of any method."""
        self._format = format
        self._write = write
        self._nanoseconds = nanoseconds
        self._tracks: dict[str, _Track] = {}
        self._numbers = 0
        self._waiting: list[Event] = []
        self._closed = False
        self.count = 0
        write(format.begin())

    def _track(self, name: str) -> _Track:
        track = self._tracks.get(name)
        if track is None:
            self._numbers += 1
            track = self._tracks[name] = _Track(self._numbers, name)
            self._write(self._format.track(track.number, name))
        return track

    def _note(self, phase: str, track: _Track, name: str, **arguments: object) -> None:
        if self._closed:
            return
        self.count += 1
        arguments["channel"] = track.name
        self._waiting.append(Event(phase, track.number, self._nanoseconds(), name, arguments))
        if len(self._waiting) >= FLUSH_EVENTS:
            self.flush()

    def _begin(self, track: _Track, name: str, **arguments: object) -> None:
        track.open.append(name)
        self._note("B", track, name, **arguments)

    def _end(self, track: _Track, down: int = 1) -> None:
        """End durations until only the C{down} outermost are open."""
        while len(track.open) > down:
            self._note("E", track, track.open.pop())

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._write(self._format.events(waiting))

    def close(self) -> None:
        """End all that is open, and write the rest.  Idempotent; later trace points are ignored."""
        if self._closed:
            return
        for track in self._tracks.values():
            self._end(track, 0)
        self._closed = True
        self.flush()
        self._write(self._format.end())

    # Channels

    def _channel(self, name: str) -> _Track:
        track = self._track(name)
        if not track.open:
            self._begin(track, "loop")
        return track

    def channelEntered(self, name: str) -> None:
        """A channel proxy begins."""
        self._note("i", self._channel(name), "loop enter")

    def channelWaiting(self, name: str) -> None:
        """Nothing is left to carry now."""
        track = self._channel(name)
        if track.open[-1] != "wait for messages":
            self._begin(track, "wait for messages")

    def channelReady(self, name: str, what: str) -> None:
        """@param what: C{container readable} or C{remote readable}; or writable again."""
        track = self._channel(name)
        self._end(track)
        self._note("i", track, what)

    def forwarding(self, name: str, towards: str, messages: int) -> None:
        """Messages begin to be carried.  @param towards: C{to} or C{from} the container."""
        track = self._channel(name)
        self._end(track)
        self._begin(track, "forward message", towards=towards, messages=messages)

    def forwarded(self, name: str) -> None:
        """They are carried, or it is known that they cannot be now."""
        self._end(self._channel(name))

    def counted(self, name: str, count: int) -> None:
        """The counter was added to."""
        self._note("i", self._channel(name), "counter incremented", count=count)

    def channelFailed(self, name: str, towards: str, why: str) -> None:
        """A wait, a read or a write has failed."""
        self._note("i", self._channel(name), "result error", towards=towards, error=why)

    def channelExited(self, name: str) -> None:
        """A channel proxy has ended."""
        track = self._channel(name)
        self._end(track)
        self._note("i", track, "loop exit")
        self._end(track, 0)
        del self._tracks[name]

    # Containers

    def stateChanged(self, container: str, state: str, reason: str) -> None:
        """A container is awake, suspending, asleep or resuming, from now on."""
        track = self._track(f"container {container}")
        if state == "awake":
            self._end(track, 0)
            return
        if not track.open:
            self._begin(track, "suspend")
        self._end(track)
        words = {"suspending": "freeze", "asleep": "asleep", "resuming": "thaw"}
        if reason:
            self._begin(track, words[state], reason=reason)
        else:
            self._begin(track, words[state])
