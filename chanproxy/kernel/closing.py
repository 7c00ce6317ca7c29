"""
Closing what others made, where a wait hurts nobody.

A close can wait: for a peer (C{SO_LINGER}), for a file's server, which may be frozen or never
answer (FUSE, and not even SIGKILL ends that), or merely for the kernel to free gigabytes.  So such
descriptors are closed by a process that shares our table of descriptors.  When it hangs it is given
up: we take our table with us, the old one is emptied, and all that stays with the hanging process
is what it hangs in.  Were it a thread, we could not even be killed.

Knows descriptors by their numbers only.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chanproxy.kernel import sharing
from chanproxy.kernel.leaving import closeOne, leaveTable
from chanproxy.kernel.processes import isRunnable, waitsIn

HANGS = 0.5
"""Seconds without a descriptor closed, after which the process that closes is given up."""

STARTS = 2.0
"""Seconds after which another process is started for one that is in no close, and begins none."""

MOST = 8
"""Processes that are given up at a time; after that, descriptors stay open."""

_LINGER = 0.002
"""
Seconds that a socket may linger.  Whoever asked for more (C{SO_LINGER}) does not see how long we
wait, and what was sent arrives all the same.
"""

_PATIENCE = 0.1
"""Seconds that are waited at the end for what is not closed yet."""

_AT_ONCE = 1024
"""Descriptors that are told in one write; a page of them, C{PIPE_BUF}."""

_log = Logger()

_DONE, _BEGUN, _LEFT = range(3)
"""Words that we share with the process: how many it has closed and begun with, and whether we went
away from the table that it has."""


@define
class _Closing:
    """
    A process that closes.

    @ivar pid: of it.
    @ivar outOf: where it reads numbers of descriptors; ours and its own, until we leave its table.
    @ivar into: where to write them to.
    @ivar words: see L{_DONE}.
    @ivar told: how many descriptors it was told of.
    """

    pid: int
    outOf: int
    into: int
    words: memoryview
    told: int = 0
    _handed: deque[tuple[int, Sequence[int]]] = field(factory=deque)

    def tell(self, descriptors: Sequence[int]) -> Sequence[int]:
        """@return: those that it could not be told of: thousands wait already."""
        for start in range(0, len(descriptors), _AT_ONCE):
            some = descriptors[start : start + _AT_ONCE]
            try:
                # What is no longer than a page goes at once or not at all.
                os.write(self.into, struct.pack(f"{len(some)}i", *some))
            except BlockingIOError:
                return descriptors[start:]
            self.told += len(some)
            self._handed.append((self.told, some))
        begun, handed = self.words[_BEGUN], self._handed
        while handed and handed[0][0] <= begun:
            handed.popleft()
        return ()

    @property
    def left(self) -> int:
        """How many it has not closed."""
        return self.told - int(self.words[_DONE])

    @property
    def isStarting(self) -> bool:
        """Whether it is alive, and in no close."""
        return self.words[_BEGUN] == self.words[_DONE] and not sharing.reaped(self.pid)

    def waiting(self) -> list[int]:
        """Those that it has not begun with."""
        found = [fd for _, some in self._handed for fd in some]
        left = self.told - int(self.words[_BEGUN])
        return found[-left:] if left else []

    def leave(self) -> None:
        """Have it know that its table is not ours any more."""
        self.words[_LEFT] = 1

    def close(self) -> None:
        """Tell it nothing more."""
        os.close(self.into)
        os.close(self.outOf)


class Closer:
    """
    This process's, for its first thread; there must not be two.

    @ivar givenUp: processes that hang, and their end, if it ever comes, is not seen yet.
    """

    def __init__(self) -> None:
        self._one: _Closing | None = None
        self._clock: IReactorTime | None = None
        self._check: IDelayedCall | None = None
        self._seen = (0, 0.0)
        self._owner = 0
        self._warned = False
        # Descriptors that it could not be told of yet.
        self._late: deque[int] = deque()
        self.givenUp: list[int] = []

    def watchedBy(self, clock: IReactorTime | None) -> None:
        """
        Have a reactor look whether the process hangs, while there is something to close.

        Without one, that is looked for when there is something more to close.
        """
        check, self._check = self._check, None
        if check is not None and check.active():
            check.cancel()
        self._clock = clock

    def prepare(self) -> None:
        """Have the process there before it is needed: to make it takes milliseconds."""
        self._running()

    def close(self, descriptors: Iterable[int]) -> None:
        """
        Close descriptors soon; never waits, and raises nothing.

        @param descriptors: not to be used any more.
        """
        every = [fd for fd in descriptors if fd >= 0]
        if not every:
            return
        one = self._running()
        if one is None:
            # Better late than never, on a kind of machine that is not known.
            for fd in every:
                closeOne(fd)
            return
        if not one.left:
            self._seen = one.words[_DONE], time.monotonic()
        # Those that it could not be told of come first, whether a clock looks after them or not.
        self._late.extend(every)
        self._tell(one)
        self._look()

    def _tell(self, one: _Closing) -> None:
        late, self._late = list(self._late), deque()
        self._late.extend(one.tell(late))

    @property
    def pending(self) -> int:
        """How many descriptors are not closed yet."""
        if self._one is None or self._owner != os.getpid():
            return 0
        return self._one.left + len(self._late)

    @property
    def kept(self) -> tuple[int, ...]:
        """Descriptors of its own."""
        return () if self._one is None else (self._one.outOf, self._one.into)

    def _running(self) -> _Closing | None:
        if self._one is not None and self._owner != os.getpid():
            # A fork of ours: the table is its own.
            self._one = None
        if self._one is None:
            try:
                self._one = _start()
            except OSError as error:
                _log.warn("descriptors are closed here, which may wait: {why}", why=error.strerror)
                return None
            self._owner = os.getpid()
        return self._one

    def _look(self) -> None:
        """See that somebody looks whether it hangs."""
        one = self._one
        if one is None:
            return
        done, now = one.words[_DONE], time.monotonic()
        if done != self._seen[0]:
            self._seen = done, now
        elif now - self._seen[1] > HANGS:
            self._giveUp(one)
        if self._clock is not None and (self._check is None or not self._check.active()):
            self._check = self._clock.callLater(HANGS, self._lookAgain)

    def _lookAgain(self) -> None:
        self._check = None
        if self._one is not None and self._late:
            self._tell(self._one)
        if self.pending:
            self._look()

    def _giveUp(self, one: _Closing) -> None:
        """Go away from the table that it has, with all but what it hangs in."""
        self.givenUp = [pid for pid in self.givenUp if not sharing.reaped(pid)]
        if isRunnable(one.pid):
            # It merely gets no processor.
            return
        if one.isStarting:
            # Nor did this one until now, as a rule.
            if time.monotonic() - self._seen[1] > STARTS:
                self._startAnew(one)
            return
        if len(self.givenUp) >= MOST:
            if not self._warned:
                self._warned = True
                _log.error(
                    "{count} processes hang that close descriptors of others, and no more are "
                    "started: descriptors stay open now; see what {pids} wait for",
                    count=MOST,
                    pids=self.givenUp,
                )
            return
        waiting = one.waiting()
        try:
            leaveTable(waiting, one.leave)
            self._one = None
            following = self._running()
        except OSError as error:
            _log.error("a close hangs, and takes our descriptors with it: {why}", why=error)
            return
        self.givenUp.append(one.pid)
        one.close()
        self._replaceThreads()
        _log.warn(
            "a descriptor of somebody else's cannot be closed, and is left to process {pid}, which "
            "hangs in it (a file system in user space whose server does not answer?)",
            pid=one.pid,
        )
        if following is not None:
            self.close(waiting)

    def _startAnew(self, one: _Closing) -> None:
        """Have another process do what this one does not begin with."""
        where = waitsIn(one.pid)
        os.kill(one.pid, signal.SIGKILL)
        end = time.monotonic() + _PATIENCE
        while not sharing.reaped(one.pid):
            if time.monotonic() > end:
                # It has begun just now, and hangs.
                return
            time.sleep(0.0002)
        _log.warn(
            "the process that closes descriptors of others did nothing for {seconds} s, but wait "
            "in {where}: another one is started",
            seconds=STARTS,
            where=where,
        )
        # What it has begun with by then, it has closed.
        waiting = one.waiting()
        self._one = None
        one.close()
        self.close(waiting)

    def drain(self, seconds: float) -> bool:
        """
        Wait until all is closed.

        @param seconds: as long at most.
        @return: whether it is.
        """
        end = time.monotonic() + seconds
        while self.pending:
            # Nobody else does meanwhile.
            self._look()
            if time.monotonic() > end:
                return False
            time.sleep(0.0005)
        return True

    def _replaceThreads(self) -> None:
        """Those that the reactor has still have the old table, and are to do nothing more."""
        pool = getattr(self._clock, "threadpool", None)
        if pool is not None:
            least, most = pool.min, pool.max
            # They go as soon as they are idle; others come when they are needed.
            pool.adjustPoolsize(0, 0)
            pool.adjustPoolsize(least, most)

    def finish(self) -> None:
        """Our own end comes: whatever hangs by now must not keep what else we have."""
        self.watchedBy(None)
        if not self.drain(_PATIENCE) and self._one is not None:
            self._giveUp(self._one)

    def stop(self) -> None:
        """End the process, which is started anew when it is needed.  Idempotent."""
        self.watchedBy(None)
        one, self._one = self._one, None
        if one is not None and self._owner == os.getpid():
            os.kill(one.pid, signal.SIGKILL)
            one.close()
            end = time.monotonic() + 0.1
            while not sharing.reaped(one.pid):
                if time.monotonic() > end:
                    # It hangs: see _giveUp.
                    self.givenUp.append(one.pid)
                    break
                time.sleep(0.0002)


def _start() -> _Closing:
    words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
    outOf, into = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(into, False)
        pid = sharing.start(lambda: _closeThem(outOf, words))
    except BaseException:
        os.close(into)
        os.close(outOf)
        raise
    # Both ends stay open: they are the same descriptors there.
    return _Closing(pid, outOf, into, words)


def _closeThem(outOf: int, words: memoryview) -> None:
    """Read numbers of descriptors, and close each."""
    while True:
        packed = os.read(outOf, 4096)
        # What is interrupted has been closed all the same.
        signal.setitimer(signal.ITIMER_REAL, _LINGER, _LINGER)
        for (fd,) in struct.iter_unpack("i", packed):
            if words[_LEFT]:
                return
            words[_BEGUN] += 1
            closeOne(fd)
            words[_DONE] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)


closer = Closer()
"""This process's."""
