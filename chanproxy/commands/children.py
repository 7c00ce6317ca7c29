"""
Running a command for somebody: its exit status and its signals are passed on.

Blocking; knows nothing of containers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

PASSED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
)
"""What users send to a command; the rest means this process itself."""

AWAITED = (*PASSED, signal.SIGCHLD, signal.SIGIO)
"""What is held back while a command runs."""

BY_TERMINAL = 0x80
"""C{SI_KERNEL}, C{asm-generic/siginfo.h}: sent to all of a terminal's processes, our child too."""


class Attended(Protocol):
    """What is looked after while a command runs; see L{chanproxy.commands.tie.Tie}."""

    def begin(self) -> None: ...
    def end(self) -> None: ...
    def look(self) -> float | None: ...


class CannotRun(Exception):
    """
    The command could not be started.

    @ivar status: 127 when it is not there, else 126, as shells have it.
    """

    def __init__(self, error: OSError, command: str) -> None:
        super().__init__(f"{command}: {error.strerror}")
        self.status = 127 if isinstance(error, FileNotFoundError) else 126


@contextlib.contextmanager
def heldBack(*numbers: int) -> Iterator[set[int]]:
    """
    Signals wait until they are asked for; those that nobody has asked for are forgotten.

    @return: what was held back before, which a child is to have.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield {*map(int, before)}
    finally:
        # What has arrived meanwhile was for the child.
        while signal.sigtimedwait(numbers, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def putOff(*numbers: int) -> Iterator[None]:
    """Signals come afterwards, if they come meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def startChild(
    argv: Sequence[str],
    mask: Iterable[int],
    beforeExec: Callable[[], object] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """
    Start a command.

    @param mask: signals that are held back in it.
    @param beforeExec: called in the child.
    @param environment: besides our own.
    @raise CannotRun: it did not start.
    """

    def prepare() -> None:
        beforeExec()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        return subprocess.Popen(argv, preexec_fn=prepare, env={**os.environ, **(environment or {})})
    except OSError as error:
        raise CannotRun(error, argv[0]) from error


def runChild(argv: Sequence[str], attended: Attended | None = None) -> int:
    """
    Run a command until it ends; the signals that users send to it are passed on.

    @param attended: see L{receivedBy}.
    @return: its exit status, see L{shellStatus}.
    @raise CannotRun: it did not start.
    """
    with heldBack(*AWAITED) as before, startChild(argv, before) as child:
        for received in receivedBy(child, attended):
            passOn(child, received)
    return shellStatus(child.returncode)


def receivedBy(
    child: subprocess.Popen[bytes], attended: Attended | None = None
) -> Iterator[signal.struct_siginfo]:
    """
    What users send it, one by one, until it has ended.  L{AWAITED} are to be held back.

    @param attended: is looked at when SIGIO has come, or when it says.
    """
    if attended is not None:
        attended.begin()
    try:
        while child.poll() is None:
            received = _next(attended)
            if received is not None and received.si_signo in PASSED:
                yield received
    finally:
        if attended is not None:
            attended.end()


def _next(attended: Attended | None) -> signal.struct_siginfo | None:
    """The next signal; None: somebody wants to be looked at again."""
    pause = None if attended is None else attended.look()
    return signal.sigwaitinfo(AWAITED) if pause is None else signal.sigtimedwait(AWAITED, pause)


def passOn(child: subprocess.Popen[bytes], received: signal.struct_siginfo) -> None:
    """Send a child what we have received, unless the terminal has sent it to both."""
    if received.si_code != BY_TERMINAL:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(received.si_signo)


def shellStatus(status: int) -> int:
    """An exit status of C{subprocess} as a shell gives it: 128 and the signal, if that ended it."""
    return 128 - status if status < 0 else status
