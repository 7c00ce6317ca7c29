"""
What is frozen is written down, so that whoever comes after a crash can thaw it.

One small file per freezer in the runtime directory, locked while its service lives: a lock that can
be had means that the owner is dead.  Knows freezers by their specification only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator

from chanproxy.freezers.claims import holdersOf, inHands, tryLock
from chanproxy.freezers.marks import markedCgroups
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.rundirectory import BadFile, isAt, openDirectory, openFile, runtimeDirectory
from chanproxy.words import brief

_LONGEST = 4096
"""Bytes of a specification; C{PATH_MAX} of C{linux/limits.h}, and no more makes sense."""

_TRIES = 100
"""
How often a record may be removed by somebody else between our opening and our locking it.  Each
time that one has come to its end; so many at once there are not.
"""


def _lockedFile(directory: int, name: str) -> int | None:
    """
    A record, made if need be, locked, and still under its name.

    Without the last, one would hold a file that its owner has removed since it was opened: a lock
    that nobody else ever meets.

    @return: a descriptor; or None: it is in other hands.
    @raise BadFile: there is something else under that name.
    """
    for _ in range(_TRIES):
        fd = openFile(directory, name, make=True)
        if not tryLock(fd, fcntl.LOCK_EX):
            os.close(fd)
            return None
        if isAt(directory, name, fd):
            return fd
        os.close(fd)
    raise BadFile("it is removed as often as it is made")


class FrozenRecord:
    """The record of one freezer, held by the service that uses it."""

    def __init__(self, spec: str, directory: str | None = None) -> None:
        """
        @raise FreezerError: the directory cannot be used, or another living service has the same
            freezer.
        """
        if "\n" in spec:
            raise FreezerError(f"{spec!r}: a freezer with a line break cannot be written down")
        self._spec = spec
        self._place = directory or runtimeDirectory()
        self._name = f"{hashlib.sha256(os.fsencode(spec)).hexdigest()[:16]}.frozen"
        self._content = os.fsencode(spec) + b"\n"
        self._fd = self._open()

    def _open(self) -> int:
        directory = openDirectory(self._place)
        try:
            fd = _lockedFile(directory, self._name)
        except (OSError, BadFile) as error:
            text = error.strerror if isinstance(error, OSError) else error
            raise FreezerError(f"{os.path.join(self._place, self._name)}: {text}") from error
        finally:
            os.close(directory)
        if fd is None:
            raise FreezerError(f"{self._spec} is in the hands of another chanproxy that is running")
        return fd

    def write(self) -> None:
        """
        From now on it may be frozen.  If somebody has removed the file, there is a new one.

        @raise OSError: no space; do not freeze then.
        @raise FreezerError: it was removed, and cannot be made again; likewise.
        """
        if not os.fstat(self._fd).st_nlink:
            fd = self._open()
            os.close(self._fd)
            self._fd = fd
        if os.pwrite(self._fd, self._content, 0) != len(self._content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def clear(self) -> None:
        """Take down that it is thawed."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """The service lets go of it, thawed."""
        # Removed while still locked: nobody takes the file for a dead service's.
        with contextlib.suppress(OSError, FreezerError):
            directory = openDirectory(self._place, make=False)
            try:
                _remove(directory, self._name, self._fd)
            finally:
                os.close(directory)
        os.close(self._fd)


def _remove(directory: int, name: str, fd: int) -> None:
    """Only what is ours, and locked: it may be somebody else's by now."""
    if isAt(directory, name, fd):
        # Between the two only a stranger to these rules can have removed it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _records(directory: int, failed: Callable[[str, str], object]) -> Iterator[tuple[str, int]]:
    """The records that can be opened; what is none is told, and passed over."""
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".frozen"):
            continue
        try:
            fd = openFile(directory, name, make=False)
        except FileNotFoundError:
            continue
        except BadFile as error:
            failed(name, f"is no record: {error}")
            continue
        try:
            yield name, fd
        finally:
            os.close(fd)


def _specOf(fd: int) -> str:
    """
    What a record names; nothing, if that is thawed.

    @raise ValueError: it is none; the text says why.
    """
    content = os.pread(fd, _LONGEST + 1, 0)
    if len(content) > _LONGEST:
        raise ValueError("it is too long")
    spec = os.fsdecode(content).removesuffix("\n")
    if "\n" in spec or "\0" in spec:
        raise ValueError("it is not a single line")
    return spec


def _passedOver(place: str, name: str, why: str) -> str:
    # A name that somebody else gave is not to break the line.
    return f"{os.path.join(place, name if name.isprintable() else brief(name))}: {why}"


def thawRecorded(
    thawNow: Callable[[str], None], everything: bool, directory: str | None = None
) -> tuple[list[str], list[str]]:
    """
    Thaw what a dead service left frozen.

    @param thawNow: thaws by specification, or raises L{FreezerError} or L{ValueError}.
    @param everything: also what living services have frozen; they find out by themselves.
    @return: what was thawed, and what could not be (sentences); records of the latter stay.
    """
    place = directory or runtimeDirectory()
    thawed: list[str] = []
    failed: list[str] = []
    try:
        opened = openDirectory(place, make=False)
    except FileNotFoundError:
        return [], []
    except FreezerError as error:
        return [], [f"the records: {error}"]

    def passOver(name: str, why: str) -> None:
        failed.append(_passedOver(place, name, why))

    try:
        for name, fd in _records(opened, passOver):
            dead = tryLock(fd, fcntl.LOCK_EX)
            if not (dead or everything) or not isAt(opened, name, fd):
                continue
            try:
                spec = _specOf(fd)
            except (OSError, ValueError) as error:
                passOver(name, f"is no record: {error}; remove it")
                continue
            try:
                if spec:
                    thawNow(spec)
                    thawed.append(spec)
            except Exception as error:
                # Also what a plugin did not foresee: the others are thawed all the same.
                foreseen = isinstance(error, (FreezerError, ValueError))
                text = str(error) if foreseen else f"its freezer failed: {error!r}"
                failed.append(f"{spec}: {text} (recorded in {os.path.join(place, name)})")
                continue
            if dead:
                _remove(opened, name, fd)
    finally:
        os.close(opened)
    return thawed, failed


def leftRecorded(directory: str | None = None) -> tuple[list[str], list[str]]:
    """
    What a dead service has written down as frozen; it may have been thawed since.

    Changes nothing, and takes no lock, which would be in the way of a service that starts: who
    holds one is what the kernel tells, as far as it can be seen from here.

    @return: specifications, and what is no record (sentences).
    @raise FreezerError: the directory cannot be used.
    """
    place = directory or runtimeDirectory()
    found: list[str] = []
    strange: list[str] = []
    try:
        opened = openDirectory(place, make=False)
    except FileNotFoundError:
        return [], []

    def passOver(name: str, why: str) -> None:
        strange.append(_passedOver(place, name, why))

    try:
        for name, fd in _records(opened, passOver):
            if holdersOf(os.fstat(fd), ("WRITE",)):
                continue
            try:
                spec = _specOf(fd)
            except (OSError, ValueError) as error:
                passOver(name, f"is no record: {error}; remove it")
                continue
            if spec:
                found.append(spec)
    finally:
        os.close(opened)
    return found, strange


def leftMarked(enough: Callable[[], bool]) -> Iterator[str]:
    """
    What is frozen with our mark, and in nobody's hands, as far as that can be seen from here.

    Changes nothing.  May take some time where there are many cgroups.

    @param enough: asked before each of them: whether to look no further.
    @return: directories.
    """
    return markedCgroups(enough=enough, spared=inHands)


def thawMarked(
    thawNow: Callable[[str], None], everything: bool, below: str = ""
) -> tuple[list[str], list[str]]:
    """
    Thaw what a dead service left frozen and no record names: look at each cgroup there is.

    May take some time where there are many.

    @param thawNow: thaws by specification, or raises L{FreezerError}.
    @param everything: also what living services have frozen; they find out by themselves.
    @param below: a cgroup: it, and those inside it only.
    @return: what was thawed, and what could not be (sentences).
    @raise FreezerError: that can be no cgroup.
    """
    thawed: list[str] = []
    failed: list[str] = []
    spared = (lambda directory: False) if everything else inHands
    for directory in markedCgroups(below, spared=spared):
        spec = f"cgroup:{directory}"
        try:
            thawNow(spec)
            thawed.append(spec)
        except FreezerError as error:
            failed.append(f"{spec}: {error}")
    return thawed, failed
