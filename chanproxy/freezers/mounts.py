"""
Where cgroups are: mounts, configured paths, and whether one of them holds ourselves.

Changes nothing, and knows nothing of freezing.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from chanproxy.freezers.files import cgroupsFrom, readLines
from chanproxy.interfaces import FreezerError
from chanproxy.words import Wrong, brief


class CgroupMount(NamedTuple):
    """
    One line of mountinfo.

    @ivar root: which cgroup is mounted, as seen from our cgroup namespace.
    @ivar point: where.
    @ivar kind: C{cgroup2} or C{cgroup}.
    """

    root: str
    point: str
    kind: str


def cgroupMounts(mountinfo: str | None = None) -> list[CgroupMount]:
    """The cgroup filesystems, both versions, in C{/proc/self/mountinfo} or the given text."""
    if mountinfo is None:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            mountinfo = file.read()
    mounts = []
    for line in mountinfo.splitlines():
        # proc(5): six fixed fields, optional ones, a lone hyphen, then the filesystem type.
        fixed, hyphen, rest = line.partition(" - ")
        fields = fixed.split(" ")
        kind = rest.split(" ")[0]
        if hyphen and len(fields) >= 6 and kind in ("cgroup", "cgroup2"):
            mounts.append(CgroupMount(_unescape(fields[3]), _unescape(fields[4]), kind))
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def isBelow(path: str, top: str) -> bool:
    """Whether C{path} is C{top} or below it; both normalised."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def expectCgroup(path: str) -> None:
    """
    See that a path could be that of a container's cgroup, wherever cgroups are mounted.

    @raise Wrong: it could not.
    """
    if not path.isprintable() or path != path.strip():
        clean = "".join(filter(str.isprintable, path)).strip()
        better = [f"cgroup:{clean}"] if clean.strip("/.") else []
        raise Wrong(f"{brief(path)} has a space around it, or holds what does not print", *better)
    normal = os.path.normpath(path)
    if normal in (".", "/", "//") or normal.split("/")[0] == "..":
        raise Wrong(f"cgroup:{path} holds others as well; name a cgroup of the container alone")


def findCgroup(path: str, mounts: list[CgroupMount]) -> tuple[str, CgroupMount]:
    """
    Where a configured path is.

    @param path: absolute below any cgroup v2 mount, or relative to the first one.
    @return: the directory, which need not exist, and the mount that it is below.
    @raise FreezerError: it is not below a cgroup v2 mount; the text says what to write instead.
    """
    unified = [mount for mount in mounts if mount.kind == "cgroup2"]
    if not unified:
        raise FreezerError(
            f"cgroup:{path}: no cgroup v2 filesystem is mounted; mount one with"
            " 'mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified'"
        )
    if os.path.isabs(path):
        directory = os.path.realpath(path)
    else:
        directory = os.path.normpath(os.path.join(unified[0].point, path))
    holding = [mount for mount in unified if isBelow(directory, mount.point)]
    if not holding:
        first = unified[0].point
        tops = [mount.point for mount in mounts if mount.kind == "cgroup"]
        tops.append(os.path.dirname(first))
        rest = directory
        for top in sorted(tops, key=len, reverse=True):
            if top != "/" and isBelow(directory, top):
                rest = directory[len(top) :]
                break
        points = ", ".join(mount.point for mount in unified)
        name = rest.strip("/")
        raise FreezerError(
            f"cgroup:{path}: {directory} is not below a cgroup v2 mount ({points});"
            f" write cgroup:{os.path.join(first, name or 'NAME')}"
            + ("" if name else ", with the name of the container's own")
        )
    return directory, max(holding, key=lambda mount: len(mount.point))


def _ownPath(mount: CgroupMount, ownCgroups: str | None) -> str | None:
    """
    Where below a mount this process is; None: that cannot be known by names.

    @param ownCgroups: the text of C{/proc/self/cgroup}, which is read if it is not given.
    """
    if ownCgroups is None:
        with open("/proc/self/cgroup", errors="surrogateescape") as file:
            ownCgroups = file.read()
    own = next((line[3:] for line in ownCgroups.splitlines() if line.startswith("0::")), None)
    if own is None:
        return ""
    if mount.root.startswith("/..") or own.startswith("/.."):
        # One of them is outside our cgroup namespace, so the names cannot be compared.
        return None
    if not isBelow(own, mount.root):
        return ""
    inside = own[len(mount.root.rstrip("/")) :].lstrip("/")
    return os.path.normpath(os.path.join(mount.point, inside))


def ourCgroup(mount: CgroupMount) -> str | None:
    """The directory of the cgroup v2 that this process is in; None: it is not seen there."""
    return _ownPath(mount, None) or None


def holdsUs(directory: str, mount: CgroupMount, ownCgroups: str | None = None) -> bool:
    """
    Whether this process is in the cgroup C{directory}, or below it.

    @param ownCgroups: the text of C{/proc/self/cgroup}, which is read if it is not given.
    """
    own = _ownPath(mount, ownCgroups)
    if own is None:
        return any(
            str(os.getpid()) in readLines(os.path.join(below, "cgroup.procs"))
            for below in cgroupsFrom(directory)
        )
    return bool(own) and isBelow(own, directory)


def cannotFreeze(spec: str, directory: str, mount: CgroupMount) -> FreezerError:
    if directory == mount.point:
        return FreezerError(
            f"{spec}: {directory} is the root cgroup, which cannot be frozen;"
            f" write cgroup:{os.path.join(directory, 'NAME')}, with the name of one below it that"
            " holds the container alone"
        )
    return FreezerError(
        f"{spec}: {directory} has no cgroup.freeze: it is not a cgroup v2 directory, or the kernel"
        " is older than 5.2"
    )


def frozenAbove(directory: str, mount: CgroupMount) -> str | None:
    """The file that is to be written to thaw a cgroup above this one; None: none is frozen."""
    # Not by `frozen 1` of our own: the tasks clear that themselves, a moment later.
    while isBelow(directory, mount.point) and directory != mount.point:
        directory = os.path.dirname(directory)
        freeze = os.path.join(directory, "cgroup.freeze")
        if readLines(freeze) == ["1"]:
            return freeze
    return None


def refuseOurselves(spec: str, directory: str, mount: CgroupMount) -> None:
    """@raise FreezerError: this process is in that cgroup, or below it."""
    if holdsUs(directory, mount):
        raise FreezerError(
            f"{spec}: chanproxy itself runs in {directory} or below it, and would freeze"
            " itself; run chanproxy elsewhere, or name a cgroup of the container alone"
        )
