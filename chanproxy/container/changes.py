"""
Changes: what becomes of one container, a line each in the log: it sleeps, it wakes, and why it does
not sleep.

Said a moment after it has happened, when nobody waits for it any more.  Knows neither how a
container is suspended nor where a log is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.container.bounds import Bounds
from chanproxy.container.suspension import Suspension
from chanproxy.kernel.fewlines import FewLines
from chanproxy.words import LINGERING, listed, safe

AFTER = 0.02
"""Seconds from a change to its line: as a rule what woke it was answered by then, and carried."""

GRACE = 3.0
"""Seconds beyond the linger time that it is awake before it is said why."""

REPEATED = (60.0, 3600.0)
"""Seconds until a reason is said again while it goes on: at first, and at the most."""

REASONS = 64
"""Reasons that are remembered as said."""


@define
class _Said:
    """When a reason was said, and after how many seconds it may be again."""

    at: float
    pause: float


class Changes:
    """One container's."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        suspension: Suspension,
        why: Callable[[], str],
        bounds: Bounds,
        dryRun: bool = False,
    ) -> None:
        """
        @param why: why it is awake now, in words; empty when it is not, or there is no reason.
        @param dryRun: it only would sleep.
        """
        self._name = name
        self._clock = clock
        self._suspension = suspension
        self._why = why
        self._linger = bounds.linger
        self._dryRun = dryRun
        self._lines = FewLines(self._log, clock, name, bounds.logLines)
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._call: IDelayedCall | None = None
        self._check: IDelayedCall | None = None
        self._state = "awake"
        self._since = clock.seconds()
        self._idle = False
        self._said: dict[str, _Said] = {}
        suspension.addWatcher(self._changed)

    def change(self, bounds: Bounds) -> None:
        """Go on with others, and with what was said so far."""
        self._linger = bounds.linger
        self._lines.most = bounds.logLines
        if self._check is not None:
            self._check.reset(max(self._wait, 0))

    def _changed(self, state: str, reasons: tuple[str, ...]) -> None:
        # Of a sleep and its end, never of an attempt.
        if state not in ("awake", "asleep") or state == self._state:
            return
        self._state = state
        if state == "asleep":
            self._asleep()
        else:
            self._awake(reasons)

    def _asleep(self) -> None:
        self._cancel()
        fields: dict[str, Any] = {"state": "asleep", "asked": not self._idle}
        paused = self._suspension.paused
        if self._dryRun:
            text = "{container}: dry run: it would be asleep now"
        elif paused is not None:
            text = "{container} paused by {by}: it sleeps until it is unpaused"
            fields["by"] = safe(paused.by)
        elif self._idle:
            text = "{container} asleep after {quiet_seconds:g} s of quiet"
            fields["quiet_seconds"] = self._linger
        else:
            text = "{container} asleep, as asked"
        self._later(text, fields)

    def paused(self, by: str) -> None:
        """It sleeps, and nothing wakes it any more."""
        self._later(
            "{container} paused by {by}: it sleeps on until it is unpaused",
            {"state": "asleep", "by": safe(by)},
        )

    def _awake(self, reasons: tuple[str, ...]) -> None:
        self._since = self._clock.seconds()
        for said in self._said.values():
            said.pause = REPEATED[0]
        asleep = self._suspension.statistics.lastAsleep / 1e9
        fields = {"state": "awake", "reasons": reasons, "asleep_seconds": round(asleep, 6)}
        text = "{container} awake: {reason}; slept {slept}"
        if self._dryRun:
            text = (
                "{container}: dry run: it would be awake now, by {reason}; "
                "asleep for {asleep_seconds:.3f} s"
            )
        self._later(text, fields)

    def stays(self, why: str) -> None:
        """
        It has been looked at, and stays awake; to be called each time.

        @param why: in words; empty: it is idle, and is to be suspended.
        """
        self._idle = not why
        if why in ("", LINGERING) or self._check is not None or self._state != "awake":
            return
        if self._wait > 0:
            self._check = self._clock.callLater(self._wait, self._checked)
        else:
            self._stays()

    @property
    def _wait(self) -> float:
        """Seconds until it has been awake so long that it is said why."""
        return self._since + self._linger + GRACE - self._clock.seconds()

    def _checked(self) -> None:
        self._check = None
        if self._state == "awake":
            self._stays()

    def _stays(self) -> None:
        why = self._why()
        if why in ("", LINGERING):
            return
        # Which thread it is, and how much, changes all the time.
        gist = "".join(character for character in why if not character.isdigit())
        now = self._clock.seconds()
        said = self._said.pop(gist, None)
        if said is not None and now < said.at + said.pause:
            self._said[gist] = said
            return
        if len(self._said) >= REASONS:
            del self._said[next(iter(self._said))]
        pause = REPEATED[0] if said is None else min(2 * said.pause, REPEATED[1])
        self._said[gist] = _Said(now, pause)
        self._say("{container} stays awake: {why}", {"state": "awake", "why": safe(why)})

    def _later(self, text: str, fields: dict[str, Any]) -> None:
        self._waiting.append((text, fields))
        if self._call is None:
            self._call = self._clock.callLater(AFTER, self._sayAll)

    def _sayAll(self) -> None:
        self._call = None
        waiting, self._waiting = self._waiting, []
        for text, fields in waiting:
            if "reasons" in fields:
                fields["reasons"] = reasons = [safe(each) for each in fields["reasons"]]
                fields["reason"] = listed(reasons)
                fields["slept"] = shown(fields["asleep_seconds"])
            self._say(text, fields)

    def _say(self, text: str, fields: dict[str, Any]) -> None:
        self._lines.info(text, container=self._name, **fields)

    def _cancel(self) -> None:
        check, self._check = self._check, None
        if check is not None:
            check.cancel()

    def close(self) -> None:
        """Say now what has happened, and no more.  Idempotent."""
        self._cancel()
        if self._call is not None:
            self._call.cancel()
            self._sayAll()
        self._lines.close()


def shown(seconds: float) -> str:
    """A time for people: two digits, or whole seconds."""
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
