"""
Notices: what a service tells systemd, as C{sd_notify(3)} describes: that it has started, how it is,
that it reads its configuration again, that it stops, and, while the watchdog asks for that, that it
turns.

Knows nothing of what the service does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

PAUSE = 1.0
"""Seconds between two notices of how it is, at least."""

AFTER = 0.05
"""Seconds that such a notice comes after what it tells: a wake does not wait for it."""


class Notices:
    """
    For one service; without systemd, nobody is told.

    What systemd does not take at once is told later: nothing here waits.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, environment: MutableMapping[str, str]) -> None:
        """@param environment: what is said in it is taken out, for it is not for our children."""
        self._clock = clock
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._watchdog = environment.pop("WATCHDOG_USEC", "")
        self._watched = environment.pop("WATCHDOG_PID", "")
        self._pending: dict[str, str] = {}
        self._call: IDelayedCall | None = None
        self._next = 0.0
        self._alive = LoopingCall(self._turns)
        self._alive.clock = clock

    def ready(self) -> None:
        """It has started."""
        self._tellReady()
        with contextlib.suppress(ValueError):
            seconds = int(self._watchdog) / 1e6
            ours = self._watched in ("", str(os.getpid()))
            if ours and seconds > 0 and self._address:
                self._alive.start(seconds / 2)

    def reloading(self) -> None:
        """It reads its configuration again, until L{reloaded}."""
        # systemd compares it with when it has asked for that.
        self._pending["MONOTONIC_USEC"] = str(time.monotonic_ns() // 1000)
        self._tell("RELOADING", "1")

    def reloaded(self) -> None:
        """It has done so, or goes on as before."""
        self._tellReady()

    def _tellReady(self) -> None:
        # What it has not heard of is over.
        for name in ("RELOADING", "MONOTONIC_USEC"):
            self._pending.pop(name, None)
        self._tell("READY", "1")

    def status(self, text: str) -> None:
        """How it is, in a sentence for people; to be called whenever that changes."""
        self._pending["STATUS"] = text
        self._later(max(self._next - self._clock.seconds(), AFTER))

    def stopping(self) -> None:
        """It stops, and nothing more is told.  Idempotent."""
        if self._alive.running:
            self._alive.stop()
        self._tell("STOPPING", "1")
        self._address = ""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _turns(self) -> None:
        self._tell("WATCHDOG", "1")

    def _tell(self, name: str, value: str) -> None:
        self._pending[name] = value
        self._send()

    def _later(self, seconds: float) -> None:
        if self._call is None and self._address:
            self._call = self._clock.callLater(seconds, self._called)

    def _called(self) -> None:
        self._call = None
        self._send()

    def _send(self) -> None:
        if not self._address:
            return
        # Of a line there can be only one: a line break would begin another notice.
        lines = [f"{name}={' '.join(value.split())}" for name, value in self._pending.items()]
        path = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sending:
                sending.sendto("\n".join(lines).encode(), path)
        except BlockingIOError:
            self._later(PAUSE)
        except OSError as error:
            self._log.warn("systemd is not told how it is: {why}", why=error.strerror)
            self._address = ""
        else:
            if "STATUS" in self._pending:
                self._next = self._clock.seconds() + PAUSE
            self._pending.clear()
