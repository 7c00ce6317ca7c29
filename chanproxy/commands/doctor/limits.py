"""
Limits: open files, watches, memory and processes that the service may have.

Only looks.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from chanproxy.commands.doctor.findings import Finding, ok, problem, warning
from chanproxy.freezers.files import readLines
from chanproxy.freezers.mounts import cgroupMounts, ourCgroup
from chanproxy.kernel import descriptors
from chanproxy.service.listener import CONNECTION

LEAST_FILES, FEW_FILES = 64, 4096
"""Open files: a service with one container takes some thirty; all beyond that is shared out."""

FEW_WATCHES = 10_000
"""As many wake sources are nothing unusual, and each is watched."""

FEW_INSTANCES = 64
"""Each container that is waited for takes one, and other programs of the same user do."""

LITTLE_LOCKED = 64 * 1024
"""Bytes; the counts that others have in common with the service are some pages."""

FEW_PROCESSES = 16
"""The guardian, and those that close and read for the service."""


def limits() -> Iterator[Finding]:
    """All of them."""
    yield _files()
    yield _setting(
        *("epoll watches", "fs/epoll/max_user_watches", FEW_WATCHES),
        "descriptors that can be watched",
    )
    yield _setting(
        *("inotify instances", "fs/inotify/max_user_instances", FEW_INSTANCES),
        "containers that can be waited for, and what other programs of the user take",
    )
    yield _locked()
    yield _processes()


def _files() -> Finding:
    # The service raises the soft limit to this one.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    share = hard // 4
    says = (
        f"{hard} at most (ulimit -Hn), a quarter of them for one container: {share // CONNECTION} "
        "connections of its channels"
    )
    remedy = "give more: LimitNOFILE=65536 in the unit, or 'ulimit -Hn 65536' as root"
    if hard < LEAST_FILES:
        return problem("open files", f"{says}; a service takes some thirty by itself", remedy)
    if hard < FEW_FILES:
        return warning("open files", says, remedy)
    return ok("open files", f"{says}; {descriptors.limit()} without asking (ulimit -n)")


def _setting(topic: str, name: str, few: int, what: str) -> Finding:
    """A number of sysctl(8)."""
    lines = readLines(f"/proc/sys/{name}")
    dotted = name.replace("/", ".")
    if not lines or not lines[0].isdecimal():
        return warning(topic, f"{dotted} cannot be read", f"show /proc/sys/{name} to the service")
    number = int(lines[0])
    says = f"{number} {what} ({dotted})"
    return ok(topic, says) if number >= few else warning(topic, says, f"'sysctl {dotted}={few}'")


def _locked() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY:
        return ok("locked memory", "without limit (ulimit -l)")
    says = f"{limit // 1024} KiB (ulimit -l)"
    if limit >= LITTLE_LOCKED or os.geteuid() == 0:
        return ok("locked memory", says)
    return warning(
        "locked memory",
        f"{says}: pages that are looked at right before a thaw may be paged out",
        "give 64 KiB or more: LimitMEMLOCK=64K in the unit",
    )


def _processes() -> Finding:
    """How many there may be: by the kernel's limits, the user's, and those of cgroups."""
    topic = "processes"
    kernels = ("pid_max", "threads-max")
    room = {f"kernel.{name}": _number(f"/proc/sys/kernel/{name}") for name in kernels}
    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if os.geteuid() != 0 and own != resource.RLIM_INFINITY:
        room["ulimit -u"] = own
    for mount in cgroupMounts():
        directory = ourCgroup(mount) if mount.kind == "cgroup2" else None
        while directory is not None and directory.startswith(mount.point):
            most, now = (_number(f"{directory}/pids.{name}") for name in ("max", "current"))
            if most is not None and now is not None:
                room[f"{directory}/pids.max"] = max(most - now, 0)
            directory = os.path.dirname(directory) if directory != mount.point else None
    known = {name: number for name, number in room.items() if number is not None}
    if not known:
        return ok(topic, "no limit of them is seen")
    least = min(known, key=lambda name: known[name])
    says = f"{known[least]} at most, by {least}"
    if known[least] < FEW_PROCESSES:
        return warning(topic, f"{says}; the service takes up to {FEW_PROCESSES}", f"raise {least}")
    return ok(topic, says)


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
