"""
Recording: a trace on its way into a file, and Chrome's format of such a file.

Knows the trace points, and nothing of what they are set in.
"""

from __future__ import annotations

import json
import os

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy import trace
from chanproxy.kernel.foreign import closeForeign

FLUSH_SECONDS = 0.5


class ChromeFormat:
    """Chrome's JSON: an array of events, as Perfetto's viewer and C{chrome://tracing} load it."""

    def begin(self) -> bytes:
        """The process's name comes first."""
        return b"[\n" + self._metadata("process_name", 0, "chanproxy").rstrip(b",\n")

    def _metadata(self, what: str, track: int, name: str) -> bytes:
        event = {"ph": "M", "name": what, "pid": 1, "tid": track, "args": {"name": name}}
        return json.dumps(event).encode()

    def track(self, number: int, name: str) -> bytes:
        """A thread's name, to the viewer."""
        return b",\n" + self._metadata("thread_name", number, name)

    def events(self, events: list[trace.Event]) -> bytes:
        """A line each; times are microseconds."""
        lines = []
        for event in events:
            shape: dict[str, object] = {
                "ph": event.phase,
                "cat": trace.CATEGORY,
                "name": event.name,
                "pid": 1,
                "tid": event.track,
                "ts": event.at / 1000,
                "args": event.arguments,
            }
            if event.phase == "i":
                shape["s"] = "t"
            lines.append(",\n" + json.dumps(shape))
        return "".join(lines).encode()

    def end(self) -> bytes:
        """A viewer does without it, too: a trace that was cut off still loads."""
        return b"\n]\n"


class TooLarge(Exception):
    """The limit of a trace's size is reached."""


class Recording:
    """
    A trace on its way into a file; the only one of this process, while it is L{trace.active}.

    @ivar bytes: written so far.
    @ivar complete: false when it ended early: the limit was reached, or the file failed.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, format: trace.Format, descriptor: int, limit: int
    ) -> None:
        """
        Begin.

        @param descriptor: of a regular file, which does not make us wait; owned by this object.
        @param limit: bytes, after which it ends.
        """
        assert trace.active is None
        self._clock = clock
        self._descriptor = descriptor
        self._limit = limit
        self.bytes = 0
        self.complete = True
        self._timer: IDelayedCall | None = clock.callLater(FLUSH_SECONDS, self._tick)
        self.tracer = trace.active = trace.Tracer(format, self._write)

    def _write(self, data: bytes) -> None:
        # A trace point must not fail for want of room: the trace ends instead.
        if not self.complete:
            return
        try:
            if self.bytes + len(data) > self._limit:
                raise TooLarge(f"more than {self._limit} bytes; raise limits.trace-bytes")
            view = memoryview(data)
            while view:
                written = os.write(self._descriptor, view)
                self.bytes += written
                view = view[written:]
        except (OSError, TooLarge) as error:
            self.complete = False
            self._log.warn("the trace ends early: {error}", error=error)
            if trace.active is not None and trace.active is getattr(self, "tracer", None):
                trace.active = None

    def _tick(self) -> None:
        self._timer = self._clock.callLater(FLUSH_SECONDS, self._tick)
        self.tracer.flush()

    def stop(self) -> None:
        """End the trace and close its file.  Idempotent."""
        if self._descriptor < 0:
            return
        if trace.active is self.tracer:
            trace.active = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.tracer.close()
        closeForeign([self._descriptor])
        self._descriptor = -1
