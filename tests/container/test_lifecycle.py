"""A whole container under a fake clock: everything that can happen, in any order."""

from __future__ import annotations

import os
import select
from itertools import pairwise
from typing import TypeVar, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred
from zope.interface import implementer

from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.outcomes import (
    AlreadySuspended,
    Paused,
    Resumed,
    SuspendFailure,
    WakeLocksExist,
)
from chanproxy.interfaces import ChanproxyReactor, FreezerError, IWakeWatcher
from chanproxy.testing.freezers import FakeFreezer
from chanproxy.testing.reactor import FakeReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.words import listed

T = TypeVar("T")

LINGER = 1.0
LIMIT = 8.0

LEGAL = {
    ("awake", "suspending"),
    # It is paused.
    ("asleep", "asleep"),
    ("suspending", "asleep"),
    ("suspending", "resuming"),
    ("asleep", "resuming"),
    ("resuming", "awake"),
}

HOLDERS = st.sampled_from([None, "holder"])
LOCKS = st.sampled_from(["lock", "other lock"])
MOMENTS = st.sampled_from([0.0, 0.1, 0.25, 1.0, 2.5, 60.0])


def outcome(deferred: Deferred[T]) -> list[T | BaseException]:
    """What it fired with, as soon as it has: the result, or the exception."""
    found: list[T | BaseException] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


@implementer(IWakeWatcher)
class Witness:
    """
    A watcher.

    @ivar since: how many changes there had been before it came.
    """

    def __init__(self, since: int) -> None:
        self.since = since
        self.told: list[tuple[str, str]] = []
        self.gone = False

    def stateChanged(self, state: str, reasons: tuple[str, ...]) -> None:
        self.told.append((state, listed(reasons)))

    def dropped(self) -> None:
        self.gone = True


class ContainerMachine(RuleBasedStateMachine):
    """The reactor has its turn only when it gets one."""

    def __init__(self) -> None:
        super().__init__()
        self.reactor = FakeReactor()
        self.freezer = FakeFreezer(manual=True)
        self.turned = False
        self.results: list[list[Resumed | BaseException]] = []
        self.pauses: list[list[BaseException | None]] = []
        self.changes: list[tuple[str, str]] = []
        self.suspendingSince = self.asleepSince = 0.0
        self.timeout: float | None = None
        self.witnesses: list[Witness] = []
        self.held: dict[tuple[str, str | None], float | None] = {}
        self.counters = [MessageCounter(self.reactor) for _ in range(2)]
        self.readable, self.writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @initialize(mode=st.sampled_from(["auto", "manual"]))
    def start(self, mode: str) -> None:
        self.container = Container(
            cast(ChanproxyReactor, self.reactor),
            "test",
            self.freezer,
            mode,
            around=Surroundings(recorded=False),
            bounds=Bounds(linger=LINGER, wakeSources=3, wakeLocks=2, freezeLimit=LIMIT),
        )
        self.container.suspension.addWatcher(self.changed)
        self.sources = self.container.sources
        for number, counter in enumerate(self.counters):
            self.sources.add(f"counter {number}", counter)
        self.container.start()

    def changed(self, state: str, reasons: tuple[str, ...]) -> None:
        self.changes.append((state, listed(reasons)))
        if state == "suspending":
            self.suspendingSince = self.reactor.seconds()
        elif state == "asleep":
            self.asleepSince = self.reactor.seconds()
        elif state == "awake":
            self.timeout = None

    @property
    def state(self) -> str:
        return self.container.suspension.state

    @property
    def paused(self) -> bool:
        """Whether nothing is to wake it; also while it is not stopped yet."""
        return self.container.suspension.paused is not None

    def positive(self) -> bool:
        """Whether anything keeps it awake, by other means than those under test."""
        with select.epoll() as pipe:
            pipe.register(self.readable, select.EPOLLIN)
            written = bool(pipe.poll(0)) and self.sources.find(self.readable) is not None
        return bool(self.held) or written or any(c.value() for c in self.counters)

    def expire(self) -> None:
        """Let the model's locks go that the clock has ended."""
        now = self.reactor.seconds()
        for key, end in list(self.held.items()):
            if end is not None and end <= now:
                del self.held[key]

    # What keeps it awake.

    @rule(number=st.integers(0, 1), count=st.integers(1, 3))
    def add(self, number: int, count: int) -> None:
        self.turned = False
        self.container.ledger.activity += count
        self.counters[number].add(count)

    @rule(number=st.integers(0, 1), count=st.integers(1, 5))
    def handled(self, number: int, count: int) -> None:
        self.counters[number].handled(count)

    @rule(name=LOCKS, holder=HOLDERS, timeout=st.sampled_from([None, 0.05, 1.5, 30.0]))
    def acquire(self, name: str, holder: str | None, timeout: float | None) -> None:
        self.turned = False
        self.sources.locks.acquire(name, timeout, holder)
        end = None if timeout is None else self.reactor.seconds() + timeout
        self.held[name, holder] = end

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name, holder = data.draw(st.sampled_from(sorted(self.held, key=str)))
        self.sources.locks.release(name, holder)
        del self.held[name, holder]

    @rule(holder=HOLDERS)
    def releaseAll(self, holder: str | None) -> None:
        self.sources.locks.releaseAll(holder)
        self.held = {key: end for key, end in self.held.items() if key[1] != holder}

    @precondition(lambda self: self.sources.find(self.readable) is None)
    @rule()
    def addSource(self) -> None:
        self.turned = False
        self.sources.addDescriptor("pipe", self.readable, select.EPOLLIN)

    @precondition(lambda self: self.sources.find(self.readable) is not None)
    @rule()
    def removeSource(self) -> None:
        duplicate = os.dup(self.readable)
        self.sources.remove(duplicate)
        os.close(duplicate)

    @rule()
    def writePipe(self) -> None:
        self.turned = False
        os.write(self.writable, b".")

    @rule()
    def drainPipe(self) -> None:
        try:
            os.read(self.readable, 65536)
        except BlockingIOError:
            return

    # What is asked of it.

    @rule(timeout=st.sampled_from([None, 0.0, 0.5, 90.0]))
    def suspend(self, timeout: float | None) -> None:
        wasAwake = self.state == "awake"
        positive = self.positive()
        result = outcome(self.container.suspend(timeout))
        if self.paused:
            assert isinstance(result[0], Paused)
        elif not wasAwake:
            assert isinstance(result[0], AlreadySuspended)
        elif positive:
            assert isinstance(result[0], WakeLocksExist)
        else:
            self.timeout = timeout
        self.results.append(result)

    @rule()
    def resume(self) -> None:
        before = self.state
        self.container.suspension.resume("test")
        if self.paused:
            assert self.state == before

    @rule()
    def pause(self) -> None:
        self.pauses.append(outcome(self.container.pause("somebody")))

    @rule()
    def unpause(self) -> None:
        self.turned = False
        was = self.paused
        self.container.suspension.unpause("somebody else")
        assert self.container.suspension.paused is None
        if was:
            assert self.state in ("resuming", "awake")

    @rule()
    def watch(self) -> None:
        witness = Witness(len(self.changes))
        self.container.watchers.add(witness)
        self.witnesses.append(witness)

    @precondition(lambda self: self.witnesses)
    @rule()
    def unwatch(self) -> None:
        self.container.watchers.remove(self.witnesses.pop(0))

    # What happens to it.

    @rule(seconds=MOMENTS)
    def advance(self, seconds: float) -> None:
        self.reactor.run(seconds)
        self.expire()
        self.turned = True

    @rule()
    def turn(self) -> None:
        self.reactor.turn()
        self.turned = True

    @precondition(lambda self: self.freezer.freezing)
    @rule()
    def finishFreeze(self) -> None:
        self.freezer.finishFreeze()
        # The second look: not even a turn of the reactor later.
        assert not (self.positive() and self.state == "asleep" and not self.paused)

    @precondition(lambda self: self.freezer.freezing)
    @rule()
    def failFreeze(self) -> None:
        self.freezer.failFreeze("no luck")

    @precondition(lambda self: self.freezer.frozen)
    @rule()
    def disturb(self) -> None:
        self.freezer.disturb("disturbed")

    @rule(broken=st.booleans())
    def breakThaw(self, broken: bool) -> None:
        self.freezer.thawError = FreezerError("not now") if broken else None

    @rule(ready=st.booleans())
    def changeReady(self, ready: bool) -> None:
        if ready:
            self.freezer.becomeReady()
        else:
            self.freezer.ready = False

    # What holds always.

    @invariant()
    def neverAsleepWithWork(self) -> None:
        if self.turned and self.positive() and not self.paused:
            assert self.state != "asleep"

    @invariant()
    def pausesAreTrue(self) -> None:
        """Whoever waits for one is told as soon as it is so, or cannot be."""
        pending = sum(not result for result in self.pauses)
        assert not pending or self.state in ("suspending", "resuming")
        for (failed,) in filter(None, self.pauses):
            assert failed is None or isinstance(failed, SuspendFailure)

    @invariant()
    def registryIsTrue(self) -> None:
        assert bool(self.sources.signalled()) == self.positive()
        with select.epoll() as reactor:
            reactor.register(self.sources.fileno(), select.EPOLLIN)
            # While it is suspended the reactor is called for that, and for nothing else.
            armed = self.state in ("suspending", "asleep") and not self.paused
            assert bool(reactor.poll(0)) == (armed and self.positive())

    @invariant()
    def neverStuck(self) -> None:
        if self.state == "suspending":
            assert self.reactor.seconds() <= self.suspendingSince + LIMIT
        sleeps = self.state == "asleep" and not self.paused
        if sleeps and self.timeout is not None and self.turned:
            assert self.reactor.seconds() <= self.asleepSince + self.timeout

    @invariant()
    def locksAreAsTold(self) -> None:
        assert set(self.sources.locks.held) == {name for name, _ in self.held}

    @invariant()
    def legalPath(self) -> None:
        states = [state for state, _ in self.changes]
        assert states[0] == "awake"
        assert set(pairwise(states)) <= LEGAL
        assert states[-1] == self.state

    @invariant()
    def stateIsTrue(self) -> None:
        if self.state == "awake":
            assert not self.freezer.frozen
            assert not self.freezer.freezing
        if self.state == "asleep":
            assert self.freezer.frozen
        if self.state == "suspending":
            assert self.freezer.freezing

    @invariant()
    def watchersSeeTheChanges(self) -> None:
        """The state that there was first, then whatever became of it, in order and once."""
        for witness in self.witnesses:
            expected = _twoStates(self.changes[: witness.since])[-1:]
            expected += _twoStates(self.changes)[len(_twoStates(self.changes[: witness.since])) :]
            assert witness.told == expected
            assert not witness.gone

    @invariant()
    def statisticsAddUp(self) -> None:
        statistics = self.container.suspension.statistics
        pending = self.state in ("suspending", "asleep")
        assert statistics.attempts == statistics.successes + statistics.failures + pending
        assert sum(statistics.histogram) == statistics.successes
        kinds = [event.kind for event in statistics.events]
        assert len(kinds) == min(2 * statistics.attempts - pending, 128)
        assert set(pairwise(kinds)) <= {
            ("attempt", "resume"),
            ("attempt", "fail"),
            ("resume", "attempt"),
            ("fail", "attempt"),
        }

    def settle(self) -> None:
        """All that can be handled, frozen and thawed is; then it sleeps, and wakes."""
        self.freezer.thawError = None
        self.freezer.becomeReady()
        self.container.suspension.unpause("the end")
        for counter in self.counters:
            counter.handled(counter.value())
        for holder in (None, "holder"):
            self.releaseAll(holder)
        self.drainPipe()
        self.reactor.run(130)
        if self.container.mode == "auto":
            # It tries again and again, a minute apart at most.
            for _ in range(200):
                if self.freezer.freezing:
                    self.freezer.finishFreeze()
                if self.state == "asleep":
                    break
                self.reactor.run(0.5)
            assert self.state == "asleep"
        self.counters[0].add(1)
        self.reactor.run(10)
        assert self.state == "awake"
        assert all(len(result) == 1 for result in self.results)
        assert all(len(result) == 1 for result in self.pauses)
        for (result,) in self.results:
            known = Resumed | SuspendFailure | WakeLocksExist | AlreadySuspended | Paused
            assert isinstance(result, known)
        self.legalPath()
        self.stateIsTrue()
        self.watchersSeeTheChanges()

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.container.stop()
            assert all(witness.gone for witness in self.witnesses)
            for counter in self.counters:
                counter.close()
            os.close(self.readable)
            os.close(self.writable)
            assert self.reactor.getReaders() == []
            assert self.reactor.getDelayedCalls() == []


def _twoStates(changes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of the life cycle's states, those that watchers are told."""
    found: list[tuple[str, str]] = []
    for state, reason in changes:
        if state in ("awake", "asleep") and (not found or found[-1][0] != state):
            found.append((state, reason))
    return found


TestContainerMachine = ContainerMachine.TestCase
TestContainerMachine.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
