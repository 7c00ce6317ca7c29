"""
Slices: work on a container that takes long is done a little at a time, so that others have their
turn.

Knows nothing of what the work is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.adopt.deadlines import NotYet
from chanproxy.adopt.subject import StillBusy
from chanproxy.interfaces import FreezerError, IFreezer, ISlicedFreezer

SLICE = 0.004
"""Seconds that work may take at a time, before others have their turn."""

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
    Runs a generator until it returns.

    @ivar result: what it returns; fails with L{StillBusy} or L{NotYet}, whatever went wrong.
        Cancelling closes the generator, which runs what has to be given back.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, steps: Generator[None, None, T]) -> None:
        self._clock = clock
        self._steps = steps
        self._call: IDelayedCall | None = None
        self.result: Deferred[T] = Deferred(self._cancel)
        self._go()

    def _cancel(self, _: Deferred[T]) -> None:
        if self._call is not None:
            self._call.cancel()
        self._steps.close()

    def _go(self) -> None:
        self._call = None
        end = time.monotonic() + SLICE
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
            self._call = self._clock.callLater(0, self._go)
