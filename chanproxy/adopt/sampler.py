"""
Sampler: looks at a container's threads now and then while it is awake, so that it is known since
when each of them waits when it is to be frozen.

Costs an idle container one small file a look.  Knows nothing of freezing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from chanproxy.adopt.foresight import Foresight
from chanproxy.adopt.observer import Observer
from chanproxy.adopt.slices import Sliced
from chanproxy.interfaces import FreezerError

INTERVAL = 0.125
"""Seconds between looks, where they are cheap: a time that is seen is known as exactly as that."""

SHARE = 0.005
"""Share of a processor that the looks may use, at most."""


class Sampler:
    """One container's, for one time awake after another."""

    def __init__(
        self,
        clock: IReactorTime,
        observer: Observer,
        foresight: Foresight,
        cpuTime: Callable[[], int],
    ) -> None:
        """@param cpuTime: microseconds that the container has used so far."""
        self._clock = clock
        self._observer = observer
        self._foresight = foresight
        self._cpuTime = cpuTime
        self._used = -1
        self._call: IDelayedCall | None = None
        self._round: Deferred[None] | None = None
        self._cost = 0.0

    def start(self) -> None:
        """The container runs.  Idempotent."""
        if self._call is None and self._round is None:
            self._used = -1
            self._sample()

    def stop(self) -> None:
        """It is about to be frozen, or gone.  Idempotent."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        looking, self._round = self._round, None
        if looking is not None:
            looking.cancel()

    def _sample(self) -> None:
        self._call = None
        now = time.monotonic_ns()
        try:
            used = self._cpuTime()
        except (FreezerError, OSError):
            used = -1
        if used == self._used and used >= 0:
            # Nothing of it has run.
            self._observer.roundDone(now)
            self._again(0.0)
            return
        self._used = used
        self._cost = 0.0
        looking = self._round = Sliced(self._clock, self._look()).result
        looking.addCallbacks(self._looked, self._failed)

    def _look(self) -> Generator[None, None, None]:
        """A round; what others do between its steps is not counted."""
        steps = self._foresight.round(refuse=False)
        while self._step(steps):
            yield None

    def _step(self, steps: Iterator[None]) -> bool:
        began = time.thread_time()
        try:
            next(steps)
        except StopIteration:
            return False
        finally:
            self._cost += time.thread_time() - began
        return True

    def _looked(self, _: None) -> None:
        self._round = None
        self._again(self._cost)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._looked(None)

    def _again(self, cost: float) -> None:
        self._call = self._clock.callLater(max(INTERVAL, cost / SHARE), self._sample)
