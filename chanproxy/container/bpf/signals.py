"""
A program on the kernel's tracepoint C{signal_generate}: tells of signals to some processes.

Knows nothing of who waits for them, and of whether they are a reason for anything.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct

from chanproxy.container.bpf import assembly as to
from chanproxy.container.bpf import btf, calls
from chanproxy.container.bpf.ring import MappedRing

PROCESSES = 16384
"""As many processes are told of by one program."""

_RECORD = struct.Struct("<II")
"""A process, and one of its threads, or L{_ANY}."""

_ANY = 2**32 - 1
"""Signals for more than one thread of a process; no thread has this id."""

RING = 2 * PROCESSES * (8 + _RECORD.size)
"""
Bytes: all that can be in it at one time, two records for each process, each with a header.  A power
of two, and whole pages wherever pages have up to 64 KiB.
"""

_FIRST_NAMESPACE = "pid:[4026531836]"
"""C{PROC_PID_INIT_INO}, C{linux/proc_ns.h}: the kernel's own numbers are those that we see, too."""

_DELIVERED, _LOST_INFORMATION = 0, 4
"""C{trace/events/signal.h}: it was queued; or it is pending, without what came with it.  Others:
it is ignored, pending already, or there is no room for it."""

TRACEPOINT = "signal_generate"


class Unavailable(Exception):
    """
    The kernel does not tell of signals here; the text says why.

    @ivar forNow: something is short that may be there another time.
    """

    def __init__(self, why: str, forNow: bool = False) -> None:
        super().__init__(why)
        self.forNow = forNow


def program(processes: int, ring: int, pid: int) -> bytes:
    """
    The program, run by whoever sends a signal, when that is queued and the process's lock is held.

    What it keeps of a process is the record that it has written and that nobody has acknowledged
    (L{SignalProgram.clear}), or 0.  So a flood of signals is one record, or two: for one thread,
    and for any.  The process is part of what is kept: the kernel may give an entry to another
    process by the time that it is written here.

    @param processes: the map of those that are told of.
    @param ring: where they are told of.
    @param pid: offset of C{task_struct.pid}; C{tgid} comes next.
    """
    code = to.Program()
    # The arguments: signal, information, task, whether it is for all the process, result.
    code.copy(to.R6, to.R1)
    code.load(to.R1, to.R6, 32)
    code.ifEqual(to.R1, _DELIVERED, "queued")
    code.ifEqual(to.R1, _LOST_INFORMATION, "queued")
    # Whoever is stopped goes on even if it ignores this one.
    code.load(to.R1, to.R6, 0)
    code.ifNot(to.R1, signal.SIGCONT, "end")
    code.label("queued")
    # Thread and process, side by side: as a record has them the other way round.
    code.load(to.R3, to.R6, 16)
    code.add(to.R3, pid)
    code.copy(to.R1, to.STACK)
    code.add(to.R1, -8)
    code.set(to.R2, 8)
    code.call(to.READ_KERNEL)
    code.ifNot(to.R0, 0, "end")
    code.setMap(to.R1, processes)
    code.copy(to.R2, to.STACK)
    code.add(to.R2, -4)
    code.call(to.LOOKUP)
    code.ifEqual(to.R0, 0, "end")
    code.copy(to.R9, to.R0)
    code.load(to.R7, to.STACK, -4, size=4)
    code.copy(to.R8, to.R7)
    code.load(to.R1, to.R6, 24)
    code.ifNot(to.R1, 0, "group")
    code.load(to.R8, to.STACK, -8, size=4)
    code.label("group")
    code.shiftLeft(to.R8, 32)
    code.either(to.R8, to.R7)
    code.set(to.R2, -1)
    code.shiftLeft(to.R2, 32)
    code.either(to.R2, to.R7)
    # Told of already?
    code.load(to.R1, to.R9, 0)
    code.ifSame(to.R1, to.R8, "end")
    code.ifSame(to.R1, to.R2, "end")
    code.copyLow(to.R1, to.R1)
    code.ifDiffer(to.R1, to.R7, "tell")
    code.copy(to.R8, to.R2)
    code.label("tell")
    # Before the record: whoever has read that acknowledges it.
    code.store(to.R9, 0, to.R8)
    code.store(to.STACK, -16, to.R8)
    code.setMap(to.R1, ring)
    code.copy(to.R2, to.STACK)
    code.add(to.R2, -16)
    code.set(to.R3, _RECORD.size)
    code.set(to.R4, 0)
    code.call(to.RING_OUTPUT)
    code.ifEqual(to.R0, 0, "end")
    # No room: the next one tries again.  That it was full is seen from outside.
    code.storeNumber(to.R9, 0, 0)
    code.label("end")
    code.set(to.R0, 0)
    code.end()
    return code.assembled()


class SignalProgram:
    """
    The program in the kernel, and what it has to tell.

    Owns its descriptors: two maps, the ring's once more for each of two mappings, the attachment.
    """

    def __init__(self, processes: int = PROCESSES, ring: int = RING) -> None:
        """
        Load it.

        @param processes: as many can be told of.
        @param ring: bytes.
        @raise Unavailable: it cannot be done here; nothing is left behind.
        """
        self._most = processes
        with contextlib.ExitStack() as opened:
            offset = _offset()
            try:
                self._processes = calls.createMap(calls.HASH, 4, 8, processes, "signalled")
                opened.callback(os.close, self._processes)
                self._fd = calls.createMap(calls.RING, 0, 0, ring, "signals")
                opened.callback(os.close, self._fd)
                code = program(self._processes, self._fd, offset)
                loaded = calls.loadProgram(code, "signals")
                try:
                    opened.callback(os.close, calls.attach(loaded, TRACEPOINT))
                finally:
                    # The attachment holds it.
                    os.close(loaded)
                self._ring = MappedRing(self._fd, ring)
                opened.callback(self._ring.close)
            except OSError as error:
                raise _unavailable(error) from error
            self._prove()
            self._opened = opened.pop_all()

    def fileno(self) -> int:
        """Readable while there is anything to L{read}."""
        return self._fd

    def add(self, pid: int) -> None:
        """
        Tell of signals to a process from now on.

        @raise OSError: C{E2BIG}: there are as many as there can be.
        """
        try:
            calls.put(self._processes, pid, 0)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            raise OSError(errno.E2BIG, f"more than {self._most} processes sleep") from error

    def clear(self, pid: int) -> None:
        """
        Acknowledge what was told of a process: signals that come from now on are told of anew.

        Harmless for one that is not there.
        """
        with contextlib.suppress(FileNotFoundError):
            calls.put(self._processes, pid, 0, calls.EXIST)

    def remove(self, pid: int) -> None:
        """Tell of it no more.  Harmless for one that is not there."""
        with contextlib.suppress(FileNotFoundError):
            calls.remove(self._processes, pid)

    def read(self, most: int) -> tuple[list[tuple[int, int | None]], bool]:
        """
        What has not been read yet.

        @param most: as many records at the most.
        @return: processes, and the thread of each that signals came for, the process's own if for
            all of it, or None if for several; and whether some may have been lost.
        """
        # Beyond this there may have been no room; as it is made, it can never be reached.
        lost = len(self._ring) > self._ring.size - 2 * (8 + _RECORD.size)
        found = map(_RECORD.unpack, self._ring.read(most))
        return [(pid, None if tid == _ANY else tid) for pid, tid in found], lost

    def close(self) -> None:
        """Detach it, and forget all.  Idempotent."""
        self._opened.close()

    def _prove(self) -> None:
        """What is taken for granted about the kernel's insides is seen to be so."""
        us = os.getpid()
        try:
            self.add(us)
            # That of somebody who is not stopped is nothing, unless there is a handler.
            os.kill(us, signal.SIGCONT)
            told, _ = self.read(1)
            self.remove(us)
        except OSError as error:
            raise _unavailable(error) from error
        if told != [(us, us)]:
            raise Unavailable(f"a signal for process {us} was told of as {told}")


def _offset() -> int:
    """Where C{pid} is in C{task_struct}."""
    if not calls.known():
        raise Unavailable("it is not known how on this kind of machine")
    try:
        if os.readlink("/proc/self/ns/pid") != _FIRST_NAMESPACE:
            raise Unavailable("the service is in a pid namespace of its own")
        with open(btf.VMLINUX, "rb") as file:
            text = file.read()
        pid, tgid = btf.memberOffsets(text, "task_struct", ("pid", "tgid"))
    except OSError as error:
        raise _unavailable(error) from error
    except btf.NotFound as error:
        raise Unavailable(f"{btf.VMLINUX}: {error}") from error
    if tgid != pid + 4:
        raise Unavailable("this kernel keeps a thread's ids in another way")
    return pid


_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _unavailable(error: OSError) -> Unavailable:
    hint = ""
    if error.errno in (errno.EPERM, errno.EACCES):
        hint = "; the service needs CAP_BPF and CAP_PERFMON"
    return Unavailable(f"{error}{hint}", error.errno in _SCARCE)
