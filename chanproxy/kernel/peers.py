"""
Peers: who is at the other end of a socket, and connecting as somebody else, so that the container's
kernel sees the remote peer.

C{SO_PEERCRED} shows the effective ids of the thread that connects.  They are changed around that
one call, for this thread alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import struct
from collections.abc import Callable, Iterator

from attrs import frozen

_CALLS = {
    "x86_64": (117, 119, 116),
    "aarch64": (147, 149, 159),
    "riscv64": (147, 149, 159),
}
"""
C{setresuid}, C{setresgid}, C{setgroups}; C{asm/unistd.h}.  The wrappers of the C library change all
threads of a process, one after the other.
"""

_CAP_SETGID, _CAP_SETUID = 6, 7
"""C{linux/capability.h}."""

_KEEP = -1

_NOBODY = 2**32 - 1
"""What C{SO_PEERCRED} shows where there is no peer."""

_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Identity:
    """Whom a peer's process was when it connected, by its kernel."""

    user: int
    group: int


def peerIdentity(descriptor: int) -> Identity:
    """
    Who is at the other end of an AF_UNIX connection.

    @param descriptor: the connection's, still the caller's.
    @raise OSError: the kernel does not say.
    """
    size = struct.calcsize("iII")
    with socket.socket(fileno=os.dup(descriptor)) as connected:
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, group = struct.unpack("iII", raw)
    return Identity(user, group)


def whyNotAssumable() -> str | None:
    """What keeps this process from connecting as others, and what to do; or L{None}."""
    if platform.machine() not in _CALLS:
        return f"connecting as others is not known for {platform.machine()}"
    with open("/proc/thread-self/status") as lines:
        status = dict(line.split(":", 1) for line in lines)
    capable = int(status["CapEff"], 16)
    lacking = [
        name
        for name, bit in (("CAP_SETUID", _CAP_SETUID), ("CAP_SETGID", _CAP_SETGID))
        if not capable >> bit & 1
    ]
    if lacking:
        return f"it takes {' and '.join(lacking)}; run the service with them, or as root"
    return None


@contextlib.contextmanager
def assumed(identity: Identity) -> Iterator[None]:
    """
    Have this thread's effective user and group, and no supplementary groups, for a moment.

    Nothing may wait in between: all that the thread does is done as that user.

    @raise PermissionError: it cannot be; nothing is changed.
    """
    user, group, groups = os.geteuid(), os.getegid(), os.getgroups()
    if _NOBODY in (identity.user, identity.group):
        # To the calls below it would mean: stay who you are.
        raise PermissionError("the kernel does not say who the peer is")
    if identity.user == 0 != user:
        # The kernel takes all capabilities from a thread whose effective user ceases to be root.
        raise PermissionError("a service that is not root cannot connect as root, and come back")
    setUser, setGroup, setGroups = _CALLS[platform.machine()]
    # The last change is undone first: only the user that was may change the others back.
    undo: list[Callable[[], None]] = []
    try:
        _setGroups(setGroups, [])
        undo.append(lambda: _setGroups(setGroups, groups))
        _call(setGroup, _KEEP, identity.group, _KEEP)
        undo.append(lambda: _call(setGroup, _KEEP, group, _KEEP))
        _call(setUser, _KEEP, identity.user, _KEEP)
        undo.append(lambda: _call(setUser, _KEEP, user, _KEEP))
        yield
    finally:
        try:
            while undo:
                undo.pop()()
        except BaseException:
            # To go on as somebody else would be worse than not to go on.
            os.abort()


def _setGroups(number: int, groups: list[int]) -> None:
    array = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(len(groups)), array) < 0:
        raise PermissionError(ctypes.get_errno(), "setgroups")


def _call(number: int, *ids: int) -> None:
    arguments = [ctypes.c_long(each) for each in ids]
    if _libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
