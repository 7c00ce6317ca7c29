"""
Views: open files of our own for what a program watches and nobody else may poll.

C{/proc/PID/mountinfo} and its like remember in the open file what was told to whoever polled it.
So they are opened once more, and the kernel polls that one for us.  Knows nothing of epolls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
from collections.abc import Callable

from attrs import define

from chanproxy.kernel import calls

_NUMBERS = {"x86_64": (206, 209, 210, 208), "aarch64": (0, 2, 3, 4)}
"""C{io_setup}, C{io_submit}, C{io_cancel} and C{io_getevents}, which have no wrappers."""

_AT_ONCE = 256
"""Latches that wait at a time, in the whole service."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall


class _Iocb(ctypes.Structure):
    # linux/aio_abi.h, struct iocb
    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rwFlags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("events", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("eventfd", ctypes.c_uint32),
    )


_POLL, _TO_EVENTFD = 5, 1
"""C{IOCB_CMD_POLL} and C{IOCB_FLAG_RESFD}."""


class _Context:
    """What the kernel keeps of our requests; one for the process, and it goes with it."""

    _of: tuple[int, _Context] | None = None

    def __init__(self) -> None:
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None:
            raise OSError(errno.ENOSYS, f"io_submit(2) is not known for {platform.machine()}")
        setup, self._submit, self._cancel, self._events = numbers
        self._id = ctypes.c_ulong(0)
        self._done = ctypes.create_string_buffer(32 * _AT_ONCE)
        self._call(setup, _AT_ONCE, ctypes.byref(self._id))

    @classmethod
    def get(cls) -> _Context:
        """This process's; a child has none of its parent's."""
        if cls._of is None or cls._of[0] != os.getpid():
            cls._of = os.getpid(), cls()
        return cls._of[1]

    def submit(self, request: _Iocb) -> None:
        # What is done holds a place until it is taken.
        self._call(self._events, self._id, 0, _AT_ONCE, self._done, ctypes.byref(_NOW))
        several = (ctypes.c_void_p * 1)(ctypes.addressof(request))
        self._call(self._submit, self._id, 1, several)

    def cancel(self, request: _Iocb) -> None:
        # EINPROGRESS is success, EINVAL is one that is done.
        _syscall(self._cancel, self._id, ctypes.byref(request), self._done)

    def _call(self, number: int, *arguments: object) -> None:
        if _syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_NOW = (ctypes.c_long * 2)(0, 0)


class Latch:
    """
    A poll that the kernel does once, beside all epolls, whose result stays.

    An epoll asks again and again before it tells; of a file that tells once, nothing would arrive.
    """

    def __init__(self, descriptor: int, events: int) -> None:
        """
        @param descriptor: of a file of ours; may be closed after that.
        @raise OSError: the kernel does not do this, or not for this file.
        """
        context = _Context.get()
        self.eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when it is there; whoever takes this closes it."""
        self._request = _Iocb(
            opcode=_POLL,
            descriptor=descriptor,
            events=events,
            flags=_TO_EVENTFD,
            eventfd=self.eventfd,
        )
        self._context: _Context | None = context
        try:
            context.submit(self._request)
        except BaseException:
            os.close(self.eventfd)
            raise

    def close(self) -> None:
        """Wait no more.  Idempotent."""
        context, self._context = self._context, None
        if context is not None:
            context.cancel(self._request)


@define
class _View:
    descriptor: int
    used: bool = True


class NotSeenBefore(Exception):
    """Something may have been told to the program already, or not; the text says what it is."""


class Views:
    """
    Those of one container, kept from look to look.

    A change between the program's own last poll and the opening of ours would go unseen.  So ours
    is open before the sleep that relies on it, and whatever it tells at the begin of a sleep leaves
    the container awake once more.
    """

    def __init__(self, lasting: bool = True) -> None:
        """@param lasting: kept between looks; if not, that moment is accepted."""
        self._lasting = lasting
        self._views: dict[tuple[int, int, int, int], _View] = {}

    def begin(self) -> None:
        """Begin a look: what is not asked for in it is let go at its end."""
        for view in self._views.values():
            view.used = False

    def end(self) -> None:
        """It has gone through everything: what was not found any more is closed."""
        for key in [key for key, view in self._views.items() if not view.used]:
            os.close(self._views.pop(key).descriptor)

    def watch(self, pid: int, fd: int) -> tuple[int, Callable[[], None]]:
        """
        Watch what a process has open for changes, whatever the program asked for: readable these
        files are always, and who waits for that waits for its edge, which is a change as well.

        @return: a descriptor that becomes readable, for the caller to close, and what to call when
            it is closed.
        @raise NotSeenBefore: not this time; the next time, yes.
        @raise OSError: it cannot be opened.
        """
        path = f"/proc/{pid}/fd/{fd}"
        status = calls.statusOf(path)
        key = (pid, fd, status.device, status.inode)
        view = self._views.get(key)
        if view is None:
            view = _View(_open(pid, path))
            self._views[key] = view
            if self._lasting:
                raise NotSeenBefore("watches {}, which is opened for it only now")
        view.used = True
        poller = select.poll()
        poller.register(view.descriptor, select.POLLPRI)
        if poller.poll(0):
            raise NotSeenBefore("waits for a change of {}, and there was one")
        latch = Latch(view.descriptor, select.POLLPRI)
        return latch.eventfd, latch.close

    def close(self) -> None:
        """Close all.  Idempotent."""
        for view in self._views.values():
            os.close(view.descriptor)
        self._views.clear()


def _open(pid: int, path: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path, flags)
    except OSError:
        # It was opened by a process, or as one, that has ended: then it is as this one sees it.
        name = os.path.basename(os.readlink(path).removesuffix(" (deleted)"))
        if name not in ("mounts", "mountinfo", "mountstats"):
            raise
        return os.open(f"/proc/{pid}/{name}", flags)
