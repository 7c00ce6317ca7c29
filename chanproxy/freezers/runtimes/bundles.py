"""
Containers of runc and crun, by their ids, as those write them down in their state directories.

Each has a directory under its id, with a file that names its first process, which is known only to
the runtime: C{state.json} in C{libcontainer}, C{status} in C{libcrun}.
"""

from __future__ import annotations

import json
import os
from typing import Any

from attrs import frozen
from twisted.internet import inotify
from twisted.python._inotify import INotifyError
from twisted.python.filepath import FilePath
from zope.interface import implementer

from chanproxy.freezers.runtimes.places import byProcess, expectAlone
from chanproxy.freezers.runtimes.telling import Telling
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.interfaces.locators import IFollower, ILocator, Location

# Twisted's inotify module has no annotations.
_INotify: Any = inotify.INotify

_CHANGES = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_TO | inotify.IN_CLOSE_WRITE


@frozen
class Kind:
    """
    How a runtime writes down what it knows.

    @ivar directory: below the directory of what runs.
    @ivar file: in that of a container.
    @ivar process: the key of its first process's id there.
    """

    name: str
    directory: str
    file: str
    process: str


RUNC = Kind("runc", "runc", "state.json", "init_process_pid")
CRUN = Kind("crun", "crun", "status", "pid")


def rootOf(kind: Kind) -> str:
    """Where a runtime writes, unless it is told otherwise: as root, or as this user."""
    if os.geteuid():
        run = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    else:
        run = "/run"
    return os.path.join(run, kind.directory)


@implementer(ILocator)
class BundleLocator:
    """One container, by its id, or by the path of its state directory."""

    mayWait = True

    def __init__(self, kind: Kind, name: str, reactor: ChanproxyReactor) -> None:
        """@param name: an id; with a slash, the directory of its state: C{ROOT/ID}."""
        self.spec = f"{kind.name}:{name}"
        self._kind = kind
        self._directory = os.path.normpath(os.path.join(rootOf(kind), name))
        self._reactor = reactor
        self._telling = Telling()
        self._inotify: Any = None

    def check(self) -> None:
        """See L{ILocator.check}."""

    def follow(self, follower: IFollower) -> None:
        """See L{ILocator.follow}."""
        self._telling.begin(follower)
        self._look()

    def leave(self) -> None:
        """See L{ILocator.leave}."""
        self._telling.end()
        self._unwatch()

    def locate(self) -> Location:
        """See L{ILocator.locate}."""
        path = os.path.join(self._directory, self._kind.file)
        try:
            with open(path, "rb") as file:
                written = json.loads(file.read())
            pid = int(written[self._kind.process])
        except FileNotFoundError:
            return Location(why=f"there is no container in {self._directory}")
        except NotADirectoryError as error:
            return Location(why=str(error))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FreezerError(f"{self.spec}: {path} cannot be read: {error}") from error
        cgroup = byProcess(pid)
        if not cgroup:
            return Location(why="is not running")
        expectAlone(cgroup, "give it a cgroupsPath of its own")
        return Location(cgroup, "")

    def _look(self) -> None:
        """Watch first, then look: so nothing comes in between unseen."""
        self._unwatch()
        try:
            self._watch()
            location = self.locate()
        except FreezerError as error:
            location = Location(why=str(error).removeprefix(f"{self.spec}: "))
        self._telling.say(location)

    def _watch(self) -> None:
        """Its directory and the next one above that is there."""
        directory = os.path.dirname(self._directory)
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
        self._inotify = watcher = _INotify(self._reactor)

        def changed(*_: object) -> None:
            # Events of a watcher that an earlier event has closed are still handed out.
            if self._inotify is watcher:
                self._look()

        try:
            for each in (directory, self._directory):
                if os.path.isdir(each):
                    mask = _CHANGES | inotify.IN_ONLYDIR
                    watcher.watch(FilePath(each), mask, callbacks=[changed])
        except INotifyError as error:
            raise FreezerError(
                f"cannot watch {directory} ({error}); raise the limits "
                "fs.inotify.max_user_instances and fs.inotify.max_user_watches"
            ) from error
        watcher.startReading()

    def _unwatch(self) -> None:
        watcher, self._inotify = self._inotify, None
        if watcher is not None:
            # Closes now; loseConnection() would leave a delayed call.
            watcher.connectionLost(None)
