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

PASSED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
)
"""What users send to a command; the rest means this process itself."""

_BY_TERMINAL = 0x80
"""C{SI_KERNEL}, C{asm-generic/siginfo.h}: sent to all of a terminal's processes, our child too."""


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
) -> int:
    """
    Run a command until it ends.

    @param beforeExec: called in the child.
    @param beforeSignal: called with the number of a signal before it is passed on.
    @param environment: besides our own.
    @return: its exit status; 128 and the signal's number when it was killed by one.
    @raise CannotRun: it did not start.
    """
    waited = {*PASSED, signal.SIGCHLD}
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
            while child.poll() is None:
                received = signal.sigwaitinfo(waited)
                if received.si_signo != signal.SIGCHLD and received.si_code != _BY_TERMINAL:
                    beforeSignal(received.si_signo)
                    with contextlib.suppress(ProcessLookupError):
                        child.send_signal(received.si_signo)
    finally:
        # What has arrived meanwhile was for the child.
        while signal.sigtimedwait(waited, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
