"""
Where the history lies, and that nobody else can put another file there.

Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import stat

from chanproxy.kernel.rundirectory import BadFile, openFile

NAME = "history.sqlite"

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Unusable(Exception):
    """The history cannot be read or written; the text names the file, and says what to do."""


def stateDirectory() -> str:
    """
    Where a service keeps what outlives it: C{$CHANPROXY_STATE_DIRECTORY}, else the first of
    systemd's C{$STATE_DIRECTORY}, else C{/var/lib/chanproxy} for root, else C{chanproxy} in
    C{$XDG_STATE_HOME}, which is C{~/.local/state} without that.
    """
    given = os.environ.get("CHANPROXY_STATE_DIRECTORY")
    if given:
        return given
    systemds = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if systemds:
        return systemds
    if os.geteuid() == 0:
        return "/var/lib/chanproxy"
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "chanproxy")


def historyFile() -> str:
    """The history, unless it is said to be elsewhere."""
    return os.path.join(stateDirectory(), NAME)


def openSafely(path: str) -> int:
    """
    Open the file, or make it, for our own user alone; and the directory, if there is none.

    @return: a descriptor, to read and write; the caller's.
    @raise Unusable: it is no plain file of ours, or somebody else could replace it.
    """
    directory, name = os.path.split(path)
    try:
        # What else is there, the next call names.
        with contextlib.suppress(FileExistsError):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        # A link of root's own is fine: systemd makes one for a service with DynamicUser=yes.
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unusable(
            f"{directory}: cannot be used: {error.strerror}; give history.path another directory, "
            'or "off"'
        ) from error
    try:
        found = os.fstat(fd)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & _WRITABLE_BY_OTHERS:
            raise Unusable(
                f"{directory}: others can write to it; take that away with 'chmod go-w "
                f"{directory}', or give history.path another directory"
            )
        return openFile(fd, name, make=True)
    except (BadFile, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Unusable(f"{path}: {why}") from error
    finally:
        os.close(fd)
