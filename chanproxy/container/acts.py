"""
Acts: what several transitions of a container's life cycle do.

Knows the inputs that follow, and nothing of states: those are L{chanproxy.container.lifecycle}'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.container.core import Core
from chanproxy.container.inputs import LifeCycle
from chanproxy.container.outcomes import NotIdle, Resumed, WakeLocksExist, failed
from chanproxy.interfaces import FreezerError
from chanproxy.wake.source import Source

EXPLAIN_AFTER = 0.003
"""Seconds from the thaw until it is looked for who woke it: the container has its turn first."""

THAW_RETRY = (0.1, 5.0)
"""Seconds between tries to thaw: the first pause, and the longest."""

_log = Logger()


def freeze(inputs: LifeCycle, core: Core, wakes: bool = True) -> None:
    """
    Begin to freeze it.

    @param wakes: what becomes signalled ends that.
    """
    try:
        if core.record is not None:
            core.record.write()
        if wakes:
            core.sources.arm(inputs.signalled)
        freezing = core.freezer.freeze()
    except Exception as error:
        inputs.interrupted(failed(error))
    else:
        freezing.addCallbacks(lambda _: inputs.frozen(), lambda failure: _failed(inputs, failure))


def _failed(inputs: LifeCycle, failure: Failure) -> None:
    inputs.interrupted(failed(failure.value))


def notIdle(failure: Failure) -> NotIdle:
    """What a suspend fails with when a look has found the container at work."""
    return NotIdle(str(failure.value), getattr(failure.value, "again", None))


def seeDisturbed(inputs: LifeCycle, core: Core) -> None:
    """It is frozen: see when it is not any more, though not by us."""
    disturbed = core.freezer.whenDisturbed()
    disturbed.addCallbacks(inputs.disturbed, lambda failure: failure.trap(CancelledError))
    disturbed.addErrback(lambda failure: inputs.disturbed(str(failure.value)))


def abort(inputs: LifeCycle, core: Core, error: Exception) -> None:
    """It does not fall asleep."""
    thawing = core.thaw()
    sayBug(core, error)
    core.failed(error, error.names if isinstance(error, WakeLocksExist) else ())
    finish(inputs, core, thawing, (core.statistics.lastReason,))


def sayBug(core: Core, error: Exception) -> None:
    """Say it if it is one of a freezer."""
    cause = error.__cause__
    if cause is not None and not isinstance(cause, (FreezerError, OSError, CancelledError)):
        _log.failure("{name}: the freezer failed", Failure(cause), name=core.name)


def wake(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    """It is not to be asleep any more."""
    # Nothing comes before this line: it is the wake latency.
    awakened(inputs, core, core.thaw(), reasons)


def awakened(
    inputs: LifeCycle, core: Core, thawing: Deferred[None], reasons: tuple[str, ...]
) -> None:
    """Likewise; its thaw has begun."""
    assert core.sleep is not None
    core.breathed()
    now = core.sleeper.nanoseconds()
    outcome = core.outcome = Resumed(now - core.sleep.since, reasons)
    seen = core.sources.seenAt
    latency = None if seen is None else core.thawedAt - seen
    core.statistics.succeeded(now, outcome.asleep, outcome.reason, latency)
    finish(inputs, core, thawing, reasons)


def finish(
    inputs: LifeCycle, core: Core, thawing: Deferred[None], reasons: tuple[str, ...]
) -> None:
    """Its sleep, or the way there, is over; its thaw has begun."""
    core.sources.disarm()
    if core.sleep is not None:
        core.sleep.stopTimers()
        core.sleep = None
    core.reasons = reasons
    core.retryAfter = THAW_RETRY[0]
    core.tell("resuming", reasons)
    awaitThaw(inputs, core, thawing)


def awaitThaw(inputs: LifeCycle, core: Core, thawing: Deferred[None]) -> None:
    """Say when it is thawed, and what woke it is known; or that it is not."""

    def ended(result: Failure | None) -> None:
        if isinstance(result, Failure):
            inputs.thawFailed(result)
        elif core.explaining is None or core.stopped:
            inputs.thawed()
        else:
            core.retry = core.clock.callLater(EXPLAIN_AFTER, explain)

    def explain() -> None:
        core.retry = None
        core.explain()
        inputs.thawed()

    thawing.addBoth(ended)


def countWakeups(sources: Sequence[Source]) -> None:
    """They have ended a sleep, or the way there."""
    for source in sources:
        source.statistics.wakeupCount += 1
