"""
FewLines: a log to which others can make us write, with a limit, and a count of what was left out.

Knows nothing of what is said.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

LINES = 60
"""Lines in each period, by default."""

PERIOD = 60.0
"""Seconds."""


class FewLines:
    """
    One source of lines: a socket, or the connections of a container.

    @ivar most: lines in a L{PERIOD}; may be changed.
    """

    def __init__(self, log: Logger, clock: IReactorTime, what: str, most: int = LINES) -> None:
        """
        @param what: for people, whose lines they are.
        @param most: lines in a L{PERIOD}; 0: only how many there were.
        """
        self._log = log
        self._clock = clock
        self._what = what
        self.most = most
        self._began = -PERIOD
        self._said = 0
        self._left = 0
        self._tell: IDelayedCall | None = None
        self._closed = False

    def warn(self, format: str, **values: object) -> None:
        """A warning, or one more that is left out; see L{Logger.warn}."""
        self._say(LogLevel.warn, format, values)

    def info(self, format: str, **values: object) -> None:
        """See L{Logger.info}."""
        self._say(LogLevel.info, format, values)

    def _say(self, level: object, format: str, values: dict[str, object]) -> None:
        now = self._clock.seconds()
        if now - self._began >= PERIOD:
            self._summarise()
            self._began, self._said = now, 0
        if self._said < self.most:
            self._said += 1
            self._log.emit(level, format, **values)  # type: ignore[arg-type]  # a LogLevel
            return
        self._left += 1
        if self._tell is None and not self._closed:
            self._tell = self._clock.callLater(self._began + PERIOD - now, self._summarise)

    def _summarise(self) -> None:
        if self._tell is not None and self._tell.active():
            self._tell.cancel()
        self._tell = None
        count, self._left = self._left, 0
        if count:
            self._log.warn(
                "{what}: {count} more lines were left out within {period:.0f} s "
                "(limits.log-lines = {most})",
                what=self._what,
                count=count,
                period=PERIOD,
                most=self.most,
            )

    def close(self) -> None:
        """Say now what was left out, and no later.  Idempotent."""
        self._closed = True
        self._summarise()
