"""
Writes: tells when somebody has written to a file of a cgroup, whatever that changed.

A pause of what is frozen already changes nothing that could be read; only that it was written can
be seen.  One inotify for all, as there may be few.  Knows nothing of what the files mean.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorFDSet

from chanproxy.kernel.poller import Poller

_libc = ctypes.CDLL(None, use_errno=True)

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC

_MODIFY, _NEVER = 0x2, 0x400
"""C{linux/inotify.h}; the second is IN_DELETE_SELF, which no cgroup says of its files."""

_EVENT = struct.Struct("iIII")

_BATCH = 16384


class Writes:
    """
    All files of one reactor that are watched.  It has a descriptor as long as there is one.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._poller = Poller(reactor)
        self._fd = -1
        # None: of one that is hushed.
        self._told: dict[int, Callable[[], None] | None] = {}

    def watch(self, fd: int, told: Callable[[], None]) -> int:
        """
        Call C{told} after each write from now on, until L{hush} or L{unwatch}.

        @param fd: of the file, open, which may be closed after this.
        @return: what those two are called with; the same for the same file.
        @raise OSError: it cannot be watched.
        """
        if self._fd < 0:
            opened = _libc.inotify_init1(_NONBLOCK_CLOEXEC)
            if opened < 0:
                raise OSError(ctypes.get_errno(), "inotify_init1")
            try:
                self._poller.watch(opened, select.EPOLLIN, self._readable)
            except OSError:
                os.close(opened)
                raise
            self._fd = opened
        # What was written before L{hush}, and is not read yet, is told to nobody.
        self._readable(select.EPOLLIN)
        try:
            watch = self._set(fd, _MODIFY)
        except OSError:
            self._closeIfIdle()
            raise
        self._told[watch] = told
        return watch

    def _set(self, fd: int, mask: int) -> int:
        watch: int = _libc.inotify_add_watch(self._fd, b"/proc/self/fd/%d" % fd, mask)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return watch

    def hush(self, watch: int, fd: int) -> None:
        """
        Tell no more of this file, and be ready to do it again.  Harmless without a watch.

        @param fd: of the file, open.
        """
        if watch in self._told:
            self._told[watch] = None
            with contextlib.suppress(OSError):
                self._set(fd, _NEVER)

    def look(self) -> None:
        """Tell now of what was written until now.  Harmless when nothing is watched."""
        if self._fd >= 0:
            self._readable(select.EPOLLIN)

    def unwatch(self, watch: int) -> None:
        """
        Forget it, as has to be done also when the file is gone.  Harmless for one that is
        forgotten.
        """
        if watch in self._told:
            del self._told[watch]
            _libc.inotify_rm_watch(self._fd, watch)
            self._closeIfIdle()

    def _closeIfIdle(self) -> None:
        if not self._told and self._fd >= 0:
            self._poller.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self, _: int) -> None:
        try:
            data = os.read(self._fd, _BATCH)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            return
        # Of an overflow, which is of no file, nobody is told: to believe that somebody has written
        # when nobody has would do more harm.
        written = {watch for watch, _mask, _cookie, _length in _EVENT.iter_unpack(data)}
        for watch in written:
            told = self._told.get(watch)
            if told is not None:
                told()


_writes: WeakKeyDictionary[Any, Writes] = WeakKeyDictionary()


def writesOf(reactor: IReactorFDSet) -> Writes:
    """Those of a reactor."""
    return _writes.setdefault(reactor, Writes(reactor))
