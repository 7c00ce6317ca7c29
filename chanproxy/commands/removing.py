"""
Removing a cgroup, with all that is in it, whatever it does.

Blocking, without a reactor; knows nothing of who made it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time

EMPTYING = 5.0
"""Seconds to wait until what was killed has left its cgroup; the kernel takes milliseconds."""


def removeCgroup(directory: str, patience: float = EMPTYING) -> str:
    """
    Kill all that is in a cgroup and below it, thaw it, and remove it.

    @param patience: seconds.
    @return: what is left, and why; empty: nothing is.
    """
    deadline = time.monotonic() + patience
    if not _write(directory, "cgroup.kill", b"1"):
        # Before Linux 5.14.
        for inner, _, _ in os.walk(directory):
            _kill(inner)
    _write(directory, "cgroup.freeze", b"0")
    for inner, _, _ in os.walk(directory, topdown=False):
        while True:
            try:
                os.rmdir(inner)
                break
            except FileNotFoundError:
                break
            except OSError as error:
                # What was killed leaves a moment later.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return f"{inner}: is left: {error.strerror}"
                time.sleep(0.002)
    return ""


def _write(directory: str, name: str, text: bytes) -> bool:
    with contextlib.suppress(OSError):
        fd = os.open(os.path.join(directory, name), os.O_WRONLY)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
        return True
    return False


def _kill(directory: str) -> None:
    with contextlib.suppress(OSError):
        with open(os.path.join(directory, "cgroup.procs")) as file:
            pids = [int(line) for line in file]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
