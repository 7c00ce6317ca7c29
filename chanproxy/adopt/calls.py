"""
System calls by their numbers.

Numbers of the kernel's interface; knows nothing of processes, and not which calls wait.
"""

from __future__ import annotations

from chanproxy.adopt.callnumbers import COMMON, FIRST_COMMON, GENERIC, X86_64

RESTART = "restart_syscall"
"""What a call with a relative timeout is after a thaw; its arguments stay in the registers."""

GOING_ON = ("poll", "nanosleep", "clock_nanosleep", "futex")
"""
Calls whose relative times the kernel counts from the beginning, through any number of freezes; of
these, and of a futex's instant, only L{RESTART} shows after a thaw.
"""


def callNames(column: int) -> dict[int, str]:
    """Names of all calls by their numbers; column 0 is x86-64, 1 is arm64."""
    own = enumerate((X86_64, GENERIC)[column].split())
    common = enumerate(COMMON.split(), FIRST_COMMON)
    return {number: name for number, name in (*own, *common) if name != "-"}
