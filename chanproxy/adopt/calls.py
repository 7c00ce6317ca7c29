"""
The system calls that wait, by their numbers.

Numbers of the kernel's interface; knows nothing of processes.
"""

from __future__ import annotations

_CALLS = {
    # Name: the numbers on x86-64 (asm/unistd_64.h) and arm64 (asm-generic/unistd.h).
    "accept": (43, 202),
    "accept4": (288, 242),
    "clock_nanosleep": (230, 115),
    "connect": (42, 203),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "epoll_wait": (232, None),
    "futex": (202, 98),
    "futex_wait": (455, 455),
    "futex_waitv": (449, 449),
    "io_uring_enter": (426, 426),
    "mq_timedreceive": (243, 183),
    "mq_timedsend": (242, 182),
    "nanosleep": (35, 101),
    "pause": (34, None),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pselect6": (270, 72),
    "read": (0, 63),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmmsg": (299, 243),
    "recvmsg": (47, 212),
    "restart_syscall": (219, 128),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "select": (23, None),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
    "writev": (20, 66),
}

RESTART = "restart_syscall"
"""What a call with a relative timeout is after a thaw; its arguments stay in the registers."""


def callNames(column: int) -> dict[int, str]:
    """Names by their numbers; column 0 is x86-64, 1 is arm64."""
    numbered = ((numbers[column], name) for name, numbers in _CALLS.items())
    return {number: name for number, name in numbered if number is not None}
