"""
Guarding: a process beside the service thaws what that has frozen, when it hangs or was killed.

Nothing in the service can do that: a thread needs the interpreter, and ends with it.  What sleeps
stands in memory that both have, so a freeze costs no call; the guardian asks only while something
sleeps.

Where the kernel lets us, whoever opens C{cgroup.freeze} of what sleeps finds it thawed by the
guardian, before it is opened: so a runtime that would refuse to do something with what is frozen
never sees it frozen, however late the service is.  Knows freezers by their descriptors.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet
from twisted.logger import Logger

from chanproxy.freezers import guardian
from chanproxy.interfaces import IFreezer, IThawedByDescriptor
from chanproxy.kernel import fanotify
from chanproxy.kernel.poller import Poller
from chanproxy.kernel.processes import commandOf

SECONDS = 2.0
"""
Seconds, by default, after which a service that does not turn is one that hangs.  It is looked at
twice in that time, and asked, unless it waits for events.
"""


BACKUP = 1.0
"""Seconds after which we let who opens a file, where the guardian has not."""

ANSWERED = 4096
"""
Descriptors of a guardian's that may not be answered when it is killed: the lower ones.
"""

_FIONREAD = 0x541B
"""C{asm-generic/ioctls.h}"""

_SLEEPS = 2**32


@define
class _Place:
    """
    A container's in the table.

    @ivar inode: of the file that its guardian has; 0 for none.
    @ivar file: the same file, open, where it is to be told who opens it; -1: it is not.
    @ivar sleep: the number of its last sleep.
    @ivar stays: whether it is to stay frozen for now, whoever opens that file.
    """

    number: int
    stays: Callable[[], bool]
    inode: int = 0
    file: int = -1
    sleep: int = 0

    def forget(self) -> None:
        """Close what is kept of it."""
        self.inode = 0
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)


class Guard:
    """The service's side, for all of its containers."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet, seconds: float = SECONDS) -> None:
        """@param seconds: see L{SECONDS}; 0: nobody guards."""
        self._seconds = seconds
        self._poller = Poller(reactor)
        self._socket: socket.socket | None = None
        self._table: mmap.mmap | None = None
        self._group = -1
        self._pid = 0
        self._places: dict[IFreezer, _Place] = {}
        self._sleeps = 0
        self._ended: list[int] = []
        self._reactor = reactor
        self._call: IDelayedCall | None = None

    def prepare(self) -> None:
        """
        Have what takes a right that may be given up afterwards.  Idempotent, and nothing where it
        may not be had: then who looks finds frozen what is.
        """
        if self._seconds and self._group < 0:
            with contextlib.suppress(OSError):
                self._group = fanotify.makeGroup()

    def add(self, freezer: IFreezer, stays: Callable[[], bool] = lambda: False) -> None:
        """
        Guard what a freezer freezes, if that can be thawed by a descriptor.

        @param stays: whether nobody who merely looks is to find it thawed; see L{look}.
        """
        if not self._seconds or not IThawedByDescriptor.providedBy(freezer):
            return
        used = {place.number for place in self._places.values()}
        free = next((each for each in range(1, guardian.PLACES) if each not in used), None)
        if free is not None:
            self._places[freezer] = _Place(free, stays)
            freezer.tellFreezes(partial(self._changed, freezer))

    def look(self, freezer: IFreezer) -> None:
        """It may be to stay frozen from now on."""
        place = self._places.get(freezer)
        if place is not None and place.file >= 0 and place.stays():
            fanotify.unmark(self._group, place.file)

    def remove(self, freezer: IFreezer) -> None:
        """Guard it no more; it is thawed.  Idempotent."""
        place = self._places.pop(freezer, None)
        if place is None:
            return
        freezer.tellFreezes(None)  # type: ignore[attr-defined]  # it was checked when it came
        self._thawed(place)
        if place.inode:
            self._say(guardian.NEW + f"{place.number} ".encode())
        place.forget()

    def _thawed(self, place: _Place) -> None:
        if self._table is not None:
            guardian.setSleep(self._table, place.number, 0)
        if place.file >= 0:
            fanotify.unmark(self._group, place.file)

    def _changed(self, freezer: IFreezer, descriptor: int | None) -> None:
        """It is about to freeze, or has thawed."""
        place = self._places[freezer]
        if descriptor is None:
            self._thawed(place)
            return
        if self._socket is None:
            self._start()
        table = self._table
        if table is None:
            return
        inode = os.fstat(descriptor).st_ino
        if place.inode != inode:
            words = guardian.NEW + f"{place.number} {freezer.spec}".encode(errors="replace")[:1024]
            if not self._say(words, descriptor):
                return
            place.forget()
            place.inode = inode
            if self._group >= 0:
                # Without one more descriptor, it is as where this may not be had.
                with contextlib.suppress(OSError):
                    place.file = os.dup(descriptor)
        self._sleeps = place.sleep = self._sleeps % (_SLEEPS - 1) + 1
        guardian.setSleep(table, place.number, place.sleep)
        if place.file >= 0 and not place.stays():
            fanotify.mark(self._group, place.file)
        if not guardian.sleepOf(table, 0):
            self._say(guardian.LOOK)

    def _start(self) -> None:
        self._reap()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("chanproxy-guard", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, guardian.TABLE)
            self._table = mmap.mmap(memory, guardian.TABLE)
            self.prepare()
            thread, grouped = threading.get_native_id(), self._group >= 0
            words = [str(self._seconds), str(thread), str(int(grouped))]
            # None is in the way of another.
            actions = [
                (os.POSIX_SPAWN_DUP2, memory, 1),
                (os.POSIX_SPAWN_DUP2, its.fileno(), 0),
            ]
            if grouped:
                actions.append((os.POSIX_SPAWN_DUP2, self._group, guardian.GROUP))
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", guardian.__file__, *words],
                os.environ,
                file_actions=actions,
                setpgroup=0,
                # A signal for all processes of the service is the service's to handle.
                setsigmask=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
            )
            self._poller.watch(ours.fileno(), select.EPOLLIN, self._heard)
            if grouped:
                # Who comes is the guardian's, who is asked again only if he is left waiting.
                edges = select.EPOLLIN | select.EPOLLET
                self._poller.watch(self._group, edges, self._someOpens)
        except OSError as error:
            self._log.warn("nobody guards what is frozen: {why}", why=error.strerror)
            self._table = None
            ours.close()
        else:
            self._socket = ours
        finally:
            its.close()
            os.close(memory)

    def _heard(self, events: int) -> None:
        assert self._socket is not None
        try:
            said = self._socket.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said.startswith(guardian.OPENED):
            self._opened(*map(int, said[1:].split()))
        elif said:
            self._say(guardian.ANSWER)
        else:
            self._log.warn("the guardian of what is frozen was killed; there will be another one")
            self._end()
            if self._group >= 0:
                # Those whom it has heard of, and not answered any more.
                for number in range(guardian.GROUP, ANSWERED):
                    guardian.answer(self._group, number)

    def _opened(self, number: int, sleep: int, pid: int) -> None:
        """A process has opened the file of a container, in a sleep that may be over by now."""
        for freezer, place in list(self._places.items()):
            if place.number == number and place.sleep == sleep:
                who = f"{commandOf(pid) or 'a process'}[{pid}]"
                freezer.thawedFor(f"{who} asks for its state")  # type: ignore[attr-defined]

    def _someOpens(self, _: int) -> None:
        if self._call is None:
            clock: Any = self._reactor
            self._call = clock.callLater(BACKUP, self._backUp)

    def _backUp(self) -> None:
        """A guardian that does not run, as one that was stopped, keeps nobody waiting for good."""
        self._call = None
        if self._group < 0 or not _unread(self._group):
            return
        for descriptor, pid in guardian.openings(self._group):
            inode = os.fstat(descriptor).st_ino
            for place in self._places.values():
                if place.inode == inode and place.file >= 0 and pid != os.getpid():
                    with contextlib.suppress(OSError):
                        os.pwrite(place.file, b"0", 0)
                    self._opened(place.number, place.sleep, pid)
            guardian.allow(self._group, descriptor)
        self._someOpens(0)

    def _say(self, words: bytes, descriptor: int | None = None) -> bool:
        if self._socket is None:
            return False
        rights = [] if descriptor is None else [descriptor]
        try:
            socket.send_fds(self._socket, [words], rights, socket.MSG_DONTWAIT)
        except OSError:
            # It is gone, which is heard; or it does not run, and has enough to hear.
            return False
        return True

    def _end(self) -> None:
        ended, self._socket, self._table = self._socket, None, None
        if ended is None:
            return
        self._poller.unwatch(ended.fileno())
        self._poller.unwatch(self._group)
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        ended.close()
        for place in self._places.values():
            self._thawed(place)
            place.forget()
        if self._group >= 0:
            # It hears no more of who comes now, and nobody else would let him.
            while opens := guardian.openings(self._group):
                for descriptor, _ in opens:
                    guardian.allow(self._group, descriptor)
        self._ended.append(self._pid)
        self._reap()

    def _reap(self) -> None:
        """Guardians end by themselves, some time after they have been left."""
        for pid in list(self._ended):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._ended.remove(pid)
            except ChildProcessError:
                self._ended.remove(pid)

    def stop(self) -> None:
        """All is thawed: nothing is guarded any more.  Idempotent."""
        for freezer in list(self._places):
            self.remove(freezer)
        self._end()

    def close(self) -> None:
        """Likewise, and give back what L{prepare} has got.  Idempotent."""
        self.stop()
        self._reap()
        group, self._group = self._group, -1
        if group >= 0:
            os.close(group)


def _unread(group: int) -> bool:
    """Whether there is something to be read; what has been read meanwhile was answered."""
    waiting = array.array("i", [0])
    fcntl.ioctl(group, _FIONREAD, waiting)
    return waiting[0] > 0
