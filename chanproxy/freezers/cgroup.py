"""
CgroupFreezer: stops and starts everything in a cgroup v2, through C{cgroup.freeze}.

Its own freezes are marked, L{chanproxy.freezers.marks}, and it has the cgroup for itself,
L{chanproxy.freezers.claims}.

All waiting is by event: inotify until the cgroup exists, L{chanproxy.freezers.readiness}, and
EPOLLPRI on C{cgroup.events} after that, L{chanproxy.freezers.following}.
Knows nothing of counters and of the container's life cycle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFDSet
from zope.interface import implementer

from chanproxy.freezers.claims import Claiming
from chanproxy.freezers.contents import Contents
from chanproxy.freezers.files import GONE, Breadth, Events, Kept, explained, noRight
from chanproxy.freezers.following import Following
from chanproxy.freezers.marks import isPaused, mark, marked, unmark
from chanproxy.freezers.mounts import (
    CgroupMount,
    cannotFreeze,
    cgroupMounts,
    findCgroup,
    frozenAbove,
    refuseOurselves,
)
from chanproxy.freezers.readiness import Readiness
from chanproxy.interfaces import (
    FreezerError,
    FreezerNotReady,
    IExclusiveFreezer,
    ISlicedFreezer,
    IThawedByDescriptor,
)


@implementer(IExclusiveFreezer, ISlicedFreezer, IThawedByDescriptor)
class CgroupFreezer:
    """
    Freezes one cgroup v2 and everything below it.

    @ivar spec: C{cgroup:} and the path as it was given.
    """

    def __init__(self, path: str, reactor: IReactorFDSet, breadth: Breadth | None = None) -> None:
        """@param breadth: how much is looked through to find its processes."""
        self.spec = f"cgroup:{path}"
        self._path = path
        self._reactor = reactor
        self._place: tuple[str, CgroupMount] | None = None
        self._following = Following(self.spec, reactor)
        self._claiming = Claiming(self.spec, self._find)
        self._told: Callable[[int | None], None] | None = None
        self._contents = Contents(self.spec, lambda: self._find()[0], breadth or Breadth())

    def tellFreezes(self, told: Callable[[int | None], None] | None) -> None:
        """See L{IThawedByDescriptor.tellFreezes}."""
        self._told = told

    def thawedFor(self, why: str) -> None:
        """See L{IThawedByDescriptor.thawedFor}."""
        self._following.undo(why)

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
            raise cannotFreeze(self.spec, directory, mount)
        refuseOurselves(self.spec, *self._find())
        if os.path.exists(freeze) and not os.access(freeze, os.W_OK, effective_ids=True):
            raise noRight(self.spec, freeze)

    def place(self) -> str:
        """See L{IExclusiveFreezer.place}: its path in the one tree of all cgroups v2."""
        directory, mount = self._find()
        return mount.root.rstrip("/") + directory[len(mount.point.rstrip("/")) :] or "/"

    def claim(self) -> None:
        """See L{IExclusiveFreezer.claim}."""
        try:
            self._claiming.claim()
        except OSError as error:
            raise explained(self.spec, self._file("cgroup.freeze"), error) from error

    def release(self) -> None:
        """See L{IExclusiveFreezer.release}."""
        self._claiming.release()
        self._following.forgetWrites()

    def thawLeft(self) -> bool:
        """See L{IExclusiveFreezer.thawLeft}."""
        claim = self._claiming.current
        if claim is None or self._following.kept is not None:
            return False
        try:
            freeze = os.open("cgroup.freeze", os.O_RDWR, dir_fd=claim.directory)
            try:
                ours = marked(freeze)
                if os.pread(freeze, 16, 0).strip() != b"1":
                    unmark(freeze)
                    return False
                if ours is False:
                    return False
                os.pwrite(freeze, b"0", 0)
                unmark(freeze)
            finally:
                os.close(freeze)
        except OSError as error:
            if error.errno in GONE:
                return False
            raise explained(self.spec, self._file("cgroup.freeze"), error) from error
        above = self._frozenAbove()
        if above is not None:
            raise above
        return True

    def paused(self) -> bool:
        """See L{IExclusiveFreezer.paused}."""
        return self._following.kept is None and isPaused(self._find()[0])

    def whenReady(self) -> Deferred[None]:
        """See L{IFreezer.whenReady}."""
        try:
            return Readiness(self.spec, *self._find(), self._reactor).wait()
        except FreezerError:
            return fail()

    def freeze(self) -> Deferred[None]:
        """See L{IFreezer.freeze}."""
        if self._following.pending:
            return fail(FreezerError(f"{self.spec}: a freeze is pending already"))
        # Not the claim: what we have frozen ourselves was not left by a predecessor.
        self._following.drop()
        try:
            refuseOurselves(self.spec, *self._find())
            self._following.kept = kept = self._open()
            if not Events.read(kept.events).populated:
                raise FreezerNotReady(f"{self.spec}: no process is in it")
            if kept.wanted() and marked(kept.freeze) is False:
                raise FreezerNotReady(f"{self.spec}: paused by somebody else")
            mark(kept.freeze)
            if self._told is not None:
                self._told(kept.freeze)
            # Where it is frozen already: this is ourselves.
            self._following.ignoreWrites()
            os.pwrite(kept.freeze, b"1", 0)
            self._following.watchWrites()
            return self._following.whenFrozen()
        except FreezerError:
            self._forget()
            return fail()
        except OSError as error:
            # Frozen or not: the caller thaws after a failure, and the path is enough for that.
            self._forget()
            return fail(explained(self.spec, self._file("cgroup.freeze"), error))

    def _open(self) -> Kept:
        before = self._claiming.current
        claim = self._claiming.now()
        if claim is not before:
            # One that came later, or again.
            self.thawLeft()
        # os.open() sets O_CLOEXEC.  Reading cgroup.freeze tells a thaw from a passing `frozen 0`.
        freeze = os.open("cgroup.freeze", os.O_RDWR, dir_fd=claim.directory)
        try:
            events = os.open("cgroup.events", os.O_RDONLY, dir_fd=claim.directory)
            return Kept(freeze, events)
        except OSError:
            os.close(freeze)
            raise

    def thaw(self) -> Deferred[None]:
        """See L{IFreezer.thaw}."""
        kept = self._following.kept
        done = self._thawByPath() if kept is None else self._thawKept(kept)
        self._claiming.forget()
        self._following.thawed(self._claiming.stays)
        return done

    def _thawKept(self, kept: Kept) -> Deferred[None]:
        try:
            ours = self._following.thawOurs()
        except OSError:
            return self._thawByPath()
        self._tellThawed()
        if not ours:
            return succeed(None)
        unmark(kept.freeze)
        above = self._frozenAbove()
        return succeed(None) if above is None else fail(above)

    def _tellThawed(self) -> None:
        if self._told is not None:
            self._told(None)

    def _thawByPath(self) -> Deferred[None]:
        try:
            if self._claiming.current is not None or not self._claiming.byOthers():
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
                # Without our mark it is not frozen, or by somebody else.
                if marked(path) is not False:
                    os.pwrite(freeze, b"0", 0)
                    unmark(freeze)
            finally:
                os.close(freeze)
        except OSError as error:
            if error.errno not in GONE:
                raise explained(self.spec, path, error) from error
            self._tellThawed()
            return
        self._tellThawed()
        above = self._frozenAbove()
        if above is not None:
            raise above

    def _frozenAbove(self) -> FreezerError | None:
        """Our own thaw is done with the write; only a frozen ancestor can still hold the tasks."""
        freeze = frozenAbove(*self._find())
        if freeze is None:
            return None
        return FreezerError(
            f"{self.spec}: still frozen, because a cgroup above it is;"
            f" thaw that with 'echo 0 > {freeze}'"
        )

    def whenDisturbed(self) -> Deferred[str]:
        """See L{IFreezer.whenDisturbed}.  Fails with L{FreezerNotReady} if nothing is frozen."""
        try:
            return self._following.whenDisturbed()
        except OSError as error:
            return fail(explained(self.spec, self._file("cgroup.events"), error))

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        """See L{IFreezer.watchStirs}."""
        self._following.watchStirs(stirred)

    def _forget(self) -> None:
        """Give back the descriptors, and what was claimed for this freeze alone."""
        self._following.drop()
        self._claiming.forget()

    def unfrozenTasks(self) -> list[str]:
        """See L{IFreezer.unfrozenTasks}.  Best effort: it needs the right to trace the tasks."""
        if self._following.givenUp():
            return []
        return self._contents.unfrozen()

    def processes(self) -> list[int]:
        """
        See L{IFreezer.processes}.

        @raise FreezerError: the cgroup is there, but cannot be read; or has too much inside.
        """
        return self._contents.processes()

    def listing(self) -> Generator[None, None, list[int]]:
        """See L{ISlicedFreezer.listing}; raises as L{processes} does."""
        return self._contents.listing()

    def hiddenProcesses(self) -> int:
        """See L{IFreezer.hiddenProcesses}."""
        return self._contents.hiddenProcesses()

    def cpuTime(self) -> int:
        """See L{IFreezer.cpuTime}."""
        return self._contents.cpuTime()
