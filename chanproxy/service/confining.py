"""
Confining: a service gives up the rights that it has no use for, before it begins.

What it keeps is what C{docs/security.md} has a line for; its threads, and the processes that it
starts from then on, have no more either.  Knows nothing of what the rights are used for.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from twisted.logger import Logger

KEPT = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_NICE": 23,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Capabilities that it has a use for, C{linux/capability.h}."""

BEFORE = {"CAP_SETPCAP": 8, "CAP_SYS_ADMIN": 21}
"""What it uses before it gives up what is not kept: for that, and L{chanproxy.kernel.fanotify}."""

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
"""C{linux/prctl.h}"""

_VERSION = 0x20080522
"""C{_LINUX_CAPABILITY_VERSION_3}: the rights are two words of 32 bits."""

_log = Logger()
_libc = ctypes.CDLL(None, use_errno=True)
_Header = ctypes.c_uint32 * 2
_Data = ctypes.c_uint32 * 6


def confine() -> None:
    """
    Give up, for good, what is not in L{KEPT}, and set C{no_new_privs}.

    Of this thread, and of all that it starts from now on.  Where that may not be, the rest is done,
    and a line in the log says what is not.
    """
    for step in (_bound, _drop, _noNewPrivileges):
        try:
            step()
        except OSError as error:
            _log.warn("it keeps rights that it has no use for: {why}", why=error.strerror)


def _bound() -> None:
    """Nor by starting a program of root's."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if number not in KEPT.values() and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _must(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))


def _drop() -> None:
    header, data = _Header(_VERSION, 0), _Data()
    _must(_libc.capget(header, data))
    # Effective, permitted and inheritable ones, for each half.
    for index in range(6):
        half = index // 3 * 32
        data[index] &= sum(1 << each - half for each in KEPT.values() if 0 <= each - half < 32)
    _must(_libc.capset(header, data))


def _noNewPrivileges() -> None:
    _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _must(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
