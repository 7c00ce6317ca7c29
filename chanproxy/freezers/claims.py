"""
Claims: a cgroup is frozen by one service only, and none inside it by another one.

A claim is a lock on the cgroup itself, whatever it is called and through whichever mount it is
seen, and a shared lock on each cgroup above it.  The kernel lets go of both when their owner dies.
Knows nothing of freezing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable

from chanproxy.freezers.files import GONE, readLines
from chanproxy.freezers.mounts import CgroupMount, isBelow
from chanproxy.interfaces import FreezerError

_WRITERS = stat.S_IWGRP | stat.S_IWOTH


class Taken(Exception):
    """
    Somebody else has the lock.

    @ivar shared: for a cgroup inside it only.
    @ivar holders: their processes, as far as they can be seen.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.shared = tryLock(fd, fcntl.LOCK_SH)
        self.holders = holdersOf(os.fstat(fd))


def _lockFile(directory: int) -> tuple[str, int]:
    """
    Which file of a cgroup is locked, and how it is opened.

    Whoever may open a file may lock it, and for good.  C{cgroup.kill} is for those only who may end
    all in it anyway; but a cgroup can be handed over with its C{cgroup.freeze} alone, and then, or
    before Linux 5.14, that is what all have in common.

    @param directory: of the cgroup, open.
    @raise OSError: it is gone, or has neither: the root cgroup, and what is no cgroup v2.
    """
    freeze = os.stat("cgroup.freeze", dir_fd=directory)
    with contextlib.suppress(FileNotFoundError):
        kill = os.stat("cgroup.kill", dir_fd=directory)
        if (kill.st_uid, kill.st_gid) == (freeze.st_uid, freeze.st_gid) and (
            kill.st_mode & _WRITERS == freeze.st_mode & _WRITERS
        ):
            return "cgroup.kill", os.O_WRONLY
    return "cgroup.freeze", os.O_RDONLY


def _openLock(directory: int) -> int:
    name, flags = _lockFile(directory)
    return os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)


def tryLock(fd: int, how: int) -> bool:
    """Whether nobody else has that lock of flock(2); if so, the descriptor has it."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(directory: int, how: int) -> int:
    """
    @return: a descriptor that holds the lock.
    @raise Taken: somebody else does.
    @raise OSError: it may not be opened, or is gone.
    """
    fd = _openLock(directory)
    if tryLock(fd, how):
        return fd
    taken = Taken(fd)
    os.close(fd)
    raise taken


def holdersOf(found: os.stat_result, kinds: tuple[str, ...] = ("READ", "WRITE")) -> list[int]:
    """
    Which processes have a lock on a file, as far as it can be seen from here; C{proc_locks(5)}.

    @param kinds: C{READ} for shared, C{WRITE} for those that are not.
    """
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = set()
    for line in readLines("/proc/locks"):
        # 1: FLOCK  ADVISORY  WRITE 25540 00:26:417771 0 EOF
        fields = line.split()
        ours = len(fields) == 8 and fields[1] == "FLOCK" and fields[5] == device
        if ours and fields[3] in kinds:
            pids.add(int(fields[4]))
    return sorted(pids)


def _lockAbove(spec: str, directory: str, mount: CgroupMount) -> list[int]:
    """
    Share the locks of the cgroups above one, as far as they are there.

    @return: descriptors that hold them.
    @raise FreezerError: one is in other hands.
    """
    locks: list[int] = []
    above = directory
    while above != mount.point and isBelow(above, mount.point):
        above = os.path.dirname(above)
        try:
            opened = _openDirectory(above)
            try:
                locks.append(_lock(opened, fcntl.LOCK_SH))
            finally:
                os.close(opened)
        except Taken as taken:
            _closeAll(locks)
            raise FreezerError(_inHands(spec, f"{above}, which it is inside,", taken)) from None
        except OSError:
            # The root cgroup, that of another user, who alone could freeze it, or none yet.
            continue
    return locks


def _closeAll(locks: list[int]) -> None:
    while locks:
        os.close(locks.pop())


class Claim:
    """
    What keeps others from freezing a cgroup; one that was removed is nobody's any more.

    @ivar directory: the cgroup's, open; its files are found from here, so that they are of the
        cgroup that is claimed, whatever is under its path by now.
    """

    def __init__(self, spec: str, directory: str, mount: CgroupMount) -> None:
        """
        @raise OSError: it is not there, or may not be opened.
        @raise FreezerError: it, or one around it or inside it, is in other hands.
        """
        self._locks: list[int] = []
        self.directory = _openDirectory(directory)
        try:
            self._take(spec, directory, mount)
        except BaseException:
            self.close()
            raise

    def _take(self, spec: str, directory: str, mount: CgroupMount) -> None:
        try:
            self._locks.append(_lock(self.directory, fcntl.LOCK_EX))
        except Taken as taken:
            what = f"a cgroup inside {directory}" if taken.shared else "it"
            raise FreezerError(_inHands(spec, what, taken)) from None
        self._locks += _lockAbove(spec, directory, mount)

    def isOf(self, directory: str) -> bool:
        """Whether that path still stands for what is claimed."""
        try:
            found = os.stat(directory)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self.directory))

    def close(self) -> None:
        """Let go of it.  Idempotent."""
        _closeAll(self._locks)
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1


def _openDirectory(directory: str) -> int:
    return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _inHands(spec: str, what: str, taken: Taken) -> str:
    pids = ", ".join(map(str, taken.holders))
    process = f" (process {pids})" if pids else ""
    return (
        f"{spec}: {what} is in the hands of another chanproxy that is running{process};"
        " each container needs a cgroup of its own, with none of another inside it"
    )


def inHands(directory: str) -> bool:
    """
    Whether a living service, as far as it can be seen from here, has claimed a cgroup.

    Takes no lock, which would be in the way of somebody who claims it.

    @raise OSError: it is gone, or has none.
    """
    opened = _openDirectory(directory)
    try:
        name, _ = _lockFile(opened)
        # Those that have claimed one inside it share it.
        return bool(holdersOf(os.stat(name, dir_fd=opened), ("WRITE",)))
    finally:
        os.close(opened)


class Claiming:
    """
    The claim of one freezer: for a freeze, or from L{claim} to L{release}.

    @ivar current: what it has now.
    @ivar stays: it is had for more than a freeze.
    """

    def __init__(self, spec: str, find: Callable[[], tuple[str, CgroupMount]]) -> None:
        """@param find: where its cgroup is; raises L{FreezerError}."""
        self._spec = spec
        self._find = find
        self.stays = False
        self._above: list[int] = []
        self.current: Claim | None = None

    def claim(self) -> None:
        """
        Have it from now on, also while there is no such cgroup.

        @raise OSError: it cannot be had.
        @raise FreezerError: it is in other hands.
        """
        self.stays = True
        try:
            try:
                self.now()
            except OSError as error:
                if error.errno not in GONE:
                    raise
                # Nobody is to freeze it from above when it comes, either.
                _closeAll(self._above)
                self._above = _lockAbove(self._spec, *self._find())
        except (OSError, FreezerError):
            self.stays = False
            raise

    def now(self) -> Claim:
        """
        The claim on what is under its path now: it may have been removed, and made again.

        @raise OSError: there is none.
        @raise FreezerError: it is in other hands.
        """
        directory, mount = self._find()
        claim = self.current
        if claim is None or not claim.isOf(directory):
            self._drop()
            self.current = claim = Claim(self._spec, directory, mount)
            _closeAll(self._above)
        return claim

    def byOthers(self) -> bool:
        """
        Whether another one has claimed it: then it was that one who has frozen it.

        To be asked only without a claim of one's own, which counts, too.
        """
        try:
            return inHands(self._find()[0])
        except OSError:
            return False

    def forget(self) -> None:
        """A freeze is over; what was claimed for more than that stays."""
        if not self.stays:
            self._drop()

    def release(self) -> None:
        """Idempotent."""
        self.stays = False
        _closeAll(self._above)
        self._drop()

    def _drop(self) -> None:
        claim, self.current = self.current, None
        if claim is not None:
            claim.close()
