"""
Rows: what each container does, in a line for people, and in fields for programs.

Knows what the manager answers, and nothing of how that is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from chanproxy.commands.showing import Moment, duration, percent
from chanproxy.words import spelled

SLEEPS = ("asleep", "resuming")
"""The states in which time counts as asleep."""


@frozen
class Row:
    """
    One container.

    @ivar state: as the manager says it.
    @ivar since: Unix time, since when it is awake or asleep.
    @ivar seconds: how long that is.
    @ivar asleep: the share of time asleep since the service has it.
    @ivar counted: Unix time, since when that is counted.
    @ivar today: the share of time asleep since midnight, or since it came, if that was later; None:
        no time has passed.
    @ivar spared: seconds of a processor that it would have used in that time, had it been awake; an
        estimate.  None: there is none.
    @ivar why: what keeps it awake; empty: nothing, or it is not known.
    @ivar woken: Unix time, when it was woken last; None: never.
    @ivar wokenBy: why.
    @ivar pausedBy: who has paused it; empty: nobody.
    """

    name: str
    state: str
    mode: str
    since: float
    seconds: float
    asleep: float
    counted: float
    today: float | None
    spared: float | None
    why: str
    woken: float | None
    wokenBy: str
    pausedBy: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any], moment: Moment) -> Row:
        """@param entry: one of C{ListContainers}, with its details."""
        details = entry["details"]
        today = details["today"]
        known, spared = today["asleep_time"] + today["awake_time"], today["spared_cpu_time"]
        return cls(
            name=entry["name"],
            state=entry["state"],
            mode=entry["mode"],
            since=moment.unixOf(details["since"]),
            seconds=max(moment.ago(details["since"]), 0.0),
            asleep=shareAsleep(entry["state"], details["since"], details, moment),
            counted=moment.unixOf(details["counted_since"]),
            today=today["asleep_time"] / known if known else None,
            spared=None if spared is None else spared / 1e9,
            why=details["why_awake"],
            woken=moment.unixOf(details["last_wake"]) if details["last_wake"] else None,
            wokenBy=details["last_wake_reason"],
            pausedBy=entry.get("paused", {}).get("by", ""),
        )

    @property
    def shownState(self) -> str:
        """For people: a dry run stops nothing; and nothing wakes what is paused."""
        if self.pausedBy and self.state == "asleep":
            return "paused"
        return f"{self.state}, dry" if self.mode == "dry_run" else self.state

    @property
    def worth(self) -> tuple[str, str]:
        """For people: the share of today that it slept, and what that has spared."""
        return (
            "" if self.today is None else percent(self.today),
            "" if self.spared is None else duration(self.spared),
        )

    def reason(self, moment: Moment) -> str:
        """Why it is as it is, in a few words."""
        if self.pausedBy:
            return f"paused by {self.pausedBy}"
        if self.why:
            return self.why
        if self.woken is None:
            return "" if self.state == "awake" else "not woken so far"
        return f"woken last by {spelled(self.wokenBy)}, {duration(moment.unix - self.woken)} ago"

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "state": self.state,
            "paused_by": self.pausedBy,
            "mode": self.mode,
            "since": self.since,
            "seconds": self.seconds,
            "why_awake": self.why,
            "last_wake": self.woken,
            "last_wake_reason": self.wokenBy,
            "asleep_share": self.asleep,
            "counted_since": self.counted,
            "asleep_share_today": self.today,
            "spared_cpu_today": self.spared,
        }


def shareAsleep(state: str, since: int, figures: Mapping[str, Any], moment: Moment) -> float:
    """
    The share of time asleep since it is counted, the present sleep included; 0 to 1.

    @param since: nanoseconds, since when it is in that state.
    @param figures: C{counted_since} and C{total_suspend_time}, nanoseconds.
    """
    slept = figures["total_suspend_time"] + (moment.boot - since if state in SLEEPS else 0)
    passed = moment.boot - figures["counted_since"]
    return min(max(slept / passed, 0.0), 1.0) if passed > 0 else 0.0
