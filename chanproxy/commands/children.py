"""
Running a command for somebody: its exit status and its signals are passed on.

Blocking; knows nothing of containers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

PASSED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
)
"""What users send to a command; the rest means this process itself."""

_BY_TERMINAL = 0x80
"""C{SI_KERNEL}, C{asm-generic/siginfo.h}: sent to all of a terminal's processes, our child too."""


class Attended(Protocol):
    """What is looked after meanwhile; see L{chanproxy.commands.tie.Tie}."""

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


def runChild(
    argv: Sequence[str],
    beforeExec: Callable[[], object] = lambda: None,
    beforeSignal: Callable[[int], object] = lambda number: None,
    environment: Mapping[str, str] | None = None,
    attended: Attended | None = None,
) -> int:
    """
    Run a command until it ends.

    @param beforeExec: called in the child.
    @param beforeSignal: called with the number of a signal before it is passed on.
    @param environment: besides our own.
    @param attended: begins and ends while SIGIO is blocked, and is looked at when that has come, or
        when it says.
    @return: its exit status; 128 and the signal's number when it was killed by one.
    @raise CannotRun: it did not start.
    """
    waited = {*PASSED, signal.SIGCHLD, signal.SIGIO}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    try:

        def prepare() -> None:
            beforeExec()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

        try:
            child = subprocess.Popen(
                argv, preexec_fn=prepare, env={**os.environ, **(environment or {})}
            )
        except OSError as error:
            raise CannotRun(error, argv[0]) from error
        with child:
            if attended is not None:
                attended.begin()
            while child.poll() is None:
                received = _next(waited, attended)
                if received is None or received.si_signo not in PASSED:
                    continue
                if received.si_code != _BY_TERMINAL:
                    beforeSignal(received.si_signo)
                    with contextlib.suppress(ProcessLookupError):
                        child.send_signal(received.si_signo)
    finally:
        if attended is not None:
            attended.end()
        # What has arrived meanwhile was for the child.
        while signal.sigtimedwait(waited, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _next(waited: set[signal.Signals], attended: Attended | None) -> signal.struct_siginfo | None:
    """The next signal; None: somebody wants to be looked at again."""
    pause = None if attended is None else attended.look()
    return signal.sigwaitinfo(waited) if pause is None else signal.sigtimedwait(waited, pause)
