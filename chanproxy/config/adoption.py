"""
How a container wakes by its own sockets, as the configuration has it.

Pure; knows single tables and not the file.
"""

from __future__ import annotations

from typing import Any

from chanproxy.adopt.deadlines import parseTimeouts
from chanproxy.adopt.naming import Ignored
from chanproxy.adopt.settings import Adoption
from chanproxy.config.keys import Key, about, keysOf
from chanproxy.config.kinds import (
    LONGEST,
    Choice,
    Items,
    Number,
    Seconds,
    Text,
    sort,
)
from chanproxy.config.tables import Table


def _ignored(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"holds {sort(value)}")
    Ignored([value])
    return value


WAKE_ON = Key(
    "wake-on",
    Choice("channels", "sockets"),
    "What wakes it: channels, or also its own sockets.",
    "channels",
)

KEYS = keysOf(
    Adoption,
    timeouts=about(
        Text(
            parseTimeouts,
            "10s",
            '`"10s"` (a number of seconds), `"all"`, `"ignore"`',
            kept=(float, int),
        ),
        "Times that wake it: all but habits below 10s, all, or ignore.",
        '`"10s"`',
    ),
    unanswered=about(
        Seconds(0, LONGEST),
        "Seconds that a request which it has not answered keeps it awake.",
    ),
    ignore=about(
        Items(_ignored, '["timerfd", "udp:*:5353"]'),
        "Descriptors that do not wake it: timerfd, udp:*:5353.",
    ),
    unseen=about(
        Choice("awake", "blind"), "What a process does that may not be looked into: awake, blind."
    ),
    busyCpu=about(
        Number(0, 1024, "processors"), "It is at work while it uses more of a processor."
    ),
    busySwitches=about(
        Number(0, 1e6, "times a second"), "It is at work while a thread runs more often."
    ),
    shortSleep=about(Number(0, LONGEST, "seconds"), "Seconds; shorter sleeps are not worth it."),
)
"""Those that are for containers with C{wake-on = "sockets"}."""


def readAdoption(table: Table, freezes: bool) -> Adoption | None:
    """
    The keys of a container's table that are about this.

    @param freezes: whether its freezer stops anything.
    @return: None, when it does not wake by its own sockets.
    """
    wakeOn = table.read(WAKE_ON)
    adoption = Adoption(**table.readAll(KEYS))
    if wakeOn == "sockets":
        if not freezes:
            table.note(
                "wake-on",
                "looks into what is frozen, and none freezes nothing",
                "write another freezer, such as cgroup:PATH, or wake-on = 'channels'",
            )
        return adoption
    for key in KEYS.values():
        if table.has(key.name):
            table.note(
                key.name, "is for containers that wake by their own sockets", "wake-on = 'sockets'"
            )
    return None
