"""
What the signals do that end a program: they ask its reactor to stop, once.  SIGHUP may be for
something else.

A handler runs between any two steps of the main thread, also while that takes or has a lock; so it
may not wait for one.  Twisted's own handlers write a log line first: one that runs while the log's
lock is being taken, as by the handler of another signal, waits for itself for good.  Those here
note the number, and leave the rest to the reactor.

Knows no service.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


class Ending:
    """The signals that end one program."""

    def __init__(self, reactor: Any, hungUp: Callable[[], object] | None = None) -> None:
        """
        @param reactor: one of Twisted's own, not running yet.
        @param hungUp: called in a turn of the reactor for SIGHUP, once for those that have come
            before that.  None: it ends the program as well.
        """
        self._reactor = reactor
        self._hungUp = hungUp
        self._asked = False
        self._number: int | None = None
        # They tell twistd by which signal the process is to end.
        self._byTwisted: dict[int, Callable[[int], object]] = {
            signal.SIGINT: reactor.sigInt,
            signal.SIGTERM: reactor.sigTerm,
        }

    def install(self) -> None:
        """
        Take care of SIGTERM, SIGINT and SIGHUP, unless somebody else does or they are ignored.

        What the reactor installs when it begins to run is what it has under these names, so there
        is no moment with its own handlers in between.
        """
        self._reactor.sigInt = self._reactor.sigTerm = self._signalled
        # Its default action would end us without the thaw.
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._signalled)

    def _signalled(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP and self._hungUp is not None:
            if not self._asked:
                self._asked = True
                self._reactor.callFromThread(self._goOn, self._hungUp)
            return
        # The first one decides; there may be thousands.
        if self._number is None:
            self._number = number
            self._reactor.callFromThread(self._end, number)

    def _goOn(self, hungUp: Callable[[], object]) -> None:
        self._asked = False
        hungUp()

    def _end(self, number: int) -> None:
        """In a turn of the reactor, where one may log."""
        byTwisted = self._byTwisted.get(number)
        if byTwisted is None:
            self._reactor.stop()
        else:
            byTwisted(number)
