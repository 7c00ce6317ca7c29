"""
Where a user may make cgroups, and what is said to one who may not.

Changes nothing.
"""

from __future__ import annotations

import errno
import os

from chanproxy.freezers.mounts import cgroupMounts, findCgroup, ourCgroup

_FORBIDDEN = (errno.EACCES, errno.EPERM)


def delegated() -> str | None:
    """The cgroup that we are in ourselves, if we may make others inside it, and move there."""
    mounts = [mount for mount in cgroupMounts() if mount.kind == "cgroup2"]
    own = ourCgroup(mounts[0]) if mounts else None
    if own is None or own == mounts[0].point:
        return None
    needed = (own, os.path.join(own, "cgroup.procs"))
    return own if all(os.access(each, os.W_OK, effective_ids=True) for each in needed) else None


def placeFor(name: str) -> str:
    """
    Where a cgroup is made of which nobody says where: at the top, or where we may.

    @return: its path, which need not exist.
    @raise FreezerError: there is no cgroup v2.
    """
    directory, mount = findCgroup(name, cgroupMounts())
    if not os.access(mount.point, os.W_OK, effective_ids=True):
        own = delegated()
        if own is not None:
            return os.path.join(own, name)
    return directory


WAYS = "run as root, or below a delegated cgroup (systemd-run --user -p Delegate=yes --scope)"
"""How a user gets a cgroup of the user's own."""


def explained(what: str, error: OSError) -> str:
    """
    What is wrong, and, where it is for want of rights, the ways to get them.

    @param what: could not be done.
    """
    if error.errno in _FORBIDDEN:
        own = delegated()
        inside = "and name one inside that" if own is None else f"here inside {own}"
        return f"{what}: {error.strerror}; {WAYS}, {inside}"
    if error.errno == errno.EROFS:
        return f"{what}: the cgroups are mounted read-only here; mount them to be written to"
    return f"{what}: {error.strerror}"
