"""
Who watches by inotify whether its own cgroups are frozen: a freeze by itself tells it something.

systemd in a container watches C{cgroup.events} of each of its units, in which a freeze of the
container changes a line.  Knows inotify and cgroups; knows nothing of processes and epolls.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache

from chanproxy.adopt.epolls import innerDevice

_WATCH = re.compile(
    rb"^inotify wd:\S+ ino:\S+ sdev:([0-9a-f]+) mask:\S+ ignored_mask:\S+ "
    rb"fhandle-bytes:([0-9a-f]+) fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]+)",
    re.MULTILINE,
)

_KERNFS = 0xFE
"""C{linux/exportfs.h}, C{FILEID_KERNFS}."""

_MOST = 1000
"""Watches that are looked at; who has more watches other things."""

_libc = ctypes.CDLL(None, use_errno=True)


def watchesFrozen(path: str) -> bool:
    """
    Whether an inotify watches nothing but files of cgroups that are frozen now.

    What it tells then is the freeze alone: of a process that ends the kernel tells otherwise.

    @param path: C{/proc/PID/fdinfo/N}.
    @return: False also when that cannot be known, for which C{CAP_DAC_READ_SEARCH} is needed.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.readall()
    except OSError:
        return False
    watches = _WATCH.findall(text)
    if not 0 < text.count(b"inotify wd:") == len(watches) <= _MOST:
        return False
    mount = _mount()
    if mount is None:
        return False
    here = innerDevice(os.stat(mount).st_dev)
    return all(
        int(device, 16) == here
        and int(kind, 16) == _KERNFS
        and _isFrozen(mount, bytes.fromhex(handle.decode())[: int(size, 16)])
        for device, size, kind, handle in watches
    )


def _isFrozen(mount: str, handle: bytes) -> bool:
    """Whether a file, by its handle, is one of a cgroup that is frozen."""
    # struct file_handle, see open_by_handle_at(2).
    raw = ctypes.create_string_buffer(
        len(handle).to_bytes(4, "little") + _KERNFS.to_bytes(4, "little") + handle
    )
    try:
        directory = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fd = _libc.open_by_handle_at(directory, raw, os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(directory)
    if fd < 0:
        return False
    try:
        found = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    finally:
        os.close(fd)
    try:
        with open(os.path.join(os.path.dirname(found), "cgroup.events"), "rb") as file:
            return b"frozen 1" in file.read()
    except OSError:
        return False


@cache
def _mount() -> str | None:
    """Where cgroup v2 is mounted."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fixed, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 "):
                return fixed.split(" ")[4]
    return None
