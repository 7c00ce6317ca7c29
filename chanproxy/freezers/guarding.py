"""
Guarding: a process beside the service thaws what that has frozen, when it hangs or was killed.

Nothing in the service can do that: a thread needs the interpreter, and ends with it.  What sleeps
stands in memory that both have, so a freeze costs no call; the guardian asks only while something
sleeps.  Knows freezers by their descriptors.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
import threading
from functools import partial

from attrs import define
from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger

from chanproxy.freezers import guardian
from chanproxy.interfaces import IFreezer, IThawedByDescriptor
from chanproxy.kernel.poller import Poller

SECONDS = 2.0
"""
Seconds, by default, after which a service that does not turn is one that hangs.  It is looked at
twice in that time, and asked, unless it waits for events.
"""


@define
class _Place:
    """
    A container's in the table.

    @ivar inode: of the file that its guardian has; 0 for none.
    """

    number: int
    inode: int = 0


class Guard:
    """The service's side, for all of its containers."""

    _log = Logger()

    def __init__(self, reactor: IReactorFDSet, seconds: float = SECONDS) -> None:
        """@param seconds: see L{SECONDS}; 0: nobody guards."""
        self._seconds = seconds
        self._poller = Poller(reactor)
        self._socket: socket.socket | None = None
        self._table: mmap.mmap | None = None
        self._pid = 0
        self._places: dict[IFreezer, _Place] = {}

    def add(self, freezer: IFreezer) -> None:
        """Guard what a freezer freezes, if that can be thawed by a descriptor."""
        if not self._seconds or not IThawedByDescriptor.providedBy(freezer):
            return
        used = {place.number for place in self._places.values()}
        free = next((each for each in range(1, guardian.TABLE) if each not in used), None)
        if free is not None:
            self._places[freezer] = _Place(free)
            freezer.tellFreezes(partial(self._changed, freezer))

    def remove(self, freezer: IFreezer) -> None:
        """Guard it no more; it is thawed.  Idempotent."""
        place = self._places.pop(freezer, None)
        if place is None:
            return
        freezer.tellFreezes(None)  # type: ignore[attr-defined]  # it was checked when it came
        if self._table is not None:
            self._table[place.number] = 0
        if place.inode:
            self._say(guardian.NEW + f"{place.number} ".encode())

    def _changed(self, freezer: IFreezer, descriptor: int | None) -> None:
        """It is about to freeze, or has thawed."""
        place = self._places[freezer]
        if descriptor is None:
            if self._table is not None:
                self._table[place.number] = 0
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
            place.inode = inode
        table[place.number] = 1
        if not table[0]:
            self._say(guardian.LOOK)

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("chanproxy-guard", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, guardian.TABLE)
            self._table = mmap.mmap(memory, guardian.TABLE)
            thread = str(threading.get_native_id())
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", guardian.__file__, str(self._seconds), thread],
                os.environ,
                file_actions=[
                    # Neither is in the way of the other.
                    (os.POSIX_SPAWN_DUP2, memory, 1),
                    (os.POSIX_SPAWN_DUP2, its.fileno(), 0),
                ],
                setpgroup=0,
                # A signal for all processes of the service is the service's to handle.
                setsigmask=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
            )
            self._poller.watch(ours.fileno(), select.EPOLLIN, self._heard)
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
        if said:
            self._say(guardian.ANSWER)
        else:
            self._log.warn("the guardian of what is frozen was killed; there will be another one")
            self._end()

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
        ended.close()
        for place in self._places.values():
            place.inode = 0
        with contextlib.suppress(ChildProcessError):
            # It ends by itself; its parent may be gone before that.
            os.waitpid(self._pid, os.WNOHANG)

    def stop(self) -> None:
        """All is thawed: nothing is guarded any more.  Idempotent."""
        for freezer in list(self._places):
            self.remove(freezer)
        self._end()
