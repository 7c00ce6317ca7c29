"""
The container's life cycle: awake, suspending, asleep, resuming; and never asleep with work to do.

One machine owns it, and this table of transitions is the whole truth: also what comes late is in
it, and the diagram in the docs is drawn from it.  What the transitions do is done by
L{chanproxy.container.core}; where the inputs come from is L{chanproxy.container.suspension}.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.container.breath import BREATH, Breath
from chanproxy.container.core import Core, Sleep, namesOf
from chanproxy.container.outcomes import NotIdle, Resumed, SuspendFailure, WakeLocksExist, failed
from chanproxy.interfaces import FreezerError
from chanproxy.wake.source import Source, SourceGroup
from chanproxy.words import listed, safe

EXPLAIN_AFTER = 0.003
"""Seconds from the thaw until it is looked for who woke it: the container has its turn first."""

THAW_RETRY = (0.1, 5.0)
"""Seconds between tries to thaw: the first pause, and the longest."""

_log = Logger()


class LifeCycle(Protocol):
    """What can happen to a container."""

    def suspend(self) -> None:
        """Everything is quiet: stop it."""

    def frozen(self) -> None:
        """The freezer is done."""

    def looked(self, found: SourceGroup) -> None:
        """It was looked into, and waits for these."""

    def idle(self) -> None:
        """Nothing that it waits for has come meanwhile."""

    def interrupted(self, error: Exception) -> None:
        """The freezer failed, or it is at work, before it was asleep."""

    def signalled(self, sources: Sequence[Source]) -> None:
        """Something became positive that keeps it awake."""

    def breathe(self, reason: str) -> None:
        """Let it run for a moment."""

    def settled(self) -> None:
        """Each of its threads waits again."""

    def resume(self, reasons: tuple[str, ...]) -> None:
        """Wake it."""

    def thawed(self) -> None:
        """It runs."""

    def thawFailed(self, why: Failure) -> None:
        """It does not run yet."""


builder = TypeMachineBuilder(LifeCycle, Core)
awake = builder.state("awake")
suspending = builder.state("suspending")
asleep = builder.state("asleep")
breathing = builder.state("breathing")
refreezing = builder.state("refreezing")
resuming = builder.state("resuming")


# To sleep.


@awake.upon(LifeCycle.suspend).to(suspending)
def _beginFreeze(inputs: LifeCycle, core: Core) -> None:
    core.tell("suspending")
    if core.stopped:
        inputs.resume(("the service stopped",))
    else:
        _freeze(inputs, core)


def _freeze(inputs: LifeCycle, core: Core) -> None:
    try:
        if core.record is not None:
            core.record.write()
        core.sources.arm(inputs.signalled)
        freezing = core.freezer.freeze()
    except Exception as error:
        inputs.interrupted(failed(error))
    else:
        freezing.addCallbacks(lambda _: inputs.frozen(), lambda failure: _failed(inputs, failure))


def _failed(inputs: LifeCycle, failure: Failure) -> None:
    inputs.interrupted(failed(failure.value))


@suspending.upon(LifeCycle.frozen).loop()
@refreezing.upon(LifeCycle.frozen).loop()
def _lookInto(inputs: LifeCycle, core: Core) -> None:
    # What came between the first look at the registry and the freeze.
    signalled = core.sources.signalled()
    if signalled:
        inputs.signalled(signalled)
    elif core.sleeper.look is None:
        inputs.idle()
    else:
        # Kept only while it is pending: it may have fired by now.
        core.looking = looking = core.sleeper.look()
        looking.addCallbacks(inputs.looked, lambda failure: inputs.interrupted(notIdle(failure)))


def notIdle(failure: Failure) -> NotIdle:
    """What a suspend fails with when a look has found the container at work."""
    return NotIdle(str(failure.value), getattr(failure.value, "again", None))


@suspending.upon(LifeCycle.looked).loop()
@refreezing.upon(LifeCycle.looked).loop()
def _lookAgain(inputs: LifeCycle, core: Core, found: SourceGroup) -> None:
    core.looking, core.found = None, found
    # Nothing in it can have changed since the freeze, but what it waits for can have come.
    signalled = core.sources.signalled()
    if signalled:
        inputs.signalled(signalled)
    else:
        inputs.idle()


@suspending.upon(LifeCycle.idle).to(asleep)
def _fallAsleep(inputs: LifeCycle, core: Core) -> None:
    _sleep(inputs, core, core.fallAsleep())


@refreezing.upon(LifeCycle.idle).to(asleep)
def _sleepOn(inputs: LifeCycle, core: Core) -> None:
    assert core.sleep is not None
    core.breathed()
    _sleep(inputs, core, core.sleep)


def _sleep(inputs: LifeCycle, core: Core, sleep: Sleep) -> None:
    following = core.nextTime(sleep)
    if following is not None:
        seconds, reason, wakes = following
        if wakes:
            sleep.timer = core.clock.callLater(seconds, inputs.resume, (reason,))
        else:
            sleep.timer = core.clock.callLater(seconds, inputs.breathe, reason)
    core.tell("asleep")
    disturbed = core.freezer.whenDisturbed()
    disturbed.addCallbacks(
        lambda reason: inputs.resume((reason,)), lambda failure: failure.trap(CancelledError)
    )
    disturbed.addErrback(lambda failure: inputs.resume((str(failure.value),)))


# A breath.


@asleep.upon(LifeCycle.breathe).to(breathing)
def _breathe(inputs: LifeCycle, core: Core, reason: str) -> None:
    thawing = core.thaw(breathes=True)
    sleep = core.sleep
    assert sleep is not None
    assert core.sleeper.settle is not None
    if reason == BREATH:
        # So the next one comes no later than after as long as it has slept so far, and a second.
        sleep.interval *= 2
    sleep.stopTimers()
    sleep.breath = breath = Breath(
        inputs, core.clock, core.sleeper.settle, reason, core.sleeper.nanoseconds()
    )
    core.tell("breathing", (reason,))
    # What is not thawed is tried again as a wake.
    thawing.addCallbacks(
        lambda _: breath.begin(), lambda failure: inputs.resume((str(failure.value),))
    )


@breathing.upon(LifeCycle.settled).to(refreezing)
def _freezeAgain(inputs: LifeCycle, core: Core) -> None:
    assert core.sleep is not None
    core.sleep.stopTimers()
    core.tell("refreezing")
    _freeze(inputs, core)


# It does not come to that.


@suspending.upon(LifeCycle.interrupted).to(resuming)
def _abort(inputs: LifeCycle, core: Core, error: Exception) -> None:
    thawing = core.thaw()
    _sayBug(core, error)
    core.failed(error, error.names if isinstance(error, WakeLocksExist) else ())
    _finish(inputs, core, thawing, (core.statistics.lastReason,))


def _sayBug(core: Core, error: Exception) -> None:
    cause = error.__cause__
    if cause is not None and not isinstance(cause, (FreezerError, OSError, CancelledError)):
        _log.failure("{name}: the freezer failed", Failure(cause), name=core.name)


@suspending.upon(LifeCycle.signalled).to(resuming)
def _abortSignalled(inputs: LifeCycle, core: Core, sources: Sequence[Source]) -> None:
    names = namesOf(sources)
    if any(source.kind == "adopted" for source in sources):
        why = f"busy: {listed(names)}: what it waits for is there"
        _abort(inputs, core, NotIdle(why))
    else:
        _abort(inputs, core, WakeLocksExist(names))
    _countWakeups(sources)


def _countWakeups(sources: Sequence[Source]) -> None:
    for source in sources:
        source.statistics.wakeupCount += 1


@suspending.upon(LifeCycle.resume).to(resuming)
def _abortOnRequest(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    _abort(inputs, core, SuspendFailure(listed(reasons)))


# Awake again.


@asleep.upon(LifeCycle.signalled).to(resuming)
@breathing.upon(LifeCycle.signalled).to(resuming)
@refreezing.upon(LifeCycle.signalled).to(resuming)
def _wakeSignalled(inputs: LifeCycle, core: Core, sources: Sequence[Source]) -> None:
    core.explainLater(sources, time.monotonic_ns())
    thawing = core.thaw()
    _awakened(inputs, core, thawing, tuple(namesOf(sources)))
    _countWakeups(sources)


@refreezing.upon(LifeCycle.interrupted).to(resuming)
def _wakeInstead(inputs: LifeCycle, core: Core, error: Exception) -> None:
    _sayBug(core, error)
    _wake(inputs, core, (str(error),))


@asleep.upon(LifeCycle.resume).to(resuming)
@breathing.upon(LifeCycle.resume).to(resuming)
@refreezing.upon(LifeCycle.resume).to(resuming)
def _wake(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    # Nothing comes before this line: it is the wake latency.
    _awakened(inputs, core, core.thaw(), reasons)


def _awakened(
    inputs: LifeCycle, core: Core, thawing: Deferred[None], reasons: tuple[str, ...]
) -> None:
    assert core.sleep is not None
    core.breathed()
    now = core.sleeper.nanoseconds()
    outcome = core.outcome = Resumed(now - core.sleep.since, reasons)
    seen = core.sources.seenAt
    latency = None if seen is None else core.thawedAt - seen
    core.statistics.succeeded(now, outcome.asleep, outcome.reason, latency)
    _finish(inputs, core, thawing, reasons)


def _finish(
    inputs: LifeCycle, core: Core, thawing: Deferred[None], reasons: tuple[str, ...]
) -> None:
    core.sources.disarm()
    if core.sleep is not None:
        core.sleep.stopTimers()
        core.sleep = None
    core.reasons = reasons
    core.pause = THAW_RETRY[0]
    core.tell("resuming", reasons)
    _await(inputs, core, thawing)


def _await(inputs: LifeCycle, core: Core, thawing: Deferred[None]) -> None:
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


@resuming.upon(LifeCycle.thawed).to(awake)
def _awaken(inputs: LifeCycle, core: Core) -> None:
    core.explaining = None
    if core.record is not None:
        core.record.clear()
    # A watcher or a waiter may ask for the next suspend at once: that is another one.
    waiting, core.waiting = core.waiting, []
    core.tell("awake", core.reasons)
    core.answer(waiting)


@resuming.upon(LifeCycle.thawFailed).loop()
def _tryAgain(inputs: LifeCycle, core: Core, why: Failure) -> None:
    if core.stopped:
        return
    _log.error(
        "{name}: not thawed, trying again in {pause} s: {why}",
        name=core.name,
        pause=core.pause,
        why=safe(str(why.value)),
    )

    def again() -> None:
        core.retry = None
        _await(inputs, core, core.freezer.thaw())

    core.retry = core.clock.callLater(core.pause, again)
    core.pause = min(core.pause * 2, THAW_RETRY[1])


# What comes late: said from inside a transition it arrives after it, and what others have begun
# goes on until they hear that it is not wanted any more.

LATE = {
    "awake": "breathe frozen idle interrupted looked resume settled signalled thawed thawFailed",
    "suspending": "suspend",
    "asleep": "interrupted suspend",
    "breathing": "interrupted suspend",
    "refreezing": "suspend",
    "resuming": "breathe frozen idle interrupted looked resume settled signalled suspend",
}
"""Inputs that change nothing, by the states in which they may come."""


def _forget(inputs: LifeCycle, core: Core, *said: object) -> None:
    """Nothing follows from what comes late."""


def _close(inputs: LifeCycle, core: Core, found: SourceGroup) -> None:
    found.close()


for _state in (awake, suspending, asleep, breathing, refreezing, resuming):
    for _name in LATE[_state.name].split():
        _state.upon(getattr(LifeCycle, _name)).loop()(_close if _name == "looked" else _forget)

machine = builder.build()
