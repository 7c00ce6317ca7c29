"""
WakeLocks: what keeps a container awake by name, with or without a timeout.

All of them together are one eventfd, so that a lock costs no descriptor.  Knows nothing of
registries and containers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chanproxy.kernel import calls
from chanproxy.wake.statistics import SourceStatistics, bootNanoseconds

LOCK_NAMES = 1024
"""Names whose figures are kept, by default."""


class WakeLockError(Exception):
    """A lock cannot be acquired or released; nothing has changed."""


class TooManyWakeLocks(WakeLockError):
    """As many names as are allowed are held now."""


@frozen
class Taker:
    """
    Who has acquired a lock, as of then.

    @ivar pid: 0: it is of no pid namespace of ours.
    @ivar command: the process's name, quoted; empty: it has ended, or is hidden.
    """

    pid: int
    uid: int
    command: str = ""


@define(eq=False)
class Hold:
    """
    One holder's hold of a lock.

    @ivar since: nanoseconds (C{CLOCK_BOOTTIME}), since when it is held.
    @ivar until: likewise, when it is released by itself; None: it is not.
    @ivar taker: who acquired it, the last time; None: it is not known.
    """

    since: int
    until: int | None = None
    taker: Taker | None = None
    _timer: IDelayedCall | None = None

    def endAfter(self, timer: IDelayedCall | None, until: int | None) -> None:
        """Let another time limit count from now on."""
        self.forget()
        self._timer, self.until = timer, until

    def expired(self) -> None:
        """The time is over: the timer has called."""
        self._timer = None

    def forget(self) -> None:
        """There is no time limit any more.  Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


@define(eq=False)
class WakeLock:
    """
    One name; held as long as anybody holds it.

    @ivar statistics: exact; they outlive the lock's release.
    @ivar holds: by whom; not to be changed by others.
    """

    name: str
    statistics: SourceStatistics = field(factory=SourceStatistics)
    holds: dict[Hashable, Hold] = field(factory=dict, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    @property
    def held(self) -> bool:
        """Whether anybody holds it."""
        return bool(self.holds)

    @property
    def kind(self) -> str:
        """C{lock}, where other sources say C{counter} or C{descriptor}."""
        return "lock"

    @property
    def eventCount(self) -> int:
        """See L{SourceStatistics}."""
        return self.statistics.eventCount

    def whenQuiet(self) -> Deferred[None]:
        """Fires when nobody holds it; at once if nobody does.  Cancellable."""
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        if self.held:
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
        return waiting


class WakeLocks:
    """
    The locks of one container.

    @ivar held: the locks that are held now, by name.
    @ivar limit: names whose figures are kept, those longest unused are forgotten first; may be
        changed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limit: int = LOCK_NAMES,
        nanoseconds: Callable[[], int] = bootNanoseconds,
    ) -> None:
        self._clock = clock
        self.limit = limit
        self._nanoseconds = nanoseconds
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.held: dict[str, WakeLock] = {}
        self._idle: dict[str, WakeLock] = {}

    def fileno(self) -> int:
        """Readable while any lock is held; still owned here."""
        return self._fd

    def all(self) -> list[WakeLock]:
        """Those that are held, then those that were."""
        return [*self.held.values(), *self._idle.values()]

    def acquire(
        self,
        name: str,
        timeout: float | None = None,
        holder: Hashable = None,
        taker: Taker | None = None,
    ) -> WakeLock:
        """
        Hold a lock; holding it already only sets the timeout anew.

        @param timeout: seconds until it is released by itself.
        @param holder: who holds it; each holder's hold is its own.
        @param taker: who that is, for people.
        @raise TooManyWakeLocks: as many as are allowed are held.
        @raise WakeLockError: they are closed.
        """
        if self._fd < 0:
            raise WakeLockError(f"the wake lock {name!r} cannot be held: its container has stopped")
        lock = self.held.get(name) or self._idle.get(name)
        if lock is None:
            self._makeRoom()
            lock = WakeLock(name)
        now = self._nanoseconds()
        hold = lock.holds.setdefault(holder, Hold(now))
        hold.taker = taker
        if timeout is None:
            hold.endAfter(None, None)
        else:
            timer = self._clock.callLater(timeout, self._expired, lock, holder)
            hold.endAfter(timer, now + int(timeout * 1e9))
        lock.statistics.eventCount += 1
        if name not in self.held:
            self._idle.pop(name, None)
            self.held[name] = lock
            lock.statistics.activated(now)
            if len(self.held) == 1:
                os.eventfd_write(self._fd, 1)
        return lock

    def _makeRoom(self) -> None:
        # There may be more, if the limit was higher once.
        while len(self.held) + len(self._idle) >= self.limit:
            if not self._idle:
                raise TooManyWakeLocks(
                    f"{self.limit} wake locks are held; release some, or raise limits.wake-locks"
                )
            del self._idle[next(iter(self._idle))]

    def release(self, name: str, holder: Hashable = None) -> None:
        """
        Let go of a lock.

        @raise WakeLockError: this holder does not hold it.
        """
        lock = self.held.get(name)
        if lock is None or holder not in lock.holds:
            raise WakeLockError(f"the wake lock {name!r} is not held")
        self._letGo(lock, holder)

    def releaseAll(self, holder: Hashable) -> None:
        """A holder is gone."""
        for lock in list(self.held.values()):
            if holder in lock.holds:
                self._letGo(lock, holder)

    def _expired(self, lock: WakeLock, holder: Hashable) -> None:
        lock.holds[holder].expired()
        lock.statistics.expireCount += 1
        self._letGo(lock, holder)

    def _letGo(self, lock: WakeLock, holder: Hashable) -> None:
        lock.holds.pop(holder).forget()
        if lock.holds:
            return
        lock.statistics.deactivated(self._nanoseconds())
        del self.held[lock.name]
        self._idle[lock.name] = lock
        if not self.held:
            calls.readEventfd(self._fd)
        waiting, lock._waiting = lock._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def close(self) -> None:
        """Release all, and give back the descriptor; none can be held any more.  Idempotent."""
        if self._fd < 0:
            return
        for lock in list(self.held.values()):
            for holder in list(lock.holds):
                self._letGo(lock, holder)
        os.close(self._fd)
        self._fd = -1
