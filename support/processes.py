"""Processes: what the kernel says of one, and one that nothing but SIGKILL can reach."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator

from chanproxy.kernel.processes import waitsIn
from support.cgroups import TemporaryCgroup

_libc = ctypes.CDLL(None, use_errno=True)

_MNT_DETACH = 2


def processState(pid: int) -> str:
    """The letter of its main thread's state; empty, when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][:1]
    except OSError:
        return ""


def waitForState(pid: int, state: str, where: str = "") -> None:
    """
    Wait, with a bound, for a state of another process, of which no event tells.

    @param where: what the function of the kernel's has in its name that it waits in: on its way
        there it may wait for its own pages, as uninterruptibly.
    """
    deadline = time.monotonic() + 20
    while processState(pid) != state or where not in waitsIn(pid):
        assert time.monotonic() < deadline, f"{pid} is {processState(pid)}, not {state}"
        time.sleep(0.001)


def cannotStick() -> str:
    """Why L{stuckProcess} does not work here; empty if it does."""
    if os.geteuid() != 0:
        return "needs root to mount"
    return "" if os.path.exists("/dev/fuse") else "needs /dev/fuse"


@contextlib.contextmanager
def stuckProcess(cgroup: TemporaryCgroup) -> Iterator[subprocess.Popen[bytes]]:
    """A process named C{stat} that waits uninterruptibly, so that it cannot be frozen."""
    # It waits for the first answer of a filesystem whose server never gives one.
    with tempfile.TemporaryDirectory() as directory:
        server = os.open("/dev/fuse", os.O_RDWR)
        try:
            options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
            if _libc.mount(b"stuck", os.fsencode(directory), b"fuse", 0, options) < 0:
                raise OSError(ctypes.get_errno(), "mount")
            try:
                process = cgroup.spawn(["stat", os.path.join(directory, "file")])
                waitForState(process.pid, "D", "fuse")
                try:
                    yield process
                finally:
                    process.kill()
                    process.wait()
            finally:
                _libc.umount2(os.fsencode(directory), _MNT_DETACH)
        finally:
            os.close(server)
