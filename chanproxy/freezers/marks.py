"""
The mark on a cgroup that it is we who have frozen it, kept by the kernel as long as the cgroup.

An extended attribute of C{cgroup.freeze}.  It outlives whoever set it, needs no file anywhere that
could be cleaned away, and is for those alone who may write C{cgroup.freeze}.  What is frozen and
has none was paused by somebody else.  Knows nothing of who owns a cgroup.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from chanproxy.freezers.files import cgroupsFrom, readOnce
from chanproxy.freezers.guardian import MARK
from chanproxy.freezers.mounts import cgroupMounts, findCgroup

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EPERM)
"""
Before Linux 5.7 a cgroup has no attributes of this kind: C{kernfs_user_xattr_handler} is of then.
(EPERM is what C{xattr_permission} in C{fs/xattr.c} says of files that cannot have any.)
"""


def mark(fd: int) -> None:
    """
    Say that it is we who freeze this cgroup; nothing where the kernel has no such attributes.

    @param fd: C{cgroup.freeze}, open.
    @raise OSError: it cannot be marked: do not freeze it, for nobody could tell afterwards.
    """
    try:
        os.setxattr(fd, MARK, b"1")
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def unmark(fd: int) -> None:
    """It is thawed.  Harmless without a mark, and when the cgroup is gone."""
    # With a mark left behind, the pause of somebody else would be taken for ours: no harm worth
    # an error on the way of a thaw.
    with contextlib.suppress(OSError):
        os.removexattr(fd, MARK)


def marked(fd: int | str) -> bool | None:
    """
    Whether it was we who have frozen this cgroup.

    @param fd: C{cgroup.freeze}, open, or its path.
    @return: None where the kernel has no such attributes: it is not known.
    @raise OSError: it is gone, or may not be read.
    """
    try:
        os.getxattr(fd, MARK)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return False
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def isPaused(directory: str) -> bool:
    """Whether a cgroup is frozen, and not by us; False where that is not known."""
    freeze = os.path.join(directory, "cgroup.freeze")
    try:
        # Of one that sleeps it must not be opened, which would wake it.
        return marked(freeze) is False and readOnce(freeze).strip() == b"1"
    except OSError:
        return False


def markedCgroups(
    below: str = "",
    enough: Callable[[], bool] = lambda: False,
    spared: Callable[[str], bool] = lambda directory: False,
) -> Iterator[str]:
    """
    The directories of all cgroups that can be seen, are frozen, and have our mark.

    @param below: a cgroup, as a configuration names it: it, and those inside it only.
    @param enough: asked before each is looked at: whether to look no further.
    @param spared: whether one that has it is left out, and not woken by being opened.
    @raise FreezerError: it cannot be one.
    """
    seen: set[tuple[int, int]] = set()
    mounts = cgroupMounts()
    tops = [mount.point for mount in mounts if mount.kind == "cgroup2"]
    for top in [findCgroup(below, mounts)[0]] if below else tops:
        for directory in cgroupsFrom(top, skip=lambda directory: enough()):
            freeze = os.path.join(directory, "cgroup.freeze")
            try:
                if not marked(freeze) or spared(directory) or readOnce(freeze).strip() != b"1":
                    continue
                found = os.stat(directory)
            except OSError:
                continue
            # A cgroup may be seen through several mounts.
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                yield directory
