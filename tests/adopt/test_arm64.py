"""
What arm64 shows of frozen threads, as recorded on Linux 6.12 under emulation.

Each was frozen by cgroup v2 and looked at by C{PTRACE_GETREGSET}, before a thaw and after
the kernel had restarted the call.
"""

from __future__ import annotations

import pytest

from chanproxy.adopt.calls import RESTART
from chanproxy.adopt.processors import Arm, Read, UnknownProgram

SVC = 0xD4000001


def looked(x0: int, x1: int, x2: int, number: int, pc: int) -> list[int]:
    """The registers that were recorded; the rest is nothing."""
    words = [0] * 34
    words[0], words[1], words[2], words[8], words[32] = x0 % 2**64, x1, x2, number, pc
    return words


def memory(pc: int, *code: int) -> Read:
    """The instructions from two before the program counter on."""
    text = b"".join(word.to_bytes(4, "little") for word in code)

    def read(address: int, size: int) -> bytes:
        start = address - (pc - 8)
        assert 0 <= start <= len(text) - size
        return text[start : start + size]

    return read


@pytest.mark.parametrize(
    ("name", "x0", "number", "pc", "code"),
    [
        ("read", 3, 63, 0x421068, (0xAA1303E0, 0xD28007E8, SVC)),
        ("clock_nanosleep", 0, 115, 0x440E14, (0xAA1403E1, 0xD2800E68, SVC)),
        ("ppoll", 281474421735008, 73, 0x421A88, (0xD2800104, 0xD2800928, SVC)),
        ("futex", 4792488, 98, 0x422224, (0xAA0603E5, 0xAA0703E6, SVC)),
        ("wait4", -1, 260, 0x41F8A0, (0xAA1303E2, 0xD2802088, SVC)),
    ],
)
def test_waits(name: str, x0: int, number: int, pc: int, code: tuple[int, ...]) -> None:
    """The kernel has wound it back to its instruction, and its first argument is there again."""
    call = Arm().interrupted(looked(x0, 1, 2, number, pc), memory(pc, *code))
    assert call is not None
    assert (call.name, call.at, call.lost) == (name, pc, False)
    assert call.arguments[:3] == (x0 % 2**64, 1, 2)


def test_lost() -> None:
    """EINTR stands where the epoll's descriptor was."""
    read = memory(0x4236E4, 0xD28002C8, SVC, 0xB140041F)
    call = Arm().interrupted(looked(-4, 0xFFFFDEEBBE80, 1, 22, 0x4236E4), read)
    assert call is not None
    assert (call.name, call.lost) == ("epoll_pwait", True)


def test_works() -> None:
    """A loop that does nothing else."""
    read = memory(0x400A78, 0x940083F0, 0x17FFFFCD, 0x14000000)
    assert Arm().interrupted(looked(0, 1, 3, 21, 0x400A78), read) is None


@pytest.mark.parametrize(
    ("name", "pc", "code"),
    [
        ("clock_nanosleep", 0x440E14, (0xAA1403E1, 0xD2800E68, SVC)),
        # The number is not loaded right before the call.
        ("", 0x422224, (0xAA0603E5, 0xAA0703E6, SVC)),
    ],
)
def test_restarted(name: str, pc: int, code: tuple[int, ...]) -> None:
    """Which call it was, the instruction before it says, if it loads the number."""
    read = memory(pc, *code)
    call = Arm().interrupted(looked(0, 0, 0, 128, pc), read)
    assert call is not None
    assert call.name == RESTART
    assert Arm().loaded(call, read) == name


def test_32bit() -> None:
    """Fewer registers."""
    with pytest.raises(UnknownProgram, match="32-bit"):
        Arm().interrupted([0] * 9, memory(0, 0, 0, 0))
