"""
Processes that share this one's table of descriptors, and nothing else: made by a bare C{clone(2)}.

What such a process closes is closed here, too, at once; and should the close wait, it waits there.
Knows nothing of what is closed.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
import signal
from collections.abc import Callable

_CLONE = {"x86_64": 56, "aarch64": 220, "riscv64": 220}.get(platform.machine())
"""C{clone(2)}; the C library's wrapper wants a function in C."""

_CLONE_FILES = 0x400
"""C{linux/sched.h}.  Without a signal beside it, the process's end is told to nobody."""

_PR_SET_PDEATHSIG = 1
_WCLONE = 0x80000000

_libc = ctypes.PyDLL(None, use_errno=True)
_python = ctypes.pythonapi


def start(work: Callable[[], object]) -> int:
    """
    Run a function in a process that shares our table of descriptors, until it returns.

    It ends with ours.  It must not return or drop what it did not make: an object that closes its
    descriptor would close ours.  All signals but SIGALRM and SIGKILL are blocked in it.

    @return: its process id; L{reaped} has to be asked for it.
    @raise OSError: there are too many processes, or this kind of machine is not known.
    """
    if _CLONE is None:
        raise OSError(errno.ENOSYS, f"clone(2) is not known for {platform.machine()}")
    parent, collects = os.getpid(), gc.isenabled()
    every = signal.valid_signals()
    # For the child, in which no handler of ours may run, not even at first.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, every)
    # Nothing that is garbage here may be found there.
    gc.disable()
    _python.PyOS_BeforeFork()
    pid: int = _libc.syscall(_CLONE, _CLONE_FILES, 0, 0, 0, 0)
    if pid == 0:
        try:
            _python.PyOS_AfterFork_Child()
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == parent:
                _forgetSignals()
                work()
        finally:
            os._exit(0)
    number = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if collects:
        gc.enable()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid


def _forgetSignals() -> None:
    signal.set_wakeup_fd(-1)
    # The handler does nothing: the signal is for the call that it interrupts.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])


def leave() -> None:
    """
    Have a table of our own again, with all that is in it; whoever shared it keeps the old one.

    @raise OSError: there is no memory for it.
    """
    if _libc.unshare(_CLONE_FILES) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def reaped(pid: int) -> bool:
    """Whether a process of L{start} has ended; not to be asked again then."""
    try:
        return os.waitpid(pid, _signed(_WCLONE) | os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _signed(flags: int) -> int:
    return flags - (1 << 32) if flags >> 31 else flags
