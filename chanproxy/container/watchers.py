"""
WakeWatchers: who is told that a container has gone asleep or is awake again.

Knows the life cycle's states; knows no protocol.
"""

from __future__ import annotations

import os
import select

from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger
from zope.interface import implementer

from chanproxy.container.suspension import Suspension
from chanproxy.interfaces import IWakeWatcher
from chanproxy.kernel.poller import Poller
from chanproxy.words import listed, safe

WATCHERS = 256
"""Watchers of one container, by default."""

LINE_BYTES = select.PIPE_BUF
"""The longest line on a pipe: what the kernel writes as a whole or not at all, C{pipe(7)}."""


class WatcherGone(Exception):
    """Raised by a watcher that cannot be told: it is too slow, or nobody listens any more."""


class TooManyWatchers(Exception):
    """As many as are allowed are told already."""


class WakeWatchers:
    """
    The watchers of one container.

    From C{suspending} on it is still awake, and while C{resuming} still asleep: they are told of
    what has happened, never of an attempt.

    @ivar limit: how many there may be; may be changed.
    """

    _log = Logger()

    def __init__(self, suspension: Suspension, limit: int = WATCHERS) -> None:
        self.limit = limit
        self._watchers: list[IWakeWatcher] = []
        self._state, self._reasons = "awake", tuple[str, ...]()
        suspension.addWatcher(self._changed)

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, watcher: IWakeWatcher) -> None:
        """
        Tell it the present state now, then each change.

        @raise TooManyWatchers: it is told nothing.
        """
        self.expectOne()
        self._watchers.append(watcher)
        self._tell(watcher)

    def expectOne(self) -> None:
        """@raise TooManyWatchers: there is no room for one more."""
        if len(self._watchers) >= self.limit:
            raise TooManyWatchers(
                f"{self.limit} watchers are told already; end some, or raise limits.wake-watchers"
            )

    def remove(self, watcher: IWakeWatcher) -> None:
        """Tell it no more; its own wish, so it is not told that either.  Idempotent."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def _changed(self, state: str, reasons: tuple[str, ...]) -> None:
        if state in ("awake", "asleep") and state != self._state:
            # Names in it come from everywhere, and each watcher has its own lines to keep apart.
            self._state, self._reasons = state, tuple(map(safe, reasons))
            for watcher in list(self._watchers):
                if watcher in self._watchers:
                    self._tell(watcher)

    def _tell(self, watcher: IWakeWatcher) -> None:
        try:
            watcher.stateChanged(self._state, self._reasons)
        except WatcherGone as gone:
            self._log.info("a wake watcher is dropped: {gone}", gone=gone)
            self._drop(watcher)
        except Exception:
            self._log.failure("a wake watcher failed and is dropped")
            self._drop(watcher)

    def _drop(self, watcher: IWakeWatcher) -> None:
        self.remove(watcher)
        watcher.dropped()

    def close(self) -> None:
        """The container is gone; all are dropped."""
        for watcher in list(self._watchers):
            self._drop(watcher)


@implementer(IWakeWatcher)
class PipeWatcher:
    """
    Writes a line per change into a pipe: the state, and after a space the reason, if there is one.

    For programs that want only a descriptor.  Whoever does not read is dropped when the pipe is
    full; a line is cut at L{LINE_BYTES}.
    """

    def __init__(self, reactor: IReactorFDSet, watchers: WakeWatchers) -> None:
        """
        @raise TooManyWatchers: there are too many.
        @raise OSError: out of descriptors.
        """
        watchers.expectOne()
        self._watchers = watchers
        self.readable, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Set for our end only; the two ends have flags of their own.
        os.set_blocking(self.readable, True)
        self._poller = Poller(reactor)
        try:
            self._poller.watch(self._writing, 0, self._hungUp)
        except OSError:
            os.close(self.readable)
            os.close(self._writing)
            raise
        watchers.add(self)

    @property
    def ended(self) -> bool:
        """Nobody is told any more."""
        return self._writing < 0

    def handOver(self) -> int:
        """The read end, now the caller's; to be asked for once."""
        readable, self.readable = self.readable, -1
        return readable

    def _hungUp(self, events: int) -> None:
        self._watchers.remove(self)
        self.dropped()

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """See L{IWakeWatcher.stateChanged}."""
        line = f"{state} {listed(reasons)}".strip().encode(errors="backslashreplace")
        try:
            os.write(self._writing, line[: LINE_BYTES - 1] + b"\n")
        except BlockingIOError:
            raise WatcherGone("its pipe is full: nobody reads") from None
        except BrokenPipeError:
            raise WatcherGone("its pipe is closed") from None

    def dropped(self) -> None:
        """See L{IWakeWatcher.dropped}.  The reader finds end-of-file.  Idempotent."""
        if self._writing < 0:
            return
        self._poller.unwatch(self._writing)
        os.close(self._writing)
        self._writing = -1
        if self.readable >= 0:
            os.close(self.readable)
            self.readable = -1
