"""
The files of a cgroup v2: how they are read, and what their errors mean for the user.

Knows neither where cgroups are mounted nor what is done with them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from chanproxy.interfaces import FreezerError, FreezerNotReady

CGROUPS, PROCESSES = 512, 4096
"""
How many cgroups and processes of one container are looked through, by default: the first take some
25 milliseconds, the others less.
"""

DEPTH = 32
"""
How deep inside each other cgroups are looked through, by default.  The kernel finds one by its
path, so that 500 in a row take ten times as long as 500 beside each other.
"""

GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)
"""The errors of a cgroup that does not exist, or no longer."""


def readLines(path: str) -> list[str]:
    """The lines of a file in C{/proc} or a cgroup; none, if it cannot be read."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def readOnce(path: str) -> bytes:
    """The first page of a file; nothing, if it cannot be read.  A third of what a line takes."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


class TooMuchInside(FreezerError):
    """A container has more cgroups or processes than are looked through; the text names both."""


class Breadth(NamedTuple):
    """
    How much of a container is looked through.

    @ivar cgroups: its own and all below it.
    @ivar processes: in all of them.
    @ivar depth: how many may be inside each other below its own.
    """

    cgroups: int = CGROUPS
    processes: int = PROCESSES
    depth: int = DEPTH

    def expect(self, cgroups: int, depth: int) -> None:
        """@raise TooMuchInside: there are more, or they are deeper."""
        if cgroups > self.cgroups:
            raise TooMuchInside(f"more than {self.cgroups} cgroups are in it; raise limits.cgroups")
        if depth > self.depth:
            raise TooMuchInside(
                f"cgroups are more than {self.depth} deep in it; raise limits.cgroup-depth"
            )


def cgroupsFrom(
    directory: str,
    failed: Callable[[OSError], object] = lambda error: None,
    skip: Callable[[str], bool] = lambda directory: False,
    most: Breadth | None = None,
) -> Iterator[str]:
    """
    A cgroup and all below it, each before those inside it.

    However deep they are: nothing is called by itself.

    @param failed: called with the error when one cannot be looked into.
    @param skip: whether one is left out, with all below it.
    @param most: how many there may be, and how deep; None: any number, for those who cannot do
        without.
    @raise TooMuchInside: there are more; found out before all of them are looked at.
    """
    left, count = [directory], 1
    while left:
        inside = left.pop()
        if skip(inside):
            continue
        yield inside
        try:
            # As a rule there is none, and the kernel counts them (set_nlink in fs/kernfs/inode.c).
            within = os.stat(inside).st_nlink - 2
            if within <= 0:
                continue
            count += within
            if most is not None:
                most.expect(count, inside.count("/") - directory.count("/") + 1)
            with os.scandir(inside) as entries:
                left += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
        except OSError as error:
            failed(error)


def processesIn(directory: str, most: int) -> list[int]:
    """
    The processes of one cgroup, without those below it.

    @param most: how many are read; one more than that says that there are more.
    @raise OSError: it cannot be read.
    """
    text = b""
    with open(os.path.join(directory, "cgroup.procs"), "rb", buffering=0) as file:
        # A line has eight bytes at most.
        while piece := file.read(65536):
            text += piece
            if text.count(b"\n") > most:
                break
    return [int(pid) for pid in text.split(b"\n")[:-1][: most + 1]]


class Kept(NamedTuple):
    """The descriptors that a freeze keeps open for its thaw; owner: the freezer."""

    freeze: int
    events: int

    def wanted(self) -> bool:
        """
        Whether C{cgroup.freeze} is still 1.

        C{frozen} drops to 0 for a moment when one of several processes is killed or another one is
        moved in; the kernel then stops what is left, and that is no thaw.
        """
        try:
            return os.pread(self.freeze, 16, 0).strip() == b"1"
        except OSError:
            return False

    def close(self) -> None:
        os.close(self.freeze)
        os.close(self.events)


class Events(NamedTuple):
    """What C{cgroup.events} says.  A cgroup that was removed is neither."""

    populated: bool
    frozen: bool

    @classmethod
    def read(cls, fd: int) -> Events:
        try:
            lines = os.pread(fd, 4096, 0).splitlines()
        except OSError as error:
            if error.errno not in GONE:
                raise
            lines = []
        return cls(b"populated 1" in lines, b"frozen 1" in lines)


def noRight(spec: str, path: str) -> FreezerError:
    return FreezerError(
        f"{spec}: user {os.geteuid()} may not write {path}; grant it with"
        f" 'chown {os.geteuid()} {path}', or run the container in a systemd unit with Delegate=yes"
    )


def explained(spec: str, path: str, error: OSError) -> FreezerError:
    if error.errno in GONE:
        return FreezerNotReady(f"{spec}: does not exist")
    if error.errno in (errno.EACCES, errno.EPERM):
        return noRight(spec, path)
    return FreezerError(f"{spec}: {path}: {os.strerror(error.errno or 0)}")
