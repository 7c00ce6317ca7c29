"""
Keeper: has what waits written now and then, by a thread, and says when that does not work.

Nothing here waits for a disk.  A thread is there for one batch only: while there is one, a close
that hangs cannot be left alone as well as without, see L{chanproxy.kernel.leaving}.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from chanproxy.wake.history.figures import Tally
from chanproxy.wake.history.place import Unusable
from chanproxy.words import safe

if TYPE_CHECKING:
    from chanproxy.wake.history.store import Store

SOON = 10.0
"""Seconds until it is written that a container has fallen asleep or woken."""

SELDOM = 60.0
"""Seconds until it is written that nothing has changed."""

AT_THE_END = 5.0
"""Seconds that the last batch may take: whoever stops us waits for it."""

SLICE = 0.002
"""Seconds that it may take to ask containers for their figures, before others have their turn."""

_log = Logger()

InThread = Callable[[Callable[[], list[str]]], "Deferred[list[str]]"]


def threads(reactor: IReactorFromThreads) -> InThread:
    """Do something in a thread of its own, which ends with it."""

    def inThread(work: Callable[[], list[str]]) -> Deferred[list[str]]:
        done: Deferred[list[str]] = Deferred()

        def run() -> None:
            result: list[str] | Failure
            try:
                result = work()
            except BaseException:
                result = Failure()
            reactor.callFromThread(done.callback, result)

        try:
            # Not one to be waited for at the end of the program: the disk may never answer.
            Thread(target=run, name="history", daemon=True).start()
        except RuntimeError as error:
            # There are too many of them.
            done.errback(Unusable(str(error)))
        return done

    return inThread


class Keeper:
    """Keeps one service's history."""

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        tally: Tally,
        gather: Callable[[], Iterator[None]],
        inThread: InThread | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        @param gather: has all that is known added to the tally, a part at a time.
        @param inThread: does what waits; by default a thread.
        @param wall: seconds since 1970.
        """
        self._clock = clock
        self._store = store
        self._tally = tally
        self._gather = gather
        self._inThread = inThread or threads(cast(IReactorFromThreads, clock))
        self._wall = wall
        self._call: IDelayedCall | None = None
        # Held while a batch is written.
        self._lock = DeferredLock()
        self._started = self._stopped = False
        self._hurry = False
        self._said = ""

    def start(self) -> None:
        """See at once whether the file can be written, and write from then on."""
        self._started = True
        self._tally.happened = self._soon
        self._lock.run(self._write)

    def _soon(self) -> None:
        if self._hurry:
            return
        self._hurry = True
        call = self._call
        if call is not None and call.getTime() - self._clock.seconds() > SOON:
            call.reset(SOON)

    def _tick(self) -> None:
        self._slice(self._gather())

    def _slice(self, gathering: Iterator[None]) -> None:
        self._call = None
        until = time.thread_time() + SLICE
        for _ in gathering:
            if time.thread_time() > until:
                self._call = self._clock.callLater(0, self._slice, gathering)
                return
        self._lock.run(self._write)

    def _write(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._writeAll())

    async def _writeAll(self) -> None:
        self._hurry = False
        batch, until = self._tally.take(), self._wall()
        try:
            sentences = await self._inThread(lambda: self._store.write(batch, until))
        except Exception as error:
            self._tally.giveBack(batch)
            self._sayFailed(error)
        else:
            self._sayWritten(sentences)
        if not self._stopped:
            self._call = self._clock.callLater(SOON if self._hurry else SELDOM, self._tick)

    def _sayWritten(self, sentences: list[str]) -> None:
        for sentence in sentences:
            _log.warn("history: {sentence}", sentence=safe(sentence))
        if self._said:
            self._said = ""
            _log.info("history: {path} is written again", path=safe(self._store.path))
        lost, self._tally.lost = self._tally.lost, 0
        if lost:
            _log.warn("history: meanwhile there was no room for {lost} figures", lost=lost)

    def _sayFailed(self, error: Exception) -> None:
        why = str(error) or repr(error)
        if why == self._said:
            return
        self._said = why
        if isinstance(error, Unusable):
            _log.warn(
                "history: {why}. All else goes on, and this is tried again now and then",
                why=safe(why),
            )
        else:
            _log.failure("history: what was to be written is not", level=LogLevel.error)

    def stop(self) -> Deferred[None]:
        """
        Write the rest.  Idempotent.

        @return: fires when that is done, or takes too long.
        """
        done: Deferred[None] = Deferred()
        if self._stopped or not self._started:
            done.callback(None)
            return done
        self._stopped = True
        self._tally.happened = lambda: None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        late = self._clock.callLater(AT_THE_END, self._late, done)

        def ended(result: object) -> None:
            if isinstance(result, Failure):
                _log.failure("history: the last moments are lost", result)
            if late.active():
                late.cancel()
                done.callback(None)

        self._lock.run(self._writeLast).addBoth(ended)
        return done

    def _writeLast(self) -> Deferred[None]:
        async def last() -> None:
            for _ in self._gather():
                pass
            await self._writeAll()
            await self._inThread(self._close)

        return Deferred.fromCoroutine(last())

    def _close(self) -> list[str]:
        self._store.close()
        return []

    def _late(self, done: Deferred[None]) -> None:
        _log.warn(
            "history: {path} is not written within {seconds:.0f} s; the last moments are lost",
            path=safe(self._store.path),
            seconds=AT_THE_END,
        )
        done.callback(None)
