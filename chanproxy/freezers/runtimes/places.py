"""
Where the cgroup of a container is, by its id or one of its processes; and whether it is the
container's alone.

Knows cgroups and processes; nothing of runtimes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from chanproxy.freezers.files import CGROUPS, GONE, cgroupsFrom, processesIn
from chanproxy.freezers.mounts import CgroupMount, cgroupMounts, findCgroup
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.namespaces import cgroupOf
from chanproxy.kernel.processes import commandOf

SEARCHED = 16 * CGROUPS
"""Cgroups that are looked through for a name, at the most."""

_KEPT_BY = ("conmon", "slirp4netns", "rootlessport", "rootlessport-child", "pasta", "catatonit")
"""What Podman runs beside a container."""


def _mounts() -> list[CgroupMount]:
    mounts = [each for each in cgroupMounts() if each.kind == "cgroup2"]
    if not mounts:
        # Says what to do.
        findCgroup("none", [])
    return mounts


def byName(matches: Callable[[str], bool]) -> str:
    """
    The topmost cgroup with a name of its own that matches; empty: there is none.

    A runtime freezes and asks only the one that it has made, which may be inside this one.

    @raise FreezerError: it cannot be looked for.
    """
    for directory in _all(_mounts()[0].point):
        if matches(directory.rpartition("/")[2]):
            return directory
    return ""


def _all(top: str) -> Iterator[str]:
    """From above: of two, one inside the other, the outer one comes first."""
    for count, directory in enumerate(cgroupsFrom(top)):
        if count > SEARCHED:
            raise FreezerError(f"more than {SEARCHED} cgroups are in {top}")
        yield directory


def byProcess(pid: int) -> str:
    """
    The cgroup that a process is in; empty: there is no such process.

    @raise FreezerError: it cannot be known.
    """
    try:
        path = os.fsdecode(cgroupOf(pid))
    except OSError as error:
        raise FreezerError(f"the cgroup of process {pid} cannot be read: {error}") from error
    if not path:
        return ""
    return below(path)


def below(path: str) -> str:
    """
    Where a path of C{/proc/PID/cgroup} is mounted.

    @raise FreezerError: it is not, or is that of all.
    """
    if path.startswith("/..") or path == "/":
        raise FreezerError(f"its cgroup is {path}, which is not seen from here")
    for mount in _mounts():
        root = mount.root.rstrip("/")
        if path.startswith(f"{root}/"):
            return f"{mount.point}{path[len(root) :]}"
    raise FreezerError(f"its cgroup {path} is mounted nowhere")


def strangers(directory: str) -> list[str]:
    """Who is in a cgroup and is of a runtime, not of a container: C{conmon[12]}."""
    try:
        pids = processesIn(directory, CGROUPS)
    except OSError as error:
        if error.errno in GONE:
            return []
        raise FreezerError(f"{directory} cannot be read: {error}") from error
    names = ((commandOf(pid), pid) for pid in pids if pid)
    return [f"{name}[{pid}]" for name, pid in names if name in _KEPT_BY]


def expectAlone(directory: str, remedy: str) -> None:
    """@raise FreezerError: somebody else is in a container's cgroup; with what to do."""
    others = strangers(directory)
    if others:
        raise FreezerError(
            f"{directory} holds {', '.join(others)} as well, which is not the container's; {remedy}"
        )
