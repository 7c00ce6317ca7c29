"""
Account: what one container's sleep was worth so far: time asleep, what woke it, processor time.

Everything is looked at after the fact, and nothing on the way of a wake; knows the freezer only as
what has used the processor for some time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import field, frozen

from chanproxy.interfaces import FreezerError
from chanproxy.wake.history.figures import (
    HOUR,
    KEPT,
    SECOND,
    WOKE,
    Because,
    Figures,
    HourOf,
    Tally,
    bucketOf,
)
from chanproxy.wake.history.reasons import Known, general, generalAll
from chanproxy.wake.statistics import SuspendStatistics

BEGIN = "the start of the service"
"""Why a container is awake that has not slept yet."""


@frozen
class Clocks:
    """
    What an account goes by.

    @ivar nanoseconds: stands still while the machine itself is suspended: what nobody could have
        used then is not spared.
    @ivar wall: seconds since 1970; may be set at any time, so nothing is measured by it.
    """

    nanoseconds: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], float] = time.time


@frozen
class Today:
    """
    What became of a container today, as far as this service has seen it.

    @ivar since: seconds since 1970: midnight, or when it came here.
    @ivar spared: see L{Figures.spared}.
    """

    since: float
    figures: Figures = field(repr=False)
    spared: int | None


class Account:
    """One container's."""

    def __init__(
        self,
        name: str,
        cpuTime: Callable[[], int],
        dry: bool,
        statistics: SuspendStatistics,
        tally: Tally | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        """
        @param cpuTime: microseconds that the container has used so far.
        @param dry: nothing is stopped.
        @param statistics: of its sleeps.
        @param tally: where what is known goes, hour by hour; None: it is not kept.
        """
        self._name = name
        self._cpuTime = cpuTime
        self._dry = dry
        self._statistics = statistics
        self._tally = tally
        self._clocks = clocks or Clocks()
        self._since = self._clocks.nanoseconds()
        # While it sleeps, and until what has woken it is known.
        self._asleep = False
        self._wokenAt: int | None = None
        self._reason = BEGIN
        self._woke, self._kept = Known(), Known()
        # Why it was awake at the last look, in words and in general.
        self._why = "", ""
        # When it became quiet, and what it had used by then; and what by the last look after that.
        self._quiet: tuple[int, int] | None = None
        self._idle = (0, 0)
        self._cpu: int | None = None
        self._breaths = self._breathTime = 0
        self._midnight = self._tomorrow = 0.0
        self._today = Figures()
        self._came = self._clocks.wall()

    def quiet(self) -> None:
        """From now on it is awake and idle, as it seems."""
        used = self._used()
        self._quiet = None if used is None else (self._clocks.nanoseconds(), used)

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        """The container's state, and why; see L{chanproxy.container.lifecycle}."""
        if state == "suspending":
            self._measureIdle()
        elif state in ("asleep", "paused"):
            self._fellAsleep()
        elif state == "resuming":
            self._wokenAt = self._clocks.nanoseconds()
        elif state == "awake":
            self._awoke(reasons)

    def _measureIdle(self) -> None:
        """It is about to be frozen, and has done all that it does when it has nothing to do."""
        quiet, self._quiet, self._idle = self._quiet, None, (0, 0)
        used = self._used()
        if quiet is not None and used is not None:
            self._idle = self._clocks.nanoseconds() - quiet[0], used - quiet[1]

    def _fellAsleep(self) -> None:
        before, self._cpu = self._cpu, self._used()
        passed = 0 if before is None or self._cpu is None else self._cpu - before
        if self._asleep:
            # It has breathed.
            self._post(Figures(asleepCpu=passed), 0)
            return
        idle, self._idle = self._idle, (0, 0)
        self._pass(Figures(awakeCpu=passed, idleTime=idle[0], idleCpu=idle[1]))
        self._asleep = True
        self._happened()

    def _awoke(self, reasons: tuple[str, ...]) -> None:
        at, self._wokenAt = self._wokenAt, None
        if not self._asleep:
            # It was awake all the time.
            self._post(Figures(failures=1), 0)
            return
        figures = Figures(sleeps=1)
        if self._dry:
            before, self._cpu = self._cpu, self._used()
            if before is not None and self._cpu is not None:
                figures.asleepCpu = self._cpu - before
        self._pass(figures, at)
        self._asleep = False
        hour = self._hour()
        self._reason = self._woke.admit(hour.hour, generalAll(reasons, self._name))
        if self._tally is not None:
            self._tally.addReason(Because(hour, WOKE, self._reason), 1, 0)
            latency = self._statistics.lastLatency
            if latency is not None and not self._dry:
                self._tally.addLatency(hour, bucketOf(latency))
        self._happened()

    def _happened(self) -> None:
        if self._tally is not None:
            self._tally.happened()

    def accrue(self, ownCpu: int = 0, why: str = "") -> None:
        """
        Add what has passed until now.

        @param ownCpu: nanoseconds of the service's own processor time that are for it.
        @param why: why it is awake now, in words.
        """
        figures = Figures(ownCpu=ownCpu)
        before = self._since
        self._pass(figures)
        if why and figures.awake and self._tally is not None:
            hour = self._hour()
            if why != self._why[0]:
                self._why = why, general(why, self._name)
            kept = self._kept.admit(hour.hour, self._why[1])
            self._tally.addReason(Because(hour, KEPT, kept), 0, self._since - before)

    def _pass(self, figures: Figures, at: int | None = None) -> None:
        """
        Add some figures, and the time that has passed.

        @param at: nanoseconds, until when; by default until now.
        """
        # A look in between may have gone further.
        now = max(self._clocks.nanoseconds() if at is None else at, self._since)
        passed, self._since = now - self._since, now
        if self._asleep:
            figures.asleep += passed
        else:
            figures.awake += passed
        statistics = self._statistics
        figures.breaths += statistics.breaths - self._breaths
        figures.breathTime += statistics.breathTime - self._breathTime
        self._breaths, self._breathTime = statistics.breaths, statistics.breathTime
        self._post(figures, passed)

    def _post(self, figures: Figures, passed: int) -> None:
        hour = self._hour()
        if self._tally is not None:
            self._tally.add(hour, figures)
            if figures.awake:
                because = Because(hour, WOKE, self._woke.admit(hour.hour, self._reason))
                self._tally.addReason(because, 0, figures.awake)
        now = self._clocks.wall()
        if not self._midnight <= now < self._tomorrow:
            self._midnight, self._tomorrow = _day(now)
            self._today = Figures()
            # Only what is of today.
            most = int((now - self._midnight) * SECOND)
            if passed > most:
                figures.asleep, figures.awake = min(figures.asleep, most), min(figures.awake, most)
        self._today.add(figures)

    def _hour(self) -> HourOf:
        return HourOf(int(self._clocks.wall() // HOUR), self._name, self._dry)

    def _used(self) -> int | None:
        """Nanoseconds of the processor that it has used so far."""
        try:
            return self._cpuTime() * 1000
        except (FreezerError, OSError):
            return None

    def today(self) -> Today:
        """What is known of today."""
        self.accrue()
        since = max(self._midnight, self._came)
        return Today(since, self._today, self._today.spared(self._dry))

    def close(self) -> None:
        """Add what has passed until now; nothing comes after that."""
        self.accrue()


def _day(now: float) -> tuple[float, float]:
    """When the day began, here, and when it ends."""
    year, month, day, *_ = time.localtime(now)
    begin, end = (time.mktime((year, month, each, 0, 0, 0, 0, 0, -1)) for each in (day, day + 1))
    return begin, end
