"""
The runtime directory: where it is, that nobody else can write to it, and its files by descriptor.

Knows nothing of what the files say.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chanproxy.interfaces import FreezerError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_OPEN_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Never waits, as a FIFO or a device would have it, and never follows a symbolic link."""


class BadFile(Exception):
    """Something in the runtime directory is no file of ours; the text says what, and what to do."""


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


def openDirectory(directory: str, make: bool = True) -> int:
    """
    Open a runtime directory that only root and our own user can write to.

    @param make: make it, unless it is there.
    @return: a descriptor; the caller's.
    @raise FileNotFoundError: it is not there, and is not to be made.
    @raise FreezerError: it cannot be used; the text says what to do.
    """
    try:
        if make:
            # To be passed through, on the way to the control socket, and not to be looked into.
            os.makedirs(directory, mode=0o711, exist_ok=True)
        # A link of root's own is fine: systemd makes one for a service with DynamicUser=yes.
        _refuseStrangers(directory, os.lstat(directory))
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not make:
            raise
        doing = "made" if make and not os.path.lexists(directory) else "used"
        raise _unusable(
            f"the runtime directory {directory} cannot be {doing}: {error.strerror}; "
            "set CHANPROXY_RUNTIME_DIRECTORY to a directory that you can write"
        ) from error
    try:
        _refuseStrangers(directory, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unusable(why: str) -> FreezerError:
    # Only then: C{chanproxy call} asks where the directory is, and would load half of Twisted.
    from chanproxy.interfaces import FreezerError

    return FreezerError(why)


def _refuseStrangers(directory: str, found: os.stat_result) -> None:
    """In a shared C{/tmp} anybody could have made it first, and would tell us what to thaw."""
    if found.st_uid not in (0, os.geteuid()):
        raise _unusable(
            f"the runtime directory {directory} belongs to user {found.st_uid}; remove it"
        )
    if stat.S_ISDIR(found.st_mode) and found.st_mode & _WRITABLE_BY_OTHERS:
        raise _unusable(
            f"others can write to the runtime directory {directory} (mode "
            f"{stat.S_IMODE(found.st_mode):o}); take that away with 'chmod go-w {directory}', or "
            "set CHANPROXY_RUNTIME_DIRECTORY to another one"
        )


def openFile(directory: int, name: str, make: bool) -> int:
    """
    Open a plain file that only root and our own user can write to.

    @param directory: of L{openDirectory}.
    @param make: make it, unless it is there.
    @return: a descriptor, to read and write; the caller's.
    @raise FileNotFoundError: it is not there.
    @raise BadFile: something else is there, or it cannot be opened.
    """
    try:
        fd = os.open(name, _OPEN_FILE | (os.O_CREAT if make else 0), 0o600, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadFile("it is a symbolic link; remove it") from error
        raise BadFile(f"{error.strerror}; remove it if it is not chanproxy's") from error
    found = os.fstat(fd)
    wrong = ""
    if not stat.S_ISREG(found.st_mode):
        wrong = "it is no regular file"
    elif found.st_uid not in (0, os.geteuid()):
        wrong = f"it belongs to user {found.st_uid}"
    elif found.st_mode & _WRITABLE_BY_OTHERS:
        wrong = "others can write to it"
    elif found.st_nlink > 1:
        wrong = "it has another name, too"
    if wrong:
        os.close(fd)
        raise BadFile(f"{wrong}; remove it")
    return fd


def isAt(directory: int, name: str, fd: int) -> bool:
    """Whether an open file is still what the name stands for."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))
