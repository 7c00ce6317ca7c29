"""
Cgroups: randomly named, holding only one's own processes, removed whatever happens.

Knows nothing of freezers, and looks at the kernel's files directly.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self


def unifiedMount() -> str | None:
    """Where cgroup v2 is mounted, first mount first."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fixed, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 "):
                return fixed.split(" ")[4]
    return None


def unusable() -> str:
    """Why no cgroups can be made here; empty if they can."""
    mount = unifiedMount()
    if mount is None:
        return "no cgroup v2 is mounted"
    if not os.access(mount, os.W_OK):
        return f"{mount} is not writable"
    return ""


class TemporaryCgroup:
    """
    A cgroup v2 of one's own.

    @ivar path: its directory; it does not exist before L{create}.
    @ivar spec: what a configuration writes for it.
    """

    def __init__(self, create: bool = True, below: str | None = None) -> None:
        mount = unifiedMount()
        if mount is None:
            raise RuntimeError(unusable())
        self.path = os.path.join(below or mount, f"chanproxy-test-{secrets.token_hex(6)}")
        self.spec = f"cgroup:{self.path}"
        self._processes: list[subprocess.Popen[bytes]] = []
        if create:
            self.create()

    def create(self) -> None:
        """Make the directory, and those above it.  Idempotent."""
        os.makedirs(self.path, exist_ok=True)

    def spawn(
        self,
        argv: Sequence[str],
        stdin: int | None = None,
        stdout: int | None = None,
        closeFds: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Run a program in the cgroup.  It is there already when this returns."""
        procs = os.open(os.path.join(self.path, "cgroup.procs"), os.O_WRONLY)
        try:
            # Between fork and exec, so that no process of the program starts outside.
            process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stdout,
                preexec_fn=lambda: os.write(procs, b"0") and None,
                close_fds=closeFds,
            )
        finally:
            os.close(procs)
        self._processes.append(process)
        return process

    def moveIn(self) -> subprocess.Popen[bytes]:
        """Run a program, and move it into the cgroup, which may be frozen."""
        process = subprocess.Popen(["sleep", "1000"])
        self._processes.append(process)
        self.write("cgroup.procs", str(process.pid))
        return process

    def read(self, name: str) -> str:
        """The text of one of its files; empty, when the cgroup is gone."""
        try:
            with open(os.path.join(self.path, name)) as file:
                return file.read()
        except OSError:
            return ""

    def write(self, name: str, text: str) -> None:
        """Write to one of its files."""
        with open(os.path.join(self.path, name), "w") as file:
            file.write(text)

    def leaveFrozen(self) -> None:
        """As a chanproxy leaves it that is killed while it sleeps."""
        os.setxattr(os.path.join(self.path, "cgroup.freeze"), "user.chanproxy.frozen", b"1")
        self.write("cgroup.freeze", "1")
        deadline = time.monotonic() + 5
        while not self.frozen():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def frozen(self) -> bool:
        """Whether the kernel says that all of it is stopped."""
        return "frozen 1" in self.read("cgroup.events")

    def kill(self) -> None:
        """Kill what was spawned, and wait for it."""
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._processes.clear()

    def close(self) -> None:
        """Thaw, kill and remove everything in it and below it.  Idempotent."""
        self.kill()
        for directory, _, _ in os.walk(self.path, topdown=False):
            for name in ("cgroup.freeze", "cgroup.kill"):
                with (
                    contextlib.suppress(OSError),
                    open(os.path.join(directory, name), "w") as file,
                ):
                    file.write("0" if name == "cgroup.freeze" else "1")
            deadline = time.monotonic() + 20
            while os.path.isdir(directory):
                try:
                    os.rmdir(directory)
                except OSError:
                    # A killed process leaves its cgroup a moment later.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.002)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
