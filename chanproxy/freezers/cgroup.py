"""
CgroupFreezer: stops and starts everything in a cgroup v2, through C{cgroup.freeze}.

All waiting is by event: inotify until the cgroup exists, EPOLLPRI on C{cgroup.events} after that.
Knows nothing of counters and of the container's life cycle.
"""

from __future__ import annotations

import errno
import os
import re
import select
from typing import Any

from attrs import frozen
from twisted.internet import inotify
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFDSet
from twisted.python._inotify import INotifyError
from twisted.python.filepath import FilePath
from zope.interface import implementer

from chanproxy._poller import Poller
from chanproxy.interfaces import FreezeInterrupted, FreezerError, FreezerNotReady, IFreezer

# Twisted's inotify module has no annotations.
_INotify: Any = inotify.INotify

_GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)

# Where the kernel parks tasks that it counts as frozen (kernel/signal.c; which of the names shows
# depends on what the compiler inlined).
_STOPPED_IN = frozenset(
    ["get_signal", "do_freezer_trap", "do_signal_stop", "do_jobctl_trap", "ptrace_stop"]
)


@frozen
class CgroupMount:
    """
    One line of mountinfo.

    @ivar root: which cgroup is mounted, as seen from our cgroup namespace.
    @ivar point: where.
    @ivar kind: C{cgroup2} or C{cgroup}.
    """

    root: str
    point: str
    kind: str


def cgroupMounts(mountinfo: str | None = None) -> list[CgroupMount]:
    """The cgroup filesystems, both versions, in C{/proc/self/mountinfo} or the given text."""
    if mountinfo is None:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            mountinfo = file.read()
    mounts = []
    for line in mountinfo.splitlines():
        # proc(5): six fixed fields, optional ones, a lone hyphen, then the filesystem type.
        fixed, hyphen, rest = line.partition(" - ")
        fields = fixed.split(" ")
        kind = rest.split(" ")[0]
        if hyphen and len(fields) >= 6 and kind in ("cgroup", "cgroup2"):
            mounts.append(CgroupMount(_unescape(fields[3]), _unescape(fields[4]), kind))
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _isBelow(path: str, top: str) -> bool:
    """Whether C{path} is C{top} or below it; both normalised."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def findCgroup(path: str, mounts: list[CgroupMount]) -> tuple[str, CgroupMount]:
    """
    Where a configured path is.

    @param path: absolute below any cgroup v2 mount, or relative to the first one.
    @return: the directory, which need not exist, and the mount that it is below.
    @raise FreezerError: it is not below a cgroup v2 mount; the text says what to write instead.
    """
    unified = [mount for mount in mounts if mount.kind == "cgroup2"]
    if not unified:
        raise FreezerError(
            f"cgroup:{path}: no cgroup v2 filesystem is mounted; mount one with"
            " 'mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified'"
        )
    if os.path.isabs(path):
        directory = os.path.realpath(path)
    else:
        directory = os.path.normpath(os.path.join(unified[0].point, path))
    holding = [mount for mount in unified if _isBelow(directory, mount.point)]
    if not holding:
        first = unified[0].point
        tops = [mount.point for mount in mounts if mount.kind == "cgroup"]
        tops.append(os.path.dirname(first))
        rest = directory
        for top in sorted(tops, key=len, reverse=True):
            if top != "/" and _isBelow(directory, top):
                rest = directory[len(top) :]
                break
        points = ", ".join(mount.point for mount in unified)
        raise FreezerError(
            f"cgroup:{path}: {directory} is not below a cgroup v2 mount ({points});"
            f" write cgroup:{os.path.join(first, rest.lstrip('/'))}"
        )
    return directory, max(holding, key=lambda mount: len(mount.point))


def holdsUs(directory: str, mount: CgroupMount, ownCgroups: str | None = None) -> bool:
    """
    Whether this process is in the cgroup C{directory}, or below it.

    @param ownCgroups: the text of C{/proc/self/cgroup}, which is read if it is not given.
    """
    if ownCgroups is None:
        with open("/proc/self/cgroup", errors="surrogateescape") as file:
            ownCgroups = file.read()
    own = next((line[3:] for line in ownCgroups.splitlines() if line.startswith("0::")), None)
    if own is None:
        return False
    if mount.root.startswith("/..") or own.startswith("/.."):
        # One of them is outside our cgroup namespace, so the names cannot be compared.
        return any(
            str(os.getpid()) in _readLines(os.path.join(below, "cgroup.procs"))
            for below, _, _ in os.walk(directory)
        )
    if not _isBelow(own, mount.root):
        return False
    inside = own[len(mount.root.rstrip("/")) :].lstrip("/")
    return _isBelow(os.path.normpath(os.path.join(mount.point, inside)), directory)


def _readLines(path: str) -> list[str]:
    """The lines of a file in C{/proc} or a cgroup; none, if it cannot be read."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


@frozen
class _Events:
    """What C{cgroup.events} says.  A cgroup that was removed is neither."""

    populated: bool
    frozen: bool

    @classmethod
    def read(cls, fd: int) -> _Events:
        try:
            lines = os.pread(fd, 4096, 0).splitlines()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            lines = []
        return cls(b"populated 1" in lines, b"frozen 1" in lines)


@frozen
class _Kept:
    """The descriptors that a freeze keeps open for its thaw; owner: the freezer."""

    freeze: int
    events: int

    def close(self) -> None:
        os.close(self.freeze)
        os.close(self.events)


@implementer(IFreezer)
class CgroupFreezer:
    """
    Freezes one cgroup v2 and everything below it.

    @ivar spec: C{cgroup:} and the path as it was given.
    """

    def __init__(self, path: str, reactor: IReactorFDSet) -> None:
        self.spec = f"cgroup:{path}"
        self._path = path
        self._reactor = reactor
        self._poller = Poller(reactor)
        self._place: tuple[str, CgroupMount] | None = None
        self._kept: _Kept | None = None
        self._pending: Deferred[None] | None = None
        self._disturbed: list[Deferred[str]] = []

    def _find(self) -> tuple[str, CgroupMount]:
        if self._place is None:
            self._place = findCgroup(self._path, cgroupMounts())
        return self._place

    def _file(self, name: str) -> str:
        return os.path.join(self._find()[0], name)

    def check(self) -> None:
        """See L{IFreezer.check}."""
        directory, mount = self._find()
        freeze = self._file("cgroup.freeze")
        if os.path.exists(directory) and not os.path.exists(freeze):
            raise _cannotFreeze(self.spec, directory, mount)
        self._refuseOurselves()
        if os.path.exists(freeze) and not os.access(freeze, os.W_OK, effective_ids=True):
            raise _noRight(self.spec, freeze)

    def _refuseOurselves(self) -> None:
        directory, mount = self._find()
        if holdsUs(directory, mount):
            raise FreezerError(
                f"{self.spec}: chanproxy itself runs in {directory} or below it, and would freeze"
                " itself; run chanproxy elsewhere, or name a cgroup of the container alone"
            )

    def whenReady(self) -> Deferred[None]:
        """See L{IFreezer.whenReady}."""
        try:
            return _Readiness(self.spec, *self._find(), self._reactor).wait()
        except FreezerError:
            return fail()

    def freeze(self) -> Deferred[None]:
        """See L{IFreezer.freeze}."""
        if self._pending is not None:
            return fail(FreezerError(f"{self.spec}: a freeze is pending already"))
        self._forget()
        try:
            self._refuseOurselves()
            self._kept = kept = self._open()
            if not _Events.read(kept.events).populated:
                self._forget()
                raise FreezerNotReady(f"{self.spec}: no process is in it")
            os.pwrite(kept.freeze, b"1", 0)
            pending: Deferred[None] = Deferred(self._freezeCancelled)
            self._pending = pending
            self._eventsChanged()
            self._rewatch()
        except FreezerError:
            return fail()
        except OSError as error:
            # Frozen or not: the caller thaws after a failure, and the path is enough for that.
            self._pending = None
            self._forget()
            return fail(_explained(self.spec, self._file("cgroup.freeze"), error))
        return pending

    def _open(self) -> _Kept:
        # os.open() sets O_CLOEXEC.  Reading cgroup.freeze tells a thaw from a passing `frozen 0`.
        freeze = os.open(self._file("cgroup.freeze"), os.O_RDWR)
        try:
            return _Kept(freeze, os.open(self._file("cgroup.events"), os.O_RDONLY))
        except OSError:
            os.close(freeze)
            raise

    def _freezeCancelled(self, _: Deferred[None]) -> None:
        self._pending = None
        self._rewatch()

    def thaw(self) -> Deferred[None]:
        """See L{IFreezer.thaw}."""
        kept = self._kept
        done = self._thawByPath() if kept is None else self._thawKept(kept)
        pending, self._pending = self._pending, None
        disturbed, self._disturbed = self._disturbed, []
        self._forget()
        if pending is not None:
            pending.errback(FreezeInterrupted(f"{self.spec}: thawed before it was frozen"))
        for waiting in disturbed:
            waiting.cancel()
        return done

    def _thawKept(self, kept: _Kept) -> Deferred[None]:
        try:
            os.pwrite(kept.freeze, b"0", 0)
        except OSError as error:
            return succeed(None) if error.errno in _GONE else self._thawByPath()
        above = self._frozenAbove()
        return succeed(None) if above is None else fail(above)

    def _thawByPath(self) -> Deferred[None]:
        try:
            self.thawNow()
        except FreezerError:
            return fail()
        return succeed(None)

    def thawNow(self) -> None:
        """See L{IFreezer.thawNow}."""
        path = self._file("cgroup.freeze")
        try:
            freeze = os.open(path, os.O_WRONLY)
            try:
                os.pwrite(freeze, b"0", 0)
            finally:
                os.close(freeze)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise _explained(self.spec, path, error) from error
        above = self._frozenAbove()
        if above is not None:
            raise above

    def _frozenAbove(self) -> FreezerError | None:
        """Our own thaw is done with the write; only a frozen ancestor can still hold the tasks."""
        # Not by `frozen 1` of our own: the tasks clear that themselves, a moment later.
        directory, mount = self._find()
        while _isBelow(directory, mount.point) and directory != mount.point:
            directory = os.path.dirname(directory)
            if _readLines(os.path.join(directory, "cgroup.freeze")) == ["1"]:
                return FreezerError(
                    f"{self.spec}: still frozen, because a cgroup above it is;"
                    f" thaw that with 'echo 0 > {os.path.join(directory, 'cgroup.freeze')}'"
                )
        return None

    def whenDisturbed(self) -> Deferred[str]:
        """See L{IFreezer.whenDisturbed}.  Fails with L{FreezerNotReady} if nothing is frozen."""
        if self._kept is None:
            return fail(FreezerNotReady(f"{self.spec}: is not frozen"))
        waiting: Deferred[str] = Deferred(self._disturbedCancelled)
        self._disturbed.append(waiting)
        try:
            self._eventsChanged()
            self._rewatch()
        except OSError as error:
            if waiting in self._disturbed:
                self._disturbed.remove(waiting)
            return fail(_explained(self.spec, self._file("cgroup.events"), error))
        return waiting

    def _disturbedCancelled(self, waiting: Deferred[str]) -> None:
        if waiting in self._disturbed:
            self._disturbed.remove(waiting)
            self._rewatch()

    def _rewatch(self) -> None:
        """Watch C{cgroup.events} exactly while somebody waits for it."""
        if self._kept is None:
            return
        if self._pending is None and not self._disturbed:
            self._poller.unwatch(self._kept.events)
        else:
            # The kernel repeats EPOLLPRI until the change was read: none is lost in between.
            self._poller.watch(self._kept.events, select.EPOLLPRI, self._polled)

    def _polled(self, _: int) -> None:
        self._eventsChanged()
        self._rewatch()

    def _eventsChanged(self) -> None:
        """Read the state of the cgroup, and tell those who wait for it."""
        kept = self._kept
        if kept is None:
            return
        events = _Events.read(kept.events)
        pending = self._pending
        if pending is not None and (events.frozen or not events.populated):
            self._pending = None
            self._rewatch()
            if events.populated:
                pending.callback(None)
            else:
                pending.errback(FreezerNotReady(f"{self.spec}: its last process ended"))
        elif pending is None and self._disturbed:
            if not events.populated:
                self._disturb("its last process ended")
            elif not events.frozen and not self._wanted(kept):
                self._disturb("thawed by somebody else")

    def _wanted(self, kept: _Kept) -> bool:
        """
        Whether C{cgroup.freeze} is still 1.

        C{frozen} drops to 0 for a moment when one of several processes is killed or another one is
        moved in; the kernel then stops what is left, and that is no thaw.
        """
        try:
            return os.pread(kept.freeze, 16, 0).strip() == b"1"
        except OSError:
            return False

    def _disturb(self, reason: str) -> None:
        disturbed, self._disturbed = self._disturbed, []
        self._rewatch()
        for waiting in disturbed:
            waiting.callback(reason)

    def _forget(self) -> None:
        """Give back the descriptors."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._poller.unwatch(kept.events)
            kept.close()

    def unfrozenTasks(self) -> list[str]:
        """See L{IFreezer.unfrozenTasks}.  Best effort: it needs the right to trace the tasks."""
        tasks: list[str] = []
        for directory, below, _ in os.walk(self._find()[0]):
            if "frozen 1" in _readLines(os.path.join(directory, "cgroup.events")):
                below.clear()
                continue
            for thread in _readLines(os.path.join(directory, "cgroup.threads")):
                wchan = "".join(_readLines(f"/proc/{thread}/wchan"))
                # A thread of another pid namespace is listed as 0.
                if wchan not in _STOPPED_IN and thread != "0":
                    name = "".join(_readLines(f"/proc/{thread}/comm")) or "?"
                    where = "running" if wchan in ("", "0") else f"in {wchan}"
                    tasks.append(f"{name}[{thread}] {where}")
        return tasks


class _Readiness:
    """One wait until a cgroup exists and has a process."""

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
            try:
                self._events = os.open(path, os.O_RDONLY)
                if _Events.read(self._events).populated:
                    return True
            except OSError as error:
                if error.errno not in _GONE:
                    raise _explained(self._spec, path, error) from error
            if self._watchAncestors():
                if self._events >= 0:
                    # After inotify: polling reports a file that was removed before, not later.
                    self._poller.watch(self._events, select.EPOLLPRI, self._changed)
                return False
            self._stop()

    def _watchAncestors(self) -> bool:
        """Watch every directory on the way that exists; false, if that has changed by now."""
        exists = self._events >= 0
        atMount = self._directory == self._mount.point
        if not exists and (atMount or os.path.isfile(self._directory)):
            raise _cannotFreeze(self._spec, self._directory, self._mount)
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
        except INotifyError as error:
            if self._existing() == existing:
                raise FreezerError(
                    f"{self._spec}: cannot watch {self._directory} ({error}); raise the limits"
                    " fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                ) from error
            return False
        if self._existing() != existing or os.path.exists(self._directory) != exists:
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


def _cannotFreeze(spec: str, directory: str, mount: CgroupMount) -> FreezerError:
    if directory == mount.point:
        return FreezerError(
            f"{spec}: {directory} is the root cgroup, which cannot be frozen;"
            " name a cgroup below it that holds the container alone"
        )
    return FreezerError(
        f"{spec}: {directory} has no cgroup.freeze: it is not a cgroup v2 directory, or the kernel"
        " is older than 5.2"
    )


def _noRight(spec: str, path: str) -> FreezerError:
    return FreezerError(
        f"{spec}: user {os.geteuid()} may not write {path}; grant it with"
        f" 'chown {os.geteuid()} {path}', or run the container in a systemd unit with Delegate=yes"
    )


def _explained(spec: str, path: str, error: OSError) -> FreezerError:
    if error.errno in _GONE:
        return FreezerNotReady(f"{spec}: does not exist")
    if error.errno in (errno.EACCES, errno.EPERM):
        return _noRight(spec, path)
    return FreezerError(f"{spec}: {path}: {os.strerror(error.errno or 0)}")
