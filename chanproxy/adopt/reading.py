"""
Reading memory of a container's processes, where a wait hurts nobody.

A page may have to be asked for: of a file system in user space, whose server may be the very
process that is frozen, or of whoever serves the memory (C{userfaultfd(2)}).  Looking first what is
behind an address does not help while the program runs, for it can change that.  So another process
reads, and if it does not answer it is given up: SIGKILL does not end such a wait.

Knows processes and addresses only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import sys
import time

from attrs import define

from chanproxy.adopt import readmemory
from chanproxy.kernel.processes import isRunnable

PATIENCE = 0.01
"""
Seconds that an answer may take, unless the one that reads merely gets no processor.  It takes some
20 microseconds; a page that has been paged out, milliseconds.
"""

STARVED = 0.1
"""Seconds that it may take in any case."""

STARTING = 2.0
"""Seconds that the first one of all may take to start: a tenth of one, as a rule."""


PIECE = readmemory.MOST - 4
"""Bytes that are read at a time."""


class _Hangs(Exception):
    """There was no answer."""


@define
class _Reader:
    """
    A process that reads.

    @ivar asked: to it, one at a time; ours.
    @ivar ready: it has started.
    """

    pid: int
    asked: int
    ready: bool = False

    @classmethod
    def start(cls) -> _Reader:
        """@raise OSError: it cannot be started."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                pid = _spawn(its.fileno())
            except OSError:
                # Our user may not run what we are.
                pid = _fork(its.fileno())
            except BaseException:
                ours.close()
                raise
        return cls(pid, ours.detach())

    def ask(self, request: bytes) -> bytes:
        """@raise OSError: it has ended, or is starting."""
        if not self.ready:
            if not self._answers(STARTING if _neverHung else 0.0):
                raise OSError(errno.EAGAIN, "whoever reads it is being started")
            os.read(self.asked, 16)
            self.ready = True
        os.write(self.asked, request)
        if not self._answers(PATIENCE):
            raise _Hangs
        return os.read(self.asked, readmemory.MOST)

    def _answers(self, patience: float) -> bool:
        poller = select.poll()
        poller.register(self.asked, select.POLLIN)
        began = time.monotonic()
        while not poller.poll(patience * 1000):
            if time.monotonic() - began > max(STARVED, patience) or not isRunnable(self.pid):
                return bool(poller.poll(0))
        return True

    def close(self) -> None:
        """Ask nothing more: it ends, if it can."""
        os.close(self.asked)

    @property
    def ended(self) -> bool:
        """Whether it has; not to be asked again then."""
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return True


def _spawn(its: int) -> int:
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", readmemory.__file__],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, its, 0)],
        # Not of our terminal: what interrupts us is none of its business.
        setpgroup=0,
        setsigmask=[],
        setsigdef=[signal.SIGTERM, signal.SIGINT],
    )


def _fork(its: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            os.dup2(its, 0)
            readmemory.main()
        finally:
            os._exit(0)
    return pid


_shared: tuple[int, _Reader] | None = None
_neverHung = True


def _current() -> _Reader:
    """This process's; a fork has none of its parent's."""
    global _shared
    if _shared is None or _shared[0] != os.getpid():
        _shared = os.getpid(), _Reader.start()
    return _shared[1]


def kept() -> int:
    """The descriptor of ours that is open for good; -1 for none."""
    return -1 if _shared is None else _shared[1].asked


class Reading:
    """
    One container's.

    Whichever has not answered once is not asked again as long as that hangs: each time costs.
    """

    def __init__(self) -> None:
        self._hangs: _Reader | None = None

    def read(self, pid: int, address: int, size: int) -> bytes:
        """
        So many bytes.

        @raise OSError: they are not all there, we may not look, or nobody answers.
        """
        found = b""
        while len(found) < size:
            # A poll table may have more than fits into one answer.
            piece = min(size - len(found), PIECE)
            more = self._ask(pid, readmemory.READ, address + len(found), piece)
            found += more
            if len(more) != piece:
                raise OSError(errno.EIO, f"no memory at {address + len(found):#x}")
        return found

    def write(self, pid: int, address: int, data: bytes) -> None:
        """@raise OSError: likewise."""
        self._ask(pid, readmemory.WRITE, address, len(data), data)

    def variable(self, pid: int, name: bytes) -> bytes:
        """
        Of a process's environment; empty without it.

        @raise OSError: likewise.
        """
        return self._ask(pid, readmemory.VARIABLE, 0, 0, name)

    def prepare(self) -> None:
        """Have somebody there who reads, before it is needed."""
        with contextlib.suppress(OSError):
            _current()

    def _ask(self, pid: int, kind: int, address: int, size: int, data: bytes = b"") -> bytes:
        global _shared, _neverHung
        if self._hangs is not None:
            if not self._hangs.ended:
                raise OSError(errno.EBUSY, "it was asked for, and there was no answer")
            self._hangs = None
        if not 0 <= address < 1 << 63:
            raise OSError(errno.EIO, f"no memory at {address:#x}")
        reader = _current()
        try:
            answer = reader.ask(readmemory.REQUEST.pack(pid, kind, address, size) + data)
            if len(answer) < 4:
                raise ConnectionResetError
        except _Hangs:
            _shared, _neverHung = None, False
            reader.close()
            self._hangs = reader
            # Most ends do come; the rest waits uninterruptibly, with nothing of ours.
            with contextlib.suppress(ProcessLookupError):
                os.kill(reader.pid, signal.SIGKILL)
            self.prepare()
            raise OSError(errno.ETIMEDOUT, "there is no answer") from None
        except (BrokenPipeError, ConnectionResetError):
            _shared = None
            reader.close()
            _ = reader.ended
            raise OSError(errno.EAGAIN, "whoever reads it was killed") from None
        (number,) = struct.unpack_from("=i", answer)
        if number:
            raise OSError(number, os.strerror(number))
        return answer[4:]
