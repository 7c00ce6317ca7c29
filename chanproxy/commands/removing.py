"""
Emptying and removing a cgroup, with all that is in it, whatever it does.

Blocking, without a reactor; knows nothing of who made it, and of what freezes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Collection

from chanproxy.freezers.files import GONE, cgroupsFrom

EMPTYING = 5.0
"""Seconds to wait until what was killed has left its cgroup; the kernel takes milliseconds."""

_AGAIN = 0.25
"""Seconds after which what is still in it is killed once more: it may have come in meanwhile."""


def removeCgroup(directory: str, patience: float = EMPTYING) -> str:
    """
    Kill all that is in a cgroup and below it, thaw it, and remove it.

    @param patience: seconds.
    @return: what is left, and why; empty: nothing is.
    """
    deadline = time.monotonic() + patience
    while True:
        killAll(directory)
        writeFile(directory, "cgroup.freeze", b"0")
        again = min(deadline, time.monotonic() + _AGAIN)
        left = removeEmptied(directory, again)
        if not left or again == deadline:
            return left


def killAll(directory: str) -> None:
    """Also what is frozen.  Who is not there any more is not an error."""
    if writeFile(directory, "cgroup.kill", b"1"):
        return
    # Before Linux 5.14.
    for inner in cgroupsFrom(directory):
        with contextlib.suppress(OSError), open(os.path.join(inner, "cgroup.procs")) as file:
            for pid in map(int, file):
                # 0 is one that cannot be seen from here, and would be our own group.
                if pid:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)


def writeFile(directory: str, name: str, text: bytes) -> bool:
    """Write to a file of a cgroup; whether that could be done."""
    try:
        with open(os.path.join(directory, name), "wb", buffering=0) as file:
            file.write(text)
    except OSError:
        return False
    return True


def removeEmptied(directory: str, deadline: float, kept: Collection[str] = ()) -> str:
    """
    Remove a cgroup and those inside it, which whoever is in them leaves in a moment.

    @param deadline: until when to wait for that, of the monotonic clock.
    @param kept: those that are to stay.
    @return: what is left, and why; empty: nothing is.
    """
    for inner in [*cgroupsFrom(directory)][::-1]:
        while inner not in kept:
            try:
                os.rmdir(inner)
                break
            except OSError as error:
                if error.errno in GONE:
                    break
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return f"{inner} is left: {error.strerror}"
                time.sleep(0.002)
    return ""
