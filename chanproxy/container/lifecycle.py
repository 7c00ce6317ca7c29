"""
The container's life cycle: awake, suspending, asleep, resuming, and never asleep with work to do,
unless somebody has paused it.

One machine owns it, and this table of transitions is the whole truth: also what comes late is in
it, and the diagram in the docs is drawn from it.  What the transitions do is done by
L{chanproxy.container.acts} and L{chanproxy.container.core}; where the inputs come from is
L{chanproxy.container.suspension}.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from automat import TypeMachineBuilder
from twisted.logger import Logger
from twisted.python.failure import Failure

from chanproxy.container.acts import (
    THAW_RETRY,
    abort,
    awaitThaw,
    awakened,
    countWakeups,
    freeze,
    notIdle,
    sayBug,
    seeDisturbed,
    wake,
)
from chanproxy.container.breath import BREATH, Breath
from chanproxy.container.core import Core, Sleep, namesOf
from chanproxy.container.inputs import LifeCycle
from chanproxy.container.outcomes import NotIdle, SuspendFailure, WakeLocksExist
from chanproxy.wake.source import Source, SourceGroup
from chanproxy.words import listed, safe

_log = Logger()


builder = TypeMachineBuilder(LifeCycle, Core)
awake = builder.state("awake")
suspending = builder.state("suspending")
asleep = builder.state("asleep")
breathing = builder.state("breathing")
refreezing = builder.state("refreezing")
pausing = builder.state("pausing")
paused = builder.state("paused")
resuming = builder.state("resuming")


# To sleep.


@awake.upon(LifeCycle.suspend).to(suspending)
def _beginFreeze(inputs: LifeCycle, core: Core) -> None:
    core.tell("suspending")
    if core.stopped:
        inputs.resume(("the service stopped",))
    else:
        freeze(inputs, core)


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
    seeDisturbed(inputs, core)


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
    freeze(inputs, core)


# Asleep, and nothing wakes it.


@awake.upon(LifeCycle.pause).to(pausing)
def _beginPause(inputs: LifeCycle, core: Core, by: str) -> None:
    core.statistics.attempted(core.sleeper.nanoseconds())
    core.tell("pausing")
    if core.pause is None:
        inputs.interrupted(SuspendFailure("it was unpaused meanwhile"))
    else:
        freeze(inputs, core, wakes=False)


@pausing.upon(LifeCycle.frozen).to(paused)
def _pause(inputs: LifeCycle, core: Core) -> None:
    # As it is: nobody looks into it, for nothing in there is to wake it.
    core.fallAsleep()
    _paused(core)
    seeDisturbed(inputs, core)


@asleep.upon(LifeCycle.pause).to(paused)
def _sleepOnPaused(inputs: LifeCycle, core: Core, by: str) -> None:
    assert core.sleep is not None
    core.sources.disarm()
    core.sleep.stopTimers()
    _paused(core)


def _paused(core: Core) -> None:
    core.tell("paused")
    pausers, core.pausers = core.pausers, []
    for pauser in pausers:
        pauser.callback(None)


@suspending.upon(LifeCycle.pause).to(resuming)
def _abortToPause(inputs: LifeCycle, core: Core, by: str) -> None:
    abort(inputs, core, SuspendFailure(by))


@breathing.upon(LifeCycle.pause).to(resuming)
@refreezing.upon(LifeCycle.pause).to(resuming)
def _wakeToPause(inputs: LifeCycle, core: Core, by: str) -> None:
    # It may be anywhere between two of its turns: paused as soon as it is known to be thawed.
    wake(inputs, core, (by,))


@paused.upon(LifeCycle.unpause).to(resuming)
def _unpause(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    core.pause = None
    wake(inputs, core, reasons)


@paused.upon(LifeCycle.disturbed).to(resuming)
def _unpauseDisturbed(inputs: LifeCycle, core: Core, reason: str) -> None:
    _unpause(inputs, core, (reason,))


@pausing.upon(LifeCycle.unpause).to(resuming)
def _giveUpPause(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    _doNotPause(inputs, core, SuspendFailure(listed(reasons)))


@pausing.upon(LifeCycle.interrupted).to(resuming)
def _doNotPause(inputs: LifeCycle, core: Core, error: Exception) -> None:
    core.pause = None
    abort(inputs, core, error)


# It does not come to that.


@suspending.upon(LifeCycle.interrupted).to(resuming)
def _interrupt(inputs: LifeCycle, core: Core, error: Exception) -> None:
    abort(inputs, core, error)


@suspending.upon(LifeCycle.signalled).to(resuming)
def _abortSignalled(inputs: LifeCycle, core: Core, sources: Sequence[Source]) -> None:
    names = namesOf(sources)
    if any(source.kind == "adopted" for source in sources):
        why = f"busy: {listed(names)}: what it waits for is there"
        abort(inputs, core, NotIdle(why))
    else:
        abort(inputs, core, WakeLocksExist(names))
    countWakeups(sources)


@suspending.upon(LifeCycle.resume).to(resuming)
def _abortOnRequest(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    abort(inputs, core, SuspendFailure(listed(reasons)))


# Awake again.


@asleep.upon(LifeCycle.signalled).to(resuming)
@breathing.upon(LifeCycle.signalled).to(resuming)
@refreezing.upon(LifeCycle.signalled).to(resuming)
def _wakeSignalled(inputs: LifeCycle, core: Core, sources: Sequence[Source]) -> None:
    core.explainLater(sources, time.monotonic_ns())
    thawing = core.thaw()
    awakened(inputs, core, thawing, tuple(namesOf(sources)))
    countWakeups(sources)


@refreezing.upon(LifeCycle.interrupted).to(resuming)
def _wakeInstead(inputs: LifeCycle, core: Core, error: Exception) -> None:
    sayBug(core, error)
    wake(inputs, core, (str(error),))


@asleep.upon(LifeCycle.disturbed).to(resuming)
@breathing.upon(LifeCycle.disturbed).to(resuming)
@refreezing.upon(LifeCycle.disturbed).to(resuming)
def _wakeDisturbed(inputs: LifeCycle, core: Core, reason: str) -> None:
    wake(inputs, core, (reason,))


@asleep.upon(LifeCycle.resume).to(resuming)
@breathing.upon(LifeCycle.resume).to(resuming)
@refreezing.upon(LifeCycle.resume).to(resuming)
def _wakeOnRequest(inputs: LifeCycle, core: Core, reasons: tuple[str, ...]) -> None:
    wake(inputs, core, reasons)


@resuming.upon(LifeCycle.thawed).to(awake)
def _awaken(inputs: LifeCycle, core: Core) -> None:
    core.explaining = None
    if core.record is not None:
        core.record.clear()
    # A watcher or a waiter may ask for the next suspend at once: that is another one.
    waiting, core.waiting = core.waiting, []
    core.tell("awake", core.reasons)
    core.answer(waiting)
    if core.pause is not None:
        inputs.pause(core.pause.by)
    else:
        core.notPaused()


@resuming.upon(LifeCycle.thawFailed).loop()
def _tryAgain(inputs: LifeCycle, core: Core, why: Failure) -> None:
    if core.stopped:
        return
    _log.error(
        "{name}: not thawed, trying again in {pause} s: {why}",
        name=core.name,
        pause=core.retryAfter,
        why=safe(str(why.value)),
    )

    def again() -> None:
        core.retry = None
        awaitThaw(inputs, core, core.freezer.thaw())

    core.retry = core.clock.callLater(core.retryAfter, again)
    core.retryAfter = min(core.retryAfter * 2, THAW_RETRY[1])


# What comes late: said from inside a transition it arrives after it, and what others have begun
# goes on until they hear that it is not wanted any more.

LATE = {
    "awake": (
        "breathe disturbed frozen idle interrupted looked resume settled signalled thawed "
        "thawFailed unpause"
    ),
    "suspending": "disturbed suspend unpause",
    "asleep": "interrupted suspend unpause",
    "breathing": "interrupted suspend unpause",
    "refreezing": "suspend unpause",
    "pausing": "breathe disturbed idle looked pause resume settled signalled suspend",
    "paused": "breathe frozen idle interrupted looked pause resume settled signalled suspend",
    "resuming": (
        "breathe disturbed frozen idle interrupted looked pause resume settled signalled suspend "
        "unpause"
    ),
}
"""Inputs that change nothing, by the states in which they may come."""


def _forget(inputs: LifeCycle, core: Core, *said: object) -> None:
    """Nothing follows from what comes late."""


def _close(inputs: LifeCycle, core: Core, found: SourceGroup) -> None:
    found.close()


for _state in (awake, suspending, asleep, breathing, refreezing, pausing, paused, resuming):
    for _name in LATE[_state.name].split():
        _state.upon(getattr(LifeCycle, _name)).loop()(_close if _name == "looked" else _forget)

machine = builder.build()
