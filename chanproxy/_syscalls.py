"""
The foreign calls: what the kernel offers and neither the standard library nor Twisted wraps.

Knows nothing of channels, counters or containers.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket

SIOCOUTQ = 0x5411
"""C{linux/sockios.h}: bytes sent on a socket that the peer has not read yet."""

SCM_MAX_FD = 253
"""C{net/scm.h}: most descriptors the kernel carries on one message."""


def unreadBytes(fd: int) -> int:
    """
    How much of what was sent on an AF_UNIX socket its peer has not read.

    The figure is the kernel's own memory accounting, larger than the data; 0 is exact.
    """
    value = array.array("i", [0])
    fcntl.ioctl(fd, SIOCOUTQ, value)
    # While the kernel tells us of the last read it still holds one unit of the account
    # (sock_wfree), and no event follows when that goes; a real packet is hundreds.
    return 0 if value[0] == 1 else value[0]


def hungUp(fd: int) -> int:
    """The hang-up events (C{POLLRDHUP}, C{POLLHUP}) that are up on C{fd} now."""
    poller = select.poll()
    poller.register(fd, select.POLLRDHUP)
    for _, events in poller.poll(0):
        return events & (select.POLLRDHUP | select.POLLHUP)
    return 0


def eventfdInfo(fd: int) -> dict[str, str]:
    """
    The lines of C{/proc/self/fdinfo/FD}, by their names; an eventfd's start with C{eventfd-}.

    @raise OSError: C{fd} is not open, or C{/proc} is not mounted.
    """
    with open(f"/proc/self/fdinfo/{fd}") as lines:
        return {
            name.strip(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }


def descriptorsIn(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors among what C{recvmsg} gave as control messages; the caller owns them."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def closeAll(descriptors: list[int] | tuple[int, ...]) -> None:
    """Close each descriptor, whatever the others do."""
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            # EBADF would be a double close and must not hide the rest; EIO and ENOSPC come from
            # a file's late write and do not leave it open.
            continue
