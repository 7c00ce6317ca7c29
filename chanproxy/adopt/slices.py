"""
Slices: work on a container that takes long is done a little at a time, so that others have their
turn.

Knows nothing of what the work is.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.adopt.deadlines import NotYet
from chanproxy.adopt.subject import StillBusy
from chanproxy.interfaces import FreezerError, IFreezer, ISlicedFreezer

SLICE = 0.004
"""Seconds that all such work may take at a time, before the reactor has its turn."""

AT_A_TIME = 8
"""
Slices that a look has, one a turn, before others have theirs.  What it finds is as of its begin: a
time that is read much later is taken for another one.
"""

T = TypeVar("T")

Listing = Callable[[], Generator[None, None, Sequence[int]]]
"""Lists processes, a part at a time."""


def listingOf(freezer: IFreezer) -> Listing:
    """How a freezer lists its processes."""
    if ISlicedFreezer.providedBy(freezer):
        return ISlicedFreezer(freezer).listing
    return inOne(freezer.processes)


def inOne(processes: Callable[[], Sequence[int]]) -> Listing:
    """All of them in one part."""

    def listing() -> Generator[None, None, Sequence[int]]:
        yield None
        return processes()

    return listing


class Sliced(Generic[T]):
    """
    Runs a generator until it returns, in turn with all others of the same reactor.

    @ivar slices: how many it has had.
    @ivar result: what it returns; fails with L{StillBusy} or L{NotYet}, whatever went wrong.
        Cancelling closes the generator, which runs what has to be given back.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, steps: Generator[None, None, T], held: bool = False
    ) -> None:
        """@param held: whether something stands still for it, so that it begins before others."""
        self._turns = _Turns.of(clock)
        self._steps = steps
        self.slices = 0
        self.result: Deferred[T] = Deferred(self._cancel)
        self._turns.add(clock, self, held)

    def _cancel(self, _: Deferred[T]) -> None:
        self._turns.drop(self)
        self._steps.close()

    def run(self, end: float) -> bool:
        """
        Go on for a step at least, and until a time of the monotonic clock.

        @return: whether there is more to do.
        """
        try:
            next(self._steps)
            while time.monotonic() < end:
                next(self._steps)
        except StopIteration as stop:
            self.result.callback(stop.value)
        except (StillBusy, NotYet):
            self.result.errback()
        except (OSError, FreezerError) as error:
            self.result.errback(StillBusy(f"busy: it cannot be looked into: {error}"))
        except Exception:
            # Whatever it is, the container has to run.
            self._log.failure("a look into a container failed")
            self.result.errback()
        else:
            return True
        return False


class _Turns:
    """
    Who may work when, on one reactor: one slice a turn for all of them together.

    Otherwise those that fell asleep together, and so breathe together, hold up a wake by a slice
    for each of them.
    """

    _all: ClassVar[WeakKeyDictionary[IReactorTime, _Turns]] = WeakKeyDictionary()

    @classmethod
    def of(cls, clock: IReactorTime) -> _Turns:
        """The turns of a reactor, the same for all who work on it."""
        return cls._all.setdefault(clock, cls())

    def __init__(self) -> None:
        self._held: deque[Sliced[Any]] = deque()
        self._others: deque[Sliced[Any]] = deque()
        self._call: IDelayedCall | None = None
        self._end = self._last = -math.inf

    def add(self, clock: IReactorTime, work: Sliced[Any], held: bool) -> None:
        """Have it done: at once if there is time for it in this turn, else in later ones."""
        now = time.monotonic()
        if now - self._last >= SLICE:
            # Others had their turn meanwhile.
            self._end = now + SLICE
        if self._held or self._others or now >= self._end:
            (self._held if held else self._others).append(work)
        else:
            self._run(work)
        self._goOn(clock)

    def _run(self, work: Sliced[Any]) -> None:
        if work.run(self._end):
            work.slices += 1
            if work.slices % AT_A_TIME:
                self._held.appendleft(work)
            else:
                # What takes long waits like everybody else, whatever it holds.
                self._others.append(work)
        self._last = time.monotonic()

    def _goOn(self, clock: IReactorTime) -> None:
        if self._call is None and (self._held or self._others):
            self._call = clock.callLater(0, self._turn, clock)

    def _turn(self, clock: IReactorTime) -> None:
        self._call = None
        self._end = time.monotonic() + SLICE
        # What ends in here may have begun more, and that may have ended, too.
        while self._held or self._others:
            self._run((self._held or self._others).popleft())
            if time.monotonic() >= self._end:
                break
        self._goOn(clock)

    def drop(self, work: Sliced[Any]) -> None:
        """Forget work that was given up."""
        for each in (self._held, self._others):
            with contextlib.suppress(ValueError):
                each.remove(work)
        if self._call is not None and not (self._held or self._others):
            call, self._call = self._call, None
            call.cancel()
