"""
Files that a process answers for, and not the kernel: to look at one, to poll it or to close it may
wait for that process, which may be frozen, or never answer (FUSE, CUSE; file systems of a network).

Judges by what the kernel itself knows: links, modes and mounts.  Knows nothing of what is watched.
"""

from __future__ import annotations

import os
import stat

from chanproxy.kernel import calls
from chanproxy.kernel.calls import Status

_KERNELS = frozenset(
    (
        *("bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "hugetlbfs"),
        *("mqueue", "nsfs", "proc", "pstore", "ramfs", "securityfs", "sysfs", "tmpfs", "tracefs"),
    )
)
"""Kinds of file systems whose files the kernel answers for by itself."""


def isKernels(pid: int | str, fd: int, link: str) -> bool:
    """
    Whether the kernel alone answers for what a process has open.

    @param pid: C{self} for ours.
    @param link: what its link in C{/proc/PID/fd} says.
    @raise OSError: it is not open any more.
    """
    # Sockets, pipes and anonymous inodes have no path, and nothing that has one looks like them.
    if not link.startswith("/"):
        return True
    status = calls.statusOf(f"/proc/{pid}/fd/{fd}")
    if stat.S_ISFIFO(status.mode):
        # Wherever its name is, it is a pipe.
        return True
    if stat.S_ISCHR(status.mode):
        return not _inUserSpace(status.number)
    return _kindOf(pid, status)[1] in _KERNELS


def isMember(pid: int, fd: int, inode: int, device: int) -> bool:
    """
    Whether an open file is the one that an epoll has, by what the kernel says of that.

    @param device: as in C{/proc/PID/fdinfo}.
    @raise OSError: it is not open any more.
    """
    status = calls.statusOf(f"/proc/{pid}/fd/{fd}")
    if status.inode != inode:
        return False
    # Of a file in layers (overlayfs), its own status tells of the layer.
    return device in (status.device, _kindOf(pid, status)[0])


def _inUserSpace(number: int) -> bool:
    """Whether a character device is a process's."""
    path = f"/sys/dev/char/{number >> 20}:{number & 0xFFFFF}/subsystem"
    try:
        return os.path.basename(os.readlink(path)) == "cuse"
    except OSError:
        # Those of the kernel that are in no class, as of a driver that has none.
        return False


def _kindOf(pid: int | str, status: Status) -> tuple[int, str]:
    """The device and the kind of a mounted file system; -1 and nothing, if that is not seen."""
    found = (-1, "")
    for whose in (pid, "self"):
        try:
            with open(f"/proc/{whose}/mountinfo", "rb", buffering=0) as file:
                text = file.readall()
        except OSError:
            continue
        for line in text.splitlines():
            fixed, _, rest = line.partition(b" - ")
            number, _, pair, *_ = fixed.split(None, 3)
            major, _, minor = pair.partition(b":")
            device, kind = int(major) << 20 | int(minor), rest.split(None, 1)[0].decode()
            if int(number) == status.mount:
                return device, kind
            if device == status.device:
                # Mounted elsewhere, as message queues are: it is the same file system.
                found = device, kind
    return found
