"""
Readiness: one wait until a cgroup exists, has a process, and is not paused by somebody else, by
inotify and EPOLLPRI.

Changes nothing in the cgroup, and knows nothing of freezing.
"""

from __future__ import annotations

import os
import select
from typing import Any

from twisted.internet import inotify
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet
from twisted.python._inotify import INotifyError
from twisted.python.filepath import FilePath

from chanproxy.freezers.files import GONE, Events, explained
from chanproxy.freezers.marks import isPaused
from chanproxy.freezers.mounts import CgroupMount, cannotFreeze
from chanproxy.interfaces import FreezerError
from chanproxy.kernel.poller import Poller

# Twisted's inotify module has no annotations.
_INotify: Any = inotify.INotify


class Readiness:
    """One wait until a cgroup exists, has a process, and is not paused by somebody else."""

    def __init__(
        self, spec: str, directory: str, mount: CgroupMount, reactor: IReactorFDSet
    ) -> None:
        self._spec = spec
        self._directory = directory
        self._mount = mount
        self._reactor = reactor
        self._poller = Poller(reactor)
        self._inotify: Any = None
        self._events = -1
        self._done: Deferred[None] = Deferred(lambda _: self._stop())

    def wait(self) -> Deferred[None]:
        self._look()
        return self._done

    def _look(self) -> None:
        """Look again from the start: simple, and right after any event."""
        self._stop()
        try:
            ready = self._evaluate()
        except FreezerError:
            self._stop()
            self._done.errback()
        else:
            if ready:
                self._stop()
                self._done.callback(None)

    def _evaluate(self) -> bool:
        """Whether it is ready; if not, something is watched now."""
        path = os.path.join(self._directory, "cgroup.events")
        while True:
            paused = False
            try:
                self._events = os.open(path, os.O_RDONLY)
                paused = isPaused(self._directory)
                if Events.read(self._events).populated and not paused:
                    return True
            except OSError as error:
                if error.errno not in GONE:
                    raise explained(self._spec, path, error) from error
            if self._watchAncestors(paused):
                if self._events >= 0:
                    # After inotify: polling reports a file that was removed before, not later.
                    self._poller.watch(self._events, select.EPOLLPRI, self._changed)
                return False
            self._stop()

    def _watchAncestors(self, paused: bool) -> bool:
        """
        Watch every directory on the way that exists, and while it is paused what ends that.

        @return: false, if it has changed by now.
        """
        exists = self._events >= 0
        atMount = self._directory == self._mount.point
        if not exists and (atMount or os.path.isfile(self._directory)):
            raise cannotFreeze(self._spec, self._directory, self._mount)
        # All of them, because a cgroup says nothing to its own watcher when it is removed (tried:
        # neither IN_DELETE_SELF nor IN_IGNORED, nor EPOLLPRI); only its parent tells.
        existing = self._existing()
        try:
            self._inotify = watcher = _INotify(self._reactor)

            def changed(*_: object) -> None:
                # Events of a watcher that an earlier event has closed are still handed out.
                if self._inotify is watcher:
                    self._look()

            mask = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_TO
            for directory in existing:
                watcher.watch(FilePath(directory), mask | inotify.IN_ONLYDIR, callbacks=[changed])
            if paused:
                # cgroup.events says nothing of a pause that ends before all of it was stopped.
                freeze = os.path.join(self._directory, "cgroup.freeze")
                watcher.watch(FilePath(freeze), inotify.IN_MODIFY, callbacks=[changed])
        except INotifyError as error:
            if self._existing() == existing and os.path.exists(self._directory) == exists:
                raise FreezerError(
                    f"{self._spec}: cannot watch {self._directory} ({error}); raise the limits"
                    " fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                ) from error
            return False
        if self._existing() != existing or os.path.exists(self._directory) != exists:
            return False
        if paused and not isPaused(self._directory):
            return False
        watcher.startReading()
        return True

    def _existing(self) -> list[str]:
        """The directories that exist between the container, exclusive, and the mount, inclusive."""
        found = []
        directory = self._directory
        while directory != self._mount.point:
            directory = os.path.dirname(directory)
            if os.path.isdir(directory):
                found.append(directory)
        return found

    def _changed(self, _: int) -> None:
        self._look()

    def _stop(self) -> None:
        if self._events >= 0:
            self._poller.unwatch(self._events)
            os.close(self._events)
            self._events = -1
        watcher, self._inotify = self._inotify, None
        if watcher is not None:
            # Closes now; loseConnection() would leave a delayed call.
            watcher.connectionLost(None)
