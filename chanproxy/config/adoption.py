"""
How a container wakes by its own sockets, as the configuration has it.

Pure; knows single tables and not the file.
"""

from __future__ import annotations

from typing import Any

from chanproxy.adopt.connections import UNANSWERED
from chanproxy.adopt.deadlines import parseTimeouts
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.settings import SHORT_SLEEP, TIMEOUTS, Adoption
from chanproxy.adopt.usage import BUSY_CPU, BUSY_SWITCHES
from chanproxy.config.tables import Table, kind

_LONGEST = 86400.0
"""Seconds: a day.  More is a mistake in the unit."""

_KEYS = ("timeouts", "ignore", "unseen", "busy-cpu", "busy-switches", "short-sleep", "unanswered")


def readAdoption(table: Table, freezer: str) -> Adoption | None:
    """
    The keys of a container's table that are about this.

    @return: None, when it does not wake by its own sockets.
    """
    wakeOn = table.choice("wake-on", "channels", "channels", "sockets")
    written = [key for key in _KEYS if table.has(key)]
    adoption = Adoption(
        _readTimeouts(table),
        table.items("ignore", _checkIgnored, '["timerfd", "udp:*:5353"]'),
        table.choice("unseen", "awake", "awake", "blind") == "blind",
        float(table.number("busy-cpu", BUSY_CPU, 0, 1024)),
        float(table.number("busy-switches", BUSY_SWITCHES, 0, 1e6)),
        float(table.number("short-sleep", SHORT_SLEEP, 0, _LONGEST)),
        table.seconds("unanswered", UNANSWERED, _LONGEST, "never"),
    )
    if wakeOn == "sockets":
        if freezer == "none":
            table.note(
                "wake-on",
                "looks into what is frozen, and none freezes nothing",
                "write another freezer, such as cgroup:PATH, or wake-on = 'channels'",
            )
        return adoption
    for key in written:
        table.note(key, "is for containers that wake by their own sockets", "wake-on = 'sockets'")
    return None


def _readTimeouts(table: Table) -> float:
    text = table.text("timeouts", parseTimeouts, "10s", required=False)
    return parseTimeouts(text) if text else TIMEOUTS


def _checkIgnored(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"holds {kind(value)}")
    Ignored([value])
