"""
For tests: the suite for all freezers; it needs pytest and pytest-twisted.

A new freezer is right when a subclass of L{FreezerConformance} passes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any, ParamSpec, Protocol, cast

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it has no annotations
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from chanproxy.interfaces import FreezeInterrupted, FreezerError, FreezerNotReady, IFreezer
from chanproxy.testing.fakefreezer import FakeFreezer as FakeFreezer


class _Callable(Protocol):
    def __call__(self) -> object: ...


@frozen
class FreezerSubject:
    """
    What the suite tests, and how it moves the world around it.

    @ivar freezer: a new freezer whose container has no process yet.
    @ivar isStopped: whether all of the container is stopped, found without the freezer.
    @ivar spec: the C{spec} that the freezer must show.
    @ivar start: gives the container its first process.
    @ivar thawFromOutside: thaws the container, not through the freezer.
    @ivar processes: the ids of the container's processes, found without the freezer.
    @ivar moveIn: moves one more process into the container, of which the freezer tells; None, if
        it cannot.
    """

    freezer: IFreezer
    isStopped: Callable[[], bool]
    spec: str
    start: _Callable
    thawFromOutside: _Callable
    processes: Callable[[], set[int]]
    moveIn: _Callable | None = None


_Steps = Generator[Deferred[Any], Any, None]
_P = ParamSpec("_P")


def _steps(test: Callable[_P, _Steps]) -> Callable[_P, Deferred[None]]:
    """pytest-twisted's C{inlineCallbacks}, with its type."""
    return cast(Callable[_P, Deferred[None]], pytest_twisted.inlineCallbacks(test))


class FreezerConformance:
    """
    What every L{IFreezer} must do.  A subclass for pytest has a fixture C{subject} that gives a
    L{FreezerSubject}; pytest-twisted has to be loaded.
    """

    def test_interface(self, subject: FreezerSubject) -> None:
        """It provides the interface, and shows the string it was made from."""
        verifyObject(IFreezer, subject.freezer)
        assert subject.freezer.spec == subject.spec

    def test_checkWithoutContainer(self, subject: FreezerSubject) -> None:
        """A container that has no process is no error, and one that has is none either."""
        subject.freezer.check()
        subject.start()
        subject.freezer.check()

    @_steps
    def test_processes(self, subject: FreezerSubject) -> _Steps:
        """The processes are known, frozen or not; without a container there is none."""
        assert list(subject.freezer.processes()) == []
        subject.start()
        started = subject.processes()
        assert started
        assert set(subject.freezer.processes()) == started
        yield subject.freezer.freeze()
        assert set(subject.freezer.processes()) == started
        yield subject.freezer.thaw()

    @_steps
    def test_cpuTime(self, subject: FreezerSubject) -> _Steps:
        """
        The use of the processor only grows, and not while frozen; without a container it is 0, or
        not known.
        """
        with contextlib.suppress(FreezerError):
            assert subject.freezer.cpuTime() == 0
        subject.start()
        first = subject.freezer.cpuTime()
        assert first >= 0
        yield subject.freezer.freeze()
        frozen = subject.freezer.cpuTime()
        assert frozen >= first
        time.sleep(0.05)
        # What the kernel itself did to stop it may be counted a little later.
        assert subject.freezer.cpuTime() <= frozen + 10_000
        yield subject.freezer.thaw()
        assert subject.freezer.cpuTime() >= frozen

    @_steps
    def test_freezeAndThaw(self, subject: FreezerSubject) -> _Steps:
        """A freeze stops the container, a thaw starts it."""
        subject.start()
        assert not subject.isStopped()
        yield subject.freezer.freeze()
        assert subject.isStopped()
        assert list(subject.freezer.unfrozenTasks()) == []
        yield subject.freezer.thaw()
        assert not subject.isStopped()

    @_steps
    def test_thawWhilePending(self, subject: FreezerSubject) -> _Steps:
        """A thaw interrupts a freeze that is not complete, and the container runs."""
        subject.start()
        # Whether the freeze is still pending is the kernel's choice; most of 50 times it is.
        for _ in range(50):
            outcome: list[object] = []
            subject.freezer.freeze().addBoth(outcome.append)
            wasPending = not outcome
            yield subject.freezer.thaw()
            assert not subject.isStopped()
            assert len(outcome) == 1
            if wasPending:
                assert isinstance(getattr(outcome[0], "value", None), FreezeInterrupted)
            else:
                assert outcome == [None]

    @_steps
    def test_cancelFreeze(self, subject: FreezerSubject) -> _Steps:
        """Cancelling a freeze gives up the waiting; a thaw cleans up, and it can freeze again."""
        subject.start()
        outcome: list[object] = []
        freezing = subject.freezer.freeze().addBoth(outcome.append)
        freezing.cancel()
        assert outcome == [None] or isinstance(getattr(outcome[0], "value", None), CancelledError)
        yield subject.freezer.thaw()
        assert not subject.isStopped()
        yield subject.freezer.freeze()
        assert subject.isStopped()
        yield subject.freezer.thaw()

    @_steps
    def test_thawTwice(self, subject: FreezerSubject) -> _Steps:
        """A thaw is harmless: before the container is there, before a freeze, and twice."""
        yield subject.freezer.thaw()
        subject.start()
        yield subject.freezer.thaw()
        yield subject.freezer.freeze()
        yield subject.freezer.thaw()
        yield subject.freezer.thaw()
        assert not subject.isStopped()

    @_steps
    def test_notReady(self, subject: FreezerSubject) -> _Steps:
        """Without a process there is nothing to freeze; C{whenReady} fires when there is one."""
        with pytest.raises(FreezerNotReady):
            yield subject.freezer.freeze()
        yield subject.freezer.thaw()
        ready = subject.freezer.whenReady()
        assert not ready.called
        subject.start()
        yield ready
        again = subject.freezer.whenReady()
        assert again.called
        yield subject.freezer.freeze()
        assert subject.isStopped()
        yield subject.freezer.thaw()

    @_steps
    def test_cancelWhenReady(self, subject: FreezerSubject) -> _Steps:
        """Each C{whenReady} is cancelled by itself."""
        cancelled = subject.freezer.whenReady()
        other = subject.freezer.whenReady()
        cancelled.cancel()
        with pytest.raises(CancelledError):
            yield cancelled
        subject.start()
        yield other

    @_steps
    def test_disturbed(self, subject: FreezerSubject) -> _Steps:
        """C{whenDisturbed} tells of a thaw by somebody else, in words."""
        subject.start()
        yield subject.freezer.freeze()
        disturbed = subject.freezer.whenDisturbed()
        assert not disturbed.called
        subject.thawFromOutside()
        reason = yield disturbed
        assert isinstance(reason, str)
        assert reason
        yield subject.freezer.thaw()
        assert not subject.isStopped()

    @_steps
    def test_thawCancelsDisturbed(self, subject: FreezerSubject) -> _Steps:
        """Our own thaw is no disturbance: it cancels C{whenDisturbed}; so does the caller."""
        subject.start()
        yield subject.freezer.freeze()
        given = subject.freezer.whenDisturbed()
        given.cancel()
        with pytest.raises(CancelledError):
            yield given
        disturbed = subject.freezer.whenDisturbed()
        yield subject.freezer.thaw()
        with pytest.raises(CancelledError):
            yield disturbed

    @_steps
    def test_stirs(self, subject: FreezerSubject) -> _Steps:
        """
        While frozen it tells of a process that comes in, each time, and of none that is awake; one
        that cannot tell is asked in vain.
        """
        stirs: list[Deferred[None]] = [Deferred()]
        told: list[int] = []

        def stirred() -> None:
            told.append(len(subject.freezer.processes()))
            if not stirs[-1].called:
                stirs[-1].callback(None)

        subject.start()
        subject.freezer.watchStirs(stirred)
        yield subject.freezer.freeze()
        told.clear()
        if subject.moveIn is not None:
            for count in (2, 3):
                stirs.append(Deferred())
                subject.moveIn()
                yield stirs[-1]
                assert told[-1] == count
            # Also where somebody waits for something else meanwhile.
            disturbed = subject.freezer.whenDisturbed()
            stirs.append(Deferred())
            subject.moveIn()
            yield stirs[-1]
            assert told[-1] == 4
            assert not disturbed.called
            disturbed.addErrback(lambda failure: failure.trap(CancelledError) and None)
        yield subject.freezer.thaw()
        told.clear()
        subject.freezer.watchStirs(None)
        yield subject.freezer.freeze()
        if subject.moveIn is not None:
            subject.moveIn()
        yield subject.freezer.thaw()
        assert told == []

    @_steps
    def test_fiftyTimes(self, subject: FreezerSubject) -> _Steps:
        """Freezing and thawing goes on and on."""
        subject.start()
        for _ in range(50):
            yield subject.freezer.freeze()
            assert subject.isStopped()
            yield subject.freezer.thaw()
            assert not subject.isStopped()

    @_steps
    def test_thawNow(self, subject: FreezerSubject) -> _Steps:
        """C{thawNow} thaws within the call; a later thaw is harmless."""
        subject.start()
        subject.freezer.thawNow()
        yield subject.freezer.freeze()
        subject.freezer.thawNow()
        assert not subject.isStopped()
        yield subject.freezer.thaw()
        assert not subject.isStopped()
