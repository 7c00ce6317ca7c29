"""
What a run asleep has to be like, beside the run alone; and how much of it was slept.

Knows what is documented of times, and nothing of programs.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Sequence

import attrs

SEEN = 0.3
"""How many seconds later something may be whose time shows from outside."""

HIDDEN = 15.0
"""The most that a time may be late that hides behind a steady tick; C{SEEN} comes on top."""

FIRST_BREATH = 1.0
"""A sleep that has lasted that much less is not broken for what may hide."""

PATIENT = 5.0
"""How much later than the bound to give up."""

BREATH = 0.4
"""What is awake for less was not woken, because that lasts for the linger time of half a second."""


@attrs.define
class Event:
    """
    Something that clients waited for.

    @ivar at: when it came, by the monotonic clock; None: it did not.
    @ivar why: how it failed to.
    """

    what: str
    due: float
    right: str = ""
    hidden: bool = False
    early: float = 0.1
    at: float | None = None
    answer: str = ""
    why: str = ""

    @property
    def late(self) -> float:
        """Seconds; of what came."""
        assert self.at is not None
        return self.at - self.due

    def patience(self) -> float:
        """For how many seconds from now to wait for it; never none."""
        bound = HIDDEN if self.hidden else SEEN
        return max(0.1, self.due + bound + PATIENT - time.monotonic())

    def wrong(self, stall: float = 0.0) -> str:
        """
        What is wrong with it by itself.

        @param stall: by how many seconds the times of what it counts from may be wrong.
        """
        if self.at is None:
            return f"never ({self.why})"
        if self.answer != self.right:
            return f"is {self.answer!r} instead of {self.right!r}"
        if self.late < -self.early - stall:
            return f"{-self.late:.2f} s too early"
        return ""


class Sleep:
    """
    When a container was frozen, as the kernel said.

    @ivar changes: the times of changes, the first one to frozen, the next one to thawed, and so on.
    """

    def __init__(self) -> None:
        self.changes: list[float] = []

    @property
    def frozen(self) -> bool:
        """Whether it is."""
        return len(self.changes) % 2 == 1

    def saw(self, frozen: bool, at: float) -> None:
        """What it is at that time."""
        if frozen != self.frozen:
            self.changes.append(at)

    def lasted(self, at: float) -> float:
        """For how many seconds it slept then already, breaths included; 0: awake."""
        index = bisect.bisect(self.changes, at)
        if index % 2 == 0:
            # Thawed: within a breath it still sleeps.
            if not index or at - self.changes[index - 1] >= BREATH:
                return 0.0
            index -= 1
        while index >= 3 and self.changes[index - 1] - self.changes[index - 2] < BREATH:
            index -= 2
        return at - self.changes[index - 1]

    def share(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """How much of these spans was frozen, 0 to 1; None: they are too short to say."""
        whole = sum(max(0.0, end - begin) for begin, end in spans)
        if whole < 1:
            return None
        edges = [*self.changes, *([float("inf")] if self.frozen else [])]
        frozen = 0.0
        for begin, end in spans:
            for since, until in zip(edges[::2], edges[1::2], strict=True):
                frozen += max(0.0, min(end, until) - max(begin, since))
        return frozen / whole


def allowed(event: Event, sleep: Sleep) -> float:
    """By how many seconds it may be late at most, by what is documented."""
    if not event.hidden:
        return SEEN
    return min(HIDDEN, sleep.lasted(event.due) + FIRST_BREATH) + SEEN


def paired(alone: Sequence[Event], asleep: Sequence[Event]) -> list[tuple[Event, Event | None]]:
    """Each event of the run alone with the same one of the other run: the same name and number."""

    def numbered(events: Sequence[Event]) -> list[tuple[str, int]]:
        seen: Counter[str] = Counter()
        keys = []
        for event in events:
            seen[event.what] += 1
            keys.append((event.what, seen[event.what]))
        return keys

    other = dict(zip(numbered(asleep), asleep, strict=True))
    return [(event, other.get(key)) for event, key in zip(alone, numbered(alone), strict=True)]


def differences(
    alone: Sequence[Event], asleep: Sequence[Event], sleep: Sleep, stall: float
) -> list[str]:
    """
    All that the run asleep is not as it should be in.

    @param stall: how late a process may be here just because the machine is busy, in seconds.
    """
    worst: dict[str, float] = {}
    for event in alone:
        if event.at is not None:
            worst[event.what] = max(worst.get(event.what, 0.0), event.late)
    found = []
    for number, (first, second) in enumerate(paired(alone, asleep)):
        name = f"{number}. {first.what}"
        if first.wrong(stall):
            found.append(f"{name}: without chanproxy: {first.wrong(stall)}")
        elif second is None:
            found.append(f"{name}: was not come to")
        elif second.wrong(stall):
            found.append(f"{name}: {second.wrong(stall)}")
        elif second.late > worst[first.what] + stall + (bound := allowed(second, sleep)):
            found.append(
                f"{name}: {second.late:.2f} s late, {bound:.2f} s are allowed, "
                f"{first.late:.2f} s without chanproxy"
            )
    return found
