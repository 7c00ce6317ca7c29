"""
DryRun: what is done instead of a sleep where nothing is stopped: it is said, and looked on.

Knows nothing of when a container would be suspended.
"""

from __future__ import annotations

from twisted.logger import Logger

from chanproxy.adopt.drywatch import DryWatch
from chanproxy.wake.statistics import SuspendStatistics
from chanproxy.words import listed


class DryRun:
    """Says what would become of one container, and looks on."""

    _log = Logger()

    def __init__(self, name: str, statistics: SuspendStatistics, watch: DryWatch | None) -> None:
        """
        @param statistics: of what would be its sleeps.
        @param watch: notices what would have woken it, and no source shows; None: all do.
        """
        self._name = name
        self._statistics = statistics
        self._watch = watch

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """The state it would have, and why."""
        if self._watch is not None:
            if state == "asleep":
                self._watch.start()
            else:
                self._watch.stop()
        if state == "asleep":
            self._log.info("{name}: dry run: it would be asleep now", name=self._name)
        elif state == "awake" and reasons:
            self._log.info(
                "{name}: dry run: it would be awake now, by {reason}; asleep for {asleep:.3f} s",
                name=self._name,
                reason=listed(reasons),
                asleep=self._statistics.lastAsleep / 1e9,
            )

    def stop(self) -> None:
        """Look on no more.  Idempotent."""
        if self._watch is not None:
            self._watch.stop()
