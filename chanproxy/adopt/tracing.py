"""
The registers of stopped threads, through C{ptrace(2)}.

C{/proc/PID/task/TID/syscall} says which call a thread is in, but not whether that has returned
already; only the register that holds the result does.  A frozen thread that is looked at runs no
instruction.  Knows nothing of what a call means.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

# sys/ptrace.h and linux/elf.h
_DETACH, _GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT = 17, 0x4204, 0x4205, 0x4206, 0x4207
_NT_PRSTATUS = 1
_WALL = 0x40000000
_LOOK = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL

RELEASE = 0.01
"""Seconds between looks whether a thread has stopped that did not in time."""

STOP_SECONDS = 0.1
"""How long a frozen thread may take to stop for a look; it takes some 50 microseconds."""

_SPINS = 200
"""Looks without a pause; after that the processor is left to others."""


class CannotTrace(Exception):
    """A thread cannot be looked into; the text says why.  It goes on as before."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, tid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


Change = Callable[[Sequence[int]], "list[int] | None"]
"""Gets the registers of a thread, and gives what they are to be, or None to leave them."""


class Tracer:
    """
    Looks at one group of threads after another.

    Each look attaches, reads and lets go again.  Should chanproxy die in between, the kernel lets
    go by itself.
    """

    def __init__(self) -> None:
        self._words = (ctypes.c_uint64 * 64)()
        self._late: set[int] = set()
        self._changes: dict[int, Change] = {}

    def registers(self, tids: Iterable[int]) -> dict[int, list[int]]:
        """
        Look at frozen threads.

        @return: each one's registers as 64-bit words, without those of threads that have been
            killed meanwhile.
        @raise CannotTrace: one of them cannot be looked at.
        """
        self.releaseLate()
        stopping: list[int] = []
        found: dict[int, list[int]] = {}
        try:
            # All are asked first, then waited for: they stop side by side.
            for tid in tids:
                if self._seize(tid):
                    stopping.append(tid)
            deadline = time.monotonic() + STOP_SECONDS
            while stopping:
                tid = stopping.pop()
                try:
                    if self._stopped(tid, deadline):
                        found[tid] = self._read(tid)
                finally:
                    self._release(tid)
        finally:
            for tid in stopping:
                self._release(tid)
        return found

    def change(self, tid: int, changed: Change) -> bool:
        """
        Stop a thread that waits, and change its registers.

        @param changed: gets them, and gives what they are to be, or None to leave them.
        @return: whether they were changed.
        @raise CannotTrace: it cannot be looked at; or not yet: then they are changed as soon as it
            stops, which is before it does anything else, by L{releaseLate}.
        """
        self.releaseLate()
        if not self._seize(tid):
            return False
        try:
            stopped = self._stopped(tid, time.monotonic() + STOP_SECONDS)
        except CannotTrace:
            self._changes[tid] = changed
            self._late.add(tid)
            raise
        try:
            return stopped and self._change(tid, changed)
        finally:
            self._release(tid)

    def _change(self, tid: int, changed: Change) -> bool:
        words = changed(self._read(tid))
        if words is not None:
            self._write(tid, words)
        return words is not None

    def _write(self, tid: int, words: Sequence[int]) -> None:
        self._words[: len(words)] = list(words)
        vector = _Iovec(ctypes.addressof(self._words), 8 * len(words))
        try:
            _ptrace(_SETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(vector))
        except OSError as error:
            raise CannotTrace(f"its registers cannot be written: {error.strerror}") from error

    def _seize(self, tid: int) -> bool:
        """Attach, and ask it to stop.  @return: False when it is dead."""
        try:
            _ptrace(_SEIZE, tid, 0, 0)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return False
            raise CannotTrace(_why(tid, error)) from error
        try:
            _ptrace(_INTERRUPT, tid, 0, 0)
        except OSError:
            # Killed meanwhile; it is ours until it is waited for.
            self._late.add(tid)
            return False
        return True

    def _stopped(self, tid: int, deadline: float) -> bool:
        """Wait, with a bound, until it stops.  @return: False when it is dead."""
        spins = 0
        while True:
            # Without taking it: the end of a child of ours is its owner's to hear of.
            which = os.waitid(os.P_PID, tid, _LOOK)
            if which is not None:
                return which.si_code in (os.CLD_TRAPPED, os.CLD_STOPPED)
            spins += 1
            if spins > _SPINS:
                if time.monotonic() > deadline:
                    raise CannotTrace(f"did not stop for a look within {STOP_SECONDS} s")
                time.sleep(0.0001)

    def _read(self, tid: int) -> list[int]:
        vector = _Iovec(ctypes.addressof(self._words), ctypes.sizeof(self._words))
        try:
            _ptrace(_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(vector))
        except OSError as error:
            raise CannotTrace(f"its registers cannot be read: {error.strerror}") from error
        return self._words[: vector.length // 8]

    def _release(self, tid: int) -> None:
        try:
            _ptrace(_DETACH, tid, 0, 0)
        except OSError:
            # It has not stopped yet, or is dead.
            self._late.add(tid)

    def releaseLate(self) -> bool:
        """
        Let go of those that could not be let go of before.

        @return: whether there is any left: call again.
        """
        for tid in list(self._late):
            try:
                which = os.waitid(os.P_PID, tid, _LOOK)
                if which is None:
                    continue
                if which.si_code in (os.CLD_TRAPPED, os.CLD_STOPPED):
                    self._changeLate(tid)
                    _ptrace(_DETACH, tid, 0, 0)
                elif _parentOf(tid) != os.getpid():
                    # Its parent hears of the end only after whoever traced it.
                    os.waitpid(tid, _WALL | os.WNOHANG)
            except OSError:
                # Somebody else has waited for it.
                pass
            self._late.discard(tid)
            self._changes.pop(tid, None)
        return bool(self._late)

    def _changeLate(self, tid: int) -> None:
        changed = self._changes.get(tid)
        if changed is not None:
            # It goes on as it is.
            with contextlib.suppress(CannotTrace):
                self._change(tid, changed)


class Releasing:
    """Has a tracer let go of threads that stop late, soon after they do."""

    def __init__(self, clock: IReactorTime, tracer: Tracer) -> None:
        self._clock = clock
        self._tracer = tracer
        self._call: IDelayedCall | None = None

    def begin(self) -> None:
        """See to those that there are, if there are any.  Idempotent."""
        if self._call is None and self._tracer.releaseLate():
            self._call = self._clock.callLater(RELEASE, self._again)

    def _again(self) -> None:
        self._call = None
        self.begin()

    def stop(self) -> None:
        """See to none any more.  Idempotent."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


def _why(tid: int, error: OSError) -> str:
    tracer = tracerOf(tid)
    if tracer == threading.get_native_id():
        return "has not stopped for the last look yet"
    if tracer:
        return f"is traced by process {tracer}, a debugger perhaps"
    if error.errno == errno.EPERM:
        return "may not be looked into: that takes CAP_SYS_PTRACE"
    return f"cannot be looked into: {error.strerror}"


def tracerOf(tid: int) -> int:
    """The process that traces a thread, or 0."""
    return _statusNumber(tid, b"TracerPid:")


def _parentOf(tid: int) -> int:
    return _statusNumber(tid, b"PPid:")


def _statusNumber(tid: int, key: bytes) -> int:
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(key)), 0)
    except OSError:
        return 0
