"""
Closing descriptors that others made, or in whose queues others have put something: at once, where
that waits for nothing, and otherwise by the process that does nothing else.

Knows what may wait in a close; how it is closed then is L{chanproxy.kernel.closing}.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from itertools import repeat

from chanproxy.kernel.borrowed import borrowed
from chanproxy.kernel.closing import closer
from chanproxy.kernel.leaving import closeOne

# Without keeping errno, which is a third of what a call costs: that it fails says it all.
_fast = ctypes.PyDLL(None)
_getsockopt = _fast.getsockopt
_linger = ctypes.create_string_buffer(8)
_lingerLength = ctypes.c_uint32(8)
_lingerAt = (ctypes.addressof(_linger), ctypes.addressof(_lingerLength))


def lingers(fd: int) -> bool | None:
    """Whether closing a socket may wait for its peer; None for what is no socket."""
    _lingerLength.value = 8
    option = (socket.SOL_SOCKET, socket.SO_LINGER, *map(ctypes.c_void_p, _lingerAt))
    if _getsockopt(fd, *option) < 0:
        return None
    on, seconds = struct.unpack("2i", _linger)
    # For no time at all is a reset, at once.
    return bool(on and seconds)


def _nothingUnread(fd: int) -> bool:
    """Whether nothing is in the queue of an AF_UNIX socket, which may hold descriptors."""
    try:
        with borrowed(fd) as looked:
            # An empty packet shows as the end does, so that is not trusted.
            looked.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def closeForeign(descriptors: Sequence[int]) -> None:
    """
    Close descriptors that somebody else made, whatever they are.

    If all are pipes, at once: that waits for nothing.
    """
    try:
        # Most are of one kind, and that is known soonest of all of them together.
        list(map(fcntl.fcntl, descriptors, repeat(fcntl.F_GETPIPE_SZ)))
    except OSError:
        closer.close(descriptors)
    else:
        _closeMany(descriptors)


def _closeMany(descriptors: Sequence[int]) -> None:
    """In one call if they are neighbours, as those of one peek mostly are."""
    if len(descriptors) > 2:
        lowest, highest = min(descriptors), max(descriptors)
        if highest - lowest + 1 == len(descriptors) == len(set(descriptors)):
            os.closerange(lowest, highest + 1)
            return
    for fd in descriptors:
        closeOne(fd)


def closeDuplicate(fd: int) -> None:
    """
    Close a duplicate of what a process most probably still has, so that it is not the last.

    At once, unless it is a socket that lingers, or a file, whose server hears of each close.
    """
    lingering = lingers(fd)
    if lingering is None:
        # The link of nothing else begins with a slash; see proc(5).
        lingering = os.readlink(f"/proc/self/fd/{fd}").startswith("/")
    if lingering:
        closer.close([fd])
    else:
        closeOne(fd)


def closeSocket(owned: socket.socket, ended: bool = False) -> None:
    """
    Close a socket of ours; its peer, and what it has sent us, are somebody else's.

    At once, unless it lingers (one that was handed to us has its giver's options), or something is
    unread, in which there may be descriptors.  Idempotent.

    @param ended: all has been read, and nothing follows.
    """
    family, fd = owned.family, owned.detach()
    if fd < 0:
        return
    if lingers(fd) or (family == socket.AF_UNIX and not ended and not _nothingUnread(fd)):
        closer.close([fd])
    else:
        closeOne(fd)


def closeLast(fd: int) -> None:
    """Close a duplicate of what its process has left to us, in ending."""
    if lingers(fd) is None:
        closeForeign([fd])
    else:
        closeSocket(socket.socket(fileno=fd))
