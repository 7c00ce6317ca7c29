"""
Limits that sockets have for calls that wait on them, C{SO_RCVTIMEO} and C{SO_SNDTIMEO}.

No argument of the call shows them.  Looks at descriptors; knows nothing of threads.
"""

from __future__ import annotations

import socket
import struct

from chanproxy.kernel import calls
from chanproxy.kernel.borrowed import borrowed
from chanproxy.kernel.foreign import closeDuplicate

RECEIVING = frozenset(("accept", "accept4", "read", "readv", "recvfrom", "recvmsg", "recvmmsg"))
"""Calls with a limit for receiving; C{connect} has one for sending."""


def limitOf(descriptor: int, call: str) -> int | None:
    """
    A limit, nanoseconds; None for no limit, and for what is no socket.

    @param descriptor: of this process; it stays the caller's.
    """
    if call in RECEIVING:
        option = socket.SO_RCVTIMEO
    elif call == "connect":
        option = socket.SO_SNDTIMEO
    else:
        return None
    try:
        with borrowed(descriptor) as looked:
            value = looked.socket.getsockopt(socket.SOL_SOCKET, option, 16)
    except OSError:
        return None
    seconds, microseconds = struct.unpack("qq", value)
    return (seconds * 1_000_000 + microseconds) * 1000 or None


def limitIn(pidfd: int, descriptor: int, call: str) -> int | None:
    """
    The same for a descriptor of another process.

    @raise OSError: it has none such, or we may not look.
    """
    if call not in RECEIVING and call != "connect":
        return None
    duplicate = calls.duplicateFrom(pidfd, descriptor)
    try:
        return limitOf(duplicate, call)
    finally:
        closeDuplicate(duplicate)
