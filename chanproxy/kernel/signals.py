"""
Signals that are held back, as what a reactor can wait for: C{signalfd(2)}, which has no wrapper.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)


def signalDescriptor(numbers: Iterable[int]) -> int:
    """
    A descriptor that is readable while one of these signals waits for this process: what a reactor
    can wait for.  They are to be held back; C{signal.sigtimedwait} takes them.

    @return: not inherited; the caller closes it.
    """
    mask = (ctypes.c_ulong * (128 // ctypes.sizeof(ctypes.c_ulong)))()
    width = 8 * ctypes.sizeof(ctypes.c_ulong)
    for number in numbers:
        mask[(number - 1) // width] |= 1 << (number - 1) % width
    # SFD_NONBLOCK and SFD_CLOEXEC are these.
    fd: int = _libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
