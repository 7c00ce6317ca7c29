"""
Compares what a program of the fuzzer of time did under chanproxy with what it did without.

The bounds stand here.  Knows nothing of how programs are run.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

EARLY = 0.02
"""Seconds before its time that an event may come."""

SEEN = 0.3
"""Seconds that it may be late at most, when what it waits for can be seen from outside."""

BREATH = 1.0
"""Seconds: the first breath of a sleep."""

SIGNAL = 0.5
"""The same for a signal, which is looked for a few times a second."""

SIGNALS = ("alarm", "itimer", "usr1", "signalfd")

HIDDEN = 15.0
"""Seconds, with L{SEEN}, that what hides behind a tick may be late at most."""


@frozen
class Event:
    """
    One line of a program.

    @ivar id: what it is the end of; the same in each run.
    @ivar sort: C{s} for what can be seen, C{h} for what hides behind a tick, C{t} for a turn of a
        tick, which is there only if it came at a wrong time.
    @ivar kind: the call that waited.
    @ivar due: when it should have come, by CLOCK_MONOTONIC, seconds.
    @ivar came: when it did.
    @ivar again: how often the call was interrupted.
    @ivar extra: how much later that may make it, seconds; 0, if it goes on with the rest.
    """

    id: str
    sort: str
    kind: str
    due: float
    came: float
    again: int = 0
    extra: float = 0.0

    @property
    def late(self) -> float:
        """Seconds; negative when it was early."""
        return self.came - self.due

    @property
    def chain(self) -> str:
        """What it is a part of: nothing follows there when one event is missing."""
        actor, part, *_ = self.id.split(".")
        if part.isdigit():
            return actor
        return f"{actor}.{part}" if part[0] in "av" else self.id


@frozen
class Record:
    """
    All of one run.

    @ivar failures: what else went wrong, in words.
    @ivar asleep: the share of the time that it was frozen.
    @ivar awake: when it was awake for longer than a breath takes; by CLOCK_MONOTONIC, sorted.
    """

    events: tuple[Event, ...]
    failures: tuple[str, ...] = ()
    asleep: float = 0.0
    awake: tuple[float, ...] = ()


@frozen
class Fault:
    """
    One difference that should not be.

    @ivar what: C{missing}, C{twice}, C{early}, C{late}, C{failed}, C{added}.
    @ivar kind: the call, and how it was used.
    """

    name: str
    what: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}: {self.kind}: {self.text}"


class Noise:
    """
    How late the machine itself was.

    @ivar _times: when, sorted.
    @ivar _lags: by how much: of events without chanproxy, of who ran all programs, of the service.
    """

    def __init__(self, records: Iterable[Record], lags: Iterable[tuple[float, float]]) -> None:
        """@param records: those without chanproxy."""
        points = list(lags)
        for record in records:
            # Requests wait for each other, and interrupted calls are late by themselves.
            points += [(e.came, e.late) for e in record.events if e.sort == "s" and not e.again]
        points.sort()
        self._times = [when for when, _ in points]
        self._lags = [lag for _, lag in points]

    def around(self, begin: float, end: float) -> float:
        """The most between two times, seconds."""
        low, high = bisect.bisect(self._times, begin), bisect.bisect(self._times, end)
        return max(self._lags[low:high], default=0.0)

    def of(self, event: Event) -> float:
        """Around the time that it was due, and around the time that it came."""
        first = self.around(event.due - 0.5, min(event.came, event.due + 1) + 0.2)
        return max(0.0, first, self.around(event.came - 1, event.came + 0.2))


def _used(event: Event) -> str:
    sort = {"s": "", "h": " behind a tick", "t": " as a tick"}[event.sort]
    return event.kind + (" begun anew" if event.extra else "") + sort


def _bound(event: Event, awake: Sequence[float], more: int) -> float:
    """How late it may be; C{awake} are the times at which it was certainly awake, sorted."""
    bound = SIGNAL if event.kind in SIGNALS or event.kind.startswith("timer-") else SEEN
    if event.sort != "s":
        before = bisect.bisect(awake, event.due)
        # It has slept since then at most.
        slept = event.due - awake[before - 1] if before else HIDDEN
        breath = slept + BREATH
        if event.sort == "t" and event.extra:
            # A turn that begins anew is ended by us, and only when it is over for certain: a breath
            # may come too soon for that, and the next one after twice as long.
            breath = 2 * breath + BREATH
        bound += min(HIDDEN, breath)
    if event.kind == "sleep" and event.again:
        # sleep(3) gives whole seconds each time that a signal interrupts it.
        bound += event.again
    return bound + (event.extra if more > 0 else 0.0)


def compare(name: str, without: Record, under: Record, noise: Noise) -> Iterator[Fault]:
    """All faults of one program."""
    for text in without.failures:
        yield Fault(name, "failed", "without chanproxy", text)
    for text in under.failures:
        yield Fault(name, "failed", "", text)
    for record in (without, under):
        counts = Counter(event.id for event in record.events if event.sort != "t")
        for id, count in counts.items():
            if count > 1:
                yield Fault(name, "twice", id, f"{count} times")
    found = {event.id for event in under.events}
    expected = {event.id: event for event in without.events if event.sort != "t"}
    yield from _missing(name, without.events, found)
    for event in under.events:
        base = expected.get(event.id)
        if base is None and event.sort != "t":
            yield Fault(name, "added", _used(event), event.id)
            continue
        late = event.late - max(noise.of(event), base.late if base else 0.0)
        bound = _bound(event, under.awake, event.again - (base.again if base else 0))
        if event.late < -EARLY:
            yield Fault(name, "early", _used(event), f"{event.id} by {-event.late:.3f} s")
        elif late > bound:
            text = f"{event.id} by {event.late:.2f} s, {bound:.2f} s at most"
            yield Fault(name, "late", _used(event), text)


def _missing(name: str, events: Iterable[Event], found: set[str]) -> Iterator[Fault]:
    chains: set[str] = set()
    for event in sorted(events, key=lambda event: event.came):
        if event.sort != "t" and event.id not in found and event.chain not in chains:
            chains.add(event.chain)
            yield Fault(name, "missing", _used(event), f"{event.id}, due at {event.due:.2f}")


def byKind(faults: Iterable[Fault]) -> str:
    """How many of each kind, as lines."""
    counts = Counter((fault.what, fault.kind) for fault in faults)
    return "\n".join(f"{n:5} {what}: {kind}" for (what, kind), n in counts.most_common())
