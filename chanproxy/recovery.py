"""
What is frozen is written down, so that whoever comes after a crash can thaw it.

One small file per freezer in the runtime directory, locked while its service lives: a lock that can
be had means that the owner is dead.  Knows freezers by their specification only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator

from twisted.logger import Logger

from chanproxy.interfaces import FreezerError

_log = Logger()


def runtimeDirectory() -> str:
    """
    Where records lie: C{$CHANPROXY_RUNTIME_DIRECTORY}, else C{/run/chanproxy} for root, else
    C{chanproxy} in C{$XDG_RUNTIME_DIR}, else one of our own in C{/tmp}.

    Not in the configuration on purpose: a start with another configuration has to find them.
    """
    given = os.environ.get("CHANPROXY_RUNTIME_DIRECTORY")
    if given:
        return given
    if os.geteuid() == 0:
        return "/run/chanproxy"
    session = os.environ.get("XDG_RUNTIME_DIR")
    return f"{session}/chanproxy" if session else f"/tmp/chanproxy-{os.geteuid()}"


def prepareDirectory(directory: str) -> str:
    """
    Make a runtime directory, unless it is there.

    @raise FreezerError: it cannot be used; the text says what to do.
    """
    try:
        # To be passed through, on the way to the control socket, and not to be looked into.
        os.makedirs(directory, mode=0o711, exist_ok=True)
        owner = os.stat(directory).st_uid
    except OSError as error:
        raise FreezerError(
            f"the runtime directory {directory} cannot be made: {error.strerror}; "
            "set CHANPROXY_RUNTIME_DIRECTORY to a directory that you can write"
        ) from error
    if owner not in (0, os.geteuid()):
        # In a shared /tmp anybody could have made it first, and would tell us what to thaw.
        raise FreezerError(f"the runtime directory {directory} belongs to user {owner}; remove it")
    return directory


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class FrozenRecord:
    """The record of one freezer, held by the service that uses it."""

    def __init__(self, spec: str, directory: str | None = None) -> None:
        """
        @raise FreezerError: the directory cannot be used, or another living service has the same
            freezer.
        """
        place = prepareDirectory(directory or runtimeDirectory())
        name = hashlib.sha256(spec.encode()).hexdigest()[:16]
        self._path = os.path.join(place, f"{name}.frozen")
        self._content = os.fsencode(spec) + b"\n"
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FreezerError(f"{self._path}: {error.strerror}") from error
        if not _lock(self._fd):
            os.close(self._fd)
            raise FreezerError(f"{spec} is in the hands of another chanproxy that is running")

    def write(self) -> None:
        """From now on it may be frozen.  @raise OSError: no space; do not freeze then."""
        os.pwrite(self._fd, self._content, 0)

    def clear(self) -> None:
        """It is thawed."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """The service lets go of it, thawed."""
        # Removed while still locked: nobody takes the file for a dead service's.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        os.close(self._fd)


def _records(directory: str) -> Iterator[tuple[str, int, str]]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        if not name.endswith(".frozen"):
            continue
        path = os.path.join(directory, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            yield path, fd, os.fsdecode(os.pread(fd, 65536, 0)).strip()
        finally:
            os.close(fd)


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
    if not os.path.isdir(place):
        return [], []
    thawed, failed = [], []
    for path, fd, spec in _records(prepareDirectory(place)):
        dead = _lock(fd)
        if not dead and not everything:
            continue
        try:
            if spec:
                thawNow(spec)
                thawed.append(spec)
        except (FreezerError, ValueError) as error:
            failed.append(f"{spec}: {error} (recorded in {path})")
            continue
        if dead:
            os.unlink(path)
    return thawed, failed
