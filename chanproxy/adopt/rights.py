"""
Whether this process may look into others at all; asked at start, when somebody is there to read it.
"""

from __future__ import annotations

from chanproxy.adopt.processors import processor

_CAP_SYS_PTRACE = 19
"""C{linux/capability.h}"""


def whyNotAdopt() -> str | None:
    """
    Say what is missing.

    Without the capability, processes of the same user can be looked into where the kernel's rules
    allow that; whether they do for a certain one only a look at it tells.

    @return: a sentence, or None.
    """
    if processor() is None:
        return 'wake-on = "sockets" is for x86-64 and arm64 only'
    if _effective() >> _CAP_SYS_PTRACE & 1:
        return None
    scope = _yamaScope()
    if scope > 0:
        return (
            'wake-on = "sockets" looks into the container\'s processes: that takes CAP_SYS_PTRACE '
            f"here (kernel.yama.ptrace_scope = {scope}); run as root, give the service that "
            "capability, or set kernel.yama.ptrace_scope = 0 for processes of its own user"
        )
    return None


def _effective() -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _yamaScope() -> int:
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
