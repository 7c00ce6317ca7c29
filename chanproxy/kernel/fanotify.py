"""
Who opens a file waits until it is answered: C{fanotify(7)}.

What is told and how it is answered is in L{chanproxy.freezers.guardian}, which can import nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fanotify_mark.argtypes = [
    *(ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)
]

_CLOEXEC, _NONBLOCK, _CLASS_CONTENT = 0x1, 0x2, 0x4
_ADD, _REMOVE = 0x1, 0x2
_OPEN_PERM = 0x10000
"""C{linux/fanotify.h}"""

_APART = 10
"""No descriptor of a child's begins there."""


def makeGroup() -> int:
    """
    A descriptor that tells who opens the files that are marked, and by which they are let; when the
    last copy of it is closed, all are.

    @raise OSError: it takes C{CAP_SYS_ADMIN}, here and now; what is done with it takes no right.
    """
    made: int = _libc.fanotify_init(_CLOEXEC | _NONBLOCK | _CLASS_CONTENT, os.O_CLOEXEC)
    if made < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _APART)
    finally:
        os.close(made)


def mark(group: int, file: int) -> None:
    """Have it told of a file from now on, if that can be."""
    _libc.fanotify_mark(group, _ADD, _OPEN_PERM, file, None)


def unmark(group: int, file: int) -> None:
    """Have it told no more.  Harmless without a mark."""
    _libc.fanotify_mark(group, _REMOVE, _OPEN_PERM, file, None)
