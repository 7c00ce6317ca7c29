"""
A container in words and figures, as C{org.chanproxy.Manager} answers them.

Only looks; every part has a bound, because a reply is one packet.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

from attrs import frozen

from chanproxy.container import Container
from chanproxy.container.account import Today
from chanproxy.container.core import Pause
from chanproxy.wake.locks import Hold, WakeLock
from chanproxy.wake.source import Source
from chanproxy.wake.statistics import SuspendEvent, SuspendStatistics, bootNanoseconds
from chanproxy.words import safe

T = TypeVar("T")

PORTION = 32768
"""Bytes of each list in one reply."""

REASON_SHOWN = 256
"""Characters of a reason that are shown; it may name thousands of sources."""


LOOKING = 0.002
"""Seconds of processor time for what is in the epolls that a container waits on."""

HOLDERS_SHOWN = 16
"""Of one lock; there is a limit of locks, and none of its own of who holds one."""


def shortened(text: str) -> str:
    """A reason, or its beginning."""
    text = safe(text)
    return text if len(text) <= REASON_SHOWN else f"{text[:REASON_SHOWN]}..."


def portion(entries: Iterable[T], first: int) -> tuple[list[T], int | None]:
    """
    As many entries as go into one reply.

    @return: the entries from the C{first} on, and the number of the next one, if there is one.
    """
    found: list[T] = []
    size = 0
    for entry in itertools.islice(entries, first, None):
        size += len(json.dumps(entry))
        if size > PORTION and found:
            return found, first + len(found)
        found.append(entry)
    return found, None


def fitting(reasons: Sequence[str]) -> list[str]:
    """As many names as go into one reply, with three dots for the others."""
    names, following = portion(reasons, 0)
    return names if following is None else [*names, "..."]


def summary(container: Container) -> dict[str, Any]:
    """One line of a list of containers."""
    paused = container.suspension.paused
    return {
        "name": container.name,
        "state": container.suspension.state,
        # Varlink's words have no hyphen.
        "mode": container.mode.replace("-", "_"),
        **({} if paused is None else {"paused": pause(paused)}),
    }


def pause(paused: Pause) -> dict[str, Any]:
    """Who has paused it, and when."""
    return {"by": shortened(paused.by), "since": paused.since}


def activity(container: Container) -> dict[str, Any]:
    """What one of many does, and why; it takes no look at its sources where that is known."""
    statistics = container.suspension.statistics
    return {
        "since": container.suspension.since,
        "why_awake": shortened(container.why),
        "last_wake": statistics.lastWake,
        "last_wake_reason": shortened(statistics.wokenBy),
        "counted_since": statistics.since,
        "total_suspend_time": statistics.totalAsleep,
        "attempt_count": statistics.attempts,
        "today": _today(container.account.today()),
    }


def description(container: Container, first: int, takers: bool = True) -> dict[str, Any]:
    """
    All of it, with the wake sources from the C{first} on.

    Locks come first, those that are held before all others; then what is adopted.

    @param takers: also who has acquired a lock.
    """
    # A look, so that the figures are of now.
    container.sources.signalled()
    statistics = container.suspension.statistics
    locks = container.sources.locks.all()
    every: Iterable[Source] = itertools.chain(locks, container.sources.attached, container.sources)
    look = _Look(container, takers, time.thread_time() + LOOKING)
    sources, following = portion(map(look.source, every), first)
    newest, _ = portion(map(happened, reversed(statistics.events)), 0)
    alarms, _ = portion(({"name": n, "at": at} for n, at in container.alarms.all().items()), 0)
    reply: dict[str, Any] = {
        "description": {
            **summary(container),
            **({"breathing": True} if container.suspension.breathing else {}),
            "now": bootNanoseconds(),
            "since": container.suspension.since,
            "why_awake": shortened(container.why),
            "times": [
                {"at": at, "reason": shortened(reason), "wakes": wakes}
                for at, reason, wakes in container.suspension.times
            ],
            "passed_over": portion(map(shortened, container.passedOver), 0)[0],
            "signals": container.signals,
            "freezer": container.freezer.spec,
            "linger": container.linger,
            "settings": [
                {"key": key, "before": before, "now": now}
                for key, before, now in container.settings
            ],
            "proxy_count": len(container.channels),
            "watcher_count": len(container.watchers),
            "source_count": len(container.sources) + len(locks) + len(container.sources.attached),
            "statistics": _statistics(statistics),
            "today": _today(container.account.today()),
            "histogram": statistics.histogram,
            "latencies": statistics.latencies,
            "events": newest[::-1],
            "alarms": alarms,
            "sources": sources,
        }
    }
    if following is not None:
        reply["next_source"] = following
    return reply


def happened(event: SuspendEvent) -> dict[str, Any]:
    """What an event tells; how long a wake took only if that is known."""
    told = {"at": event.at, "kind": event.kind, "reason": shortened(event.reason)}
    return told if event.latency is None else told | {"latency": event.latency}


def _statistics(statistics: SuspendStatistics) -> dict[str, Any]:
    return {
        "counted_since": statistics.since,
        "attempt_count": statistics.attempts,
        "success_count": statistics.successes,
        "fail_count": statistics.failures,
        "last_failure": shortened(statistics.lastFailure),
        "last_resume_reason": shortened(statistics.lastReason),
        "last_wake": statistics.lastWake,
        "last_wake_reason": shortened(statistics.wokenBy),
        "last_suspend_time": statistics.lastAsleep,
        "total_suspend_time": statistics.totalAsleep,
        "breath_count": statistics.breaths,
        "breath_time": statistics.breathTime,
    }


def _today(today: Today) -> dict[str, Any]:
    figures = today.figures
    return {
        "since": today.since,
        "asleep_time": figures.asleep,
        "awake_time": figures.awake,
        "wake_count": figures.sleeps,
        "spared_cpu_time": today.spared,
    }


@frozen
class _Look:
    """
    One look at the sources of a container.

    @ivar takers: also at who has acquired a lock.
    @ivar until: seconds of processor time, see L{LOOKING}.
    """

    container: Container
    takers: bool
    until: float

    def source(self, source: Source) -> dict[str, Any]:
        """One of them, with its figures."""
        figures = source.statistics
        return {
            "name": source.name,
            "kind": source.kind,
            "active": bool(figures.activeSince),
            "active_count": figures.activeCount,
            "event_count": source.eventCount,
            "wakeup_count": figures.wakeupCount,
            "expire_count": figures.expireCount,
            "active_since": figures.activeSince,
            "total_time": figures.totalTime,
            "max_time": figures.longestTime,
            "last_change": figures.lastChange,
            **self._more(source),
        }

    def _more(self, source: Source) -> dict[str, Any]:
        """What only some of them have."""
        if isinstance(source, WakeLock):
            holds = itertools.islice(source.holds.items(), HOLDERS_SHOWN)
            holders = [_holder(holder, hold, self.takers) for holder, hold in holds]
            return {"holders": holders, "holder_count": len(source.holds)}
        if source.adopted:
            inside, count = self.container.sources.inside(source, self.until)
            return {"inside": inside, "inside_count": count} if count else {}
        if source.counter is not None and source.statistics.activeSince:
            connections = self.container.channels.isNoticed(source.counter)
            more = {"counts": "connections"} if connections else {}
            return {"unhandled": source.counter.value(), **more}
        return {}


def _holder(holder: Hashable, hold: Hold, takers: bool) -> dict[str, Any]:
    """@param holder: none: the lock is released by name; otherwise it is what ends with it."""
    found: dict[str, Any] = {"lifetime": "service", "since": hold.since}
    if hold.until is not None:
        found["until"] = hold.until
    if hold.taker is None:
        # An alarm's, or a program's that runs the service itself.
        return found
    if holder is not None:
        found["lifetime"] = "connection"
    if takers:
        found["uid"] = hold.taker.uid
        if hold.taker.pid:
            found |= {"pid": hold.taker.pid, "command": hold.taker.command}
    return found
