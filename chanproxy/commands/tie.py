"""
Tie: what a command has of a service as long as it runs, made again when the service has gone and is
back.

Blocking, and one thread: SIGIO tells that the service has gone, and whoever waits for that asks it
to look.  Knows no containers.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from chanproxy.commands.stopping import say
from chanproxy.guest import Guest, GuestError

PAUSE = (0.1, 5.0)
"""Seconds between tries to make it again: the first pause, and the longest."""


class Words(NamedTuple):
    """
    What is said of it, each once in a time.

    @ivar lost: when the service has gone.
    @ivar again: when it is made again.
    @ivar refused: before the reason, when a service that is back does not make it.
    """

    lost: str
    again: str
    refused: str


class Tie:
    """
    One of them.

    @ivar holds: it is made, and the service was there at the last look.
    """

    def __init__(
        self,
        guest: Guest,
        make: Callable[[], object],
        words: Words,
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param make: raises L{GuestError}; what it makes is there as long as the connection is.
        @param lost: called when the service has gone, before anything is said.
        """
        self._guest = guest
        self._make = make
        self._words = words
        self._lost = lost
        self._tied = 0
        self._signals = False
        self._pause = PAUSE[0]
        self._due = 0.0
        self._said = ""
        self.holds = False

    def make(self) -> None:
        """
        Make it, the first time.

        @raise GuestError: it is not made.
        """
        self._make()
        self._tied = self._guest.connected
        self.holds = True

    def begin(self) -> None:
        """From now on SIGIO, which is blocked, comes when there is something to look at."""
        self._signals = True
        self._arm(True)

    def end(self) -> None:
        """No SIGIO comes any more.  Idempotent."""
        self._arm(False)
        self._signals = False

    def look(self) -> float | None:
        """
        See whether the service is there, and try to make it again if that is due.

        @return: seconds until the next look; L{None}: when SIGIO comes.
        """
        if self.holds:
            if self._guest.connected == self._tied:
                return None
            self._gone()
        left = self._due - time.monotonic()
        return left if left > 0 else self._again()

    def _gone(self) -> None:
        self.holds = False
        self._lost()
        say(self._words.lost)
        self._said = ""
        self._pause = PAUSE[0]
        self._due = time.monotonic() + self._pause

    def _again(self) -> float | None:
        try:
            self.make()
        except GuestError as error:
            # Nothing half made is left, which would be in the way of the next try.
            there = bool(self._guest.connected)
            self._guest.close()
            if there and str(error) != self._said:
                self._said = str(error)
                say(f"{self._words.refused}: {error}")
            self._pause = min(self._pause * 2, PAUSE[1])
            self._due = time.monotonic() + self._pause
            return self._pause
        say(self._words.again)
        self._arm(True)
        # It may have gone before it could tell.
        return self.look()

    def _arm(self, on: bool) -> None:
        descriptor = self._guest.fileno()
        if not self._signals or descriptor < 0:
            return
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_ASYNC
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags)
