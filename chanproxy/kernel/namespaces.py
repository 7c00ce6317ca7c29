"""
What C{/proc} says of a process's place: its PID namespace, its parent's, and its cgroup.

Knows nothing of containers and of freezing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from chanproxy.kernel.processes import contents

_KIN = re.compile(rb"\nState:\t(.).*?\nPPid:\t(\d+)\n.*?\nNSpid:((?:\t\d+)+)\n", re.DOTALL)


class Kin(NamedTuple):
    """
    @ivar ended: it is a zombie.
    @ivar parent: a process's parent; 0, if that is not seen from here.
    @ivar ids: the process's own ids, in each PID namespace from ours to its own.
    """

    ended: bool
    parent: int
    ids: tuple[int, ...]


def kinOf(pid: int) -> Kin | None:
    """
    Look at a process.

    @return: None, when there is none, or C{/proc} hides it from us, or the kernel does not tell.
    @raise OSError: it could not be read.
    """
    found = _KIN.search(contents(pid, "status"))
    if found is None:
        return None
    return Kin(found[1] in b"ZX", int(found[2]), tuple(map(int, found[3].split())))


def sentBy(pid: int) -> int | None:
    """
    Who has sent a process into its PID namespace, as C{setns(2)} and a fork do it.

    @return: its parent, which is not in that namespace, or -1 if it is not seen from here; 0: it
        was born there, or is the first there, or has ended; None: see L{kinOf}.
    @raise OSError: it could not be read.
    """
    kin = kinOf(pid)
    if kin is None:
        return None
    if kin.ended or kin.ids[-1] == 1:
        return 0
    if not kin.parent:
        return -1
    parent = kinOf(kin.parent)
    if parent is None:
        return None
    return kin.parent if len(parent.ids) < len(kin.ids) else 0


def cgroupOf(pid: int) -> bytes:
    """
    A process's cgroup, of version 2 and as seen from here; empty, when there is no process.

    @raise OSError: it could not be read.
    """
    lines = contents(pid, "cgroup").split(b"\n")
    return next((line[3:] for line in lines if line.startswith(b"0::")), b"")
