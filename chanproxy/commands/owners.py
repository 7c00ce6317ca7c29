"""
Whose a cgroup is that was made for a command: a mark on it says so, also when that was killed.

An extended attribute of its directory, beside that of L{chanproxy.freezers.marks}: the kernel keeps
it as long as the cgroup.  Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import NamedTuple

from chanproxy.freezers.files import cgroupsFrom
from chanproxy.kernel.processes import ProcessStatus, startTime

MARK = "user.chanproxy.command"

MADE, FOUND, ABOVE = "made", "found", "above"
"""What a mark begins with: it was made for a command; it was there, and a command took it; it was
made for what is inside it."""


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


class Owner(NamedTuple):
    """
    What a mark says.

    @ivar word: L{MADE}, L{FOUND} or L{ABOVE}.
    @ivar start: when its process started, as the kernel counts.
    @ivar namespace: the pid namespace that its process is in.
    """

    word: str
    pid: int
    start: int
    namespace: int

    @classmethod
    def ours(cls, word: str) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(word, pid, startTime(pid), _namespace())

    @classmethod
    def of(cls, directory: str) -> Owner | None:
        """
        Who has made or taken a cgroup.

        @return: None: no command; or the kernel is older than 5.7, which has no marks.
        """
        try:
            word, *numbers = os.getxattr(directory, MARK).decode().split()
            pid, start, namespace = map(int, numbers)
        except (OSError, ValueError):
            return None
        return cls(word, pid, start, namespace)

    def write(self, directory: str) -> None:
        """@raise FileNotFoundError: it is gone."""
        text = f"{self.word} {self.pid} {self.start} {self.namespace}"
        try:
            os.setxattr(directory, MARK, text.encode())
        except FileNotFoundError:
            raise
        except OSError:
            # An old kernel: nobody will know whose it was, and it will be left alone.
            return

    @property
    def lives(self) -> bool:
        """Whether its process is there; also when that cannot be known."""
        if self.namespace != _namespace():
            return True
        try:
            status = ProcessStatus.read(self.pid)
            return startTime(self.pid) == self.start and status is not None and not status.ended
        except OSError:
            return True


def unmarkOwner(directory: str) -> None:
    """It is no command's any more.  Harmless when it is gone."""
    with contextlib.suppress(OSError):
        os.removexattr(directory, MARK)


def make(directory: str, word: str) -> list[str]:
    """
    Make a cgroup, and those above it.

    @return: what was made, it first; nothing, when it is there.
    @raise FileNotFoundError: one above was removed just now.
    """
    above: list[str] = []
    try:
        os.mkdir(directory)
    except FileExistsError:
        return []
    except FileNotFoundError:
        above = make(os.path.dirname(directory), ABOVE)
        os.mkdir(directory)
    Owner.ours(word).write(directory)
    return [directory, *above]


def removeAbove(directory: str, made: Collection[str] = ()) -> None:
    """
    Remove the cgroups above one that were made for what is inside them, while they are empty.

    @param made: those that are known to be, marked or not.
    """
    while True:
        directory = os.path.dirname(directory)
        owner = Owner.of(directory)
        if directory not in made and (owner is None or owner.word != ABOVE):
            return
        try:
            os.rmdir(directory)
        except OSError:
            return


def leftBehind(parent: str, name: str) -> list[str]:
    """
    The cgroups C{NAME-PID} in one that commands have left that were killed.

    Those with nothing in them are removed.
    """
    left = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            stem, _, number = entry.name.rpartition("-")
            owner = Owner.of(entry.path) if stem == name and number.isdigit() else None
            if owner is None or owner.word != MADE or owner.lives:
                continue
            try:
                for inner in [*cgroupsFrom(entry.path)][::-1]:
                    os.rmdir(inner)
            except OSError:
                left.append(entry.path)
    return sorted(left)
