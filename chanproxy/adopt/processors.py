"""
What differs between processors: where a stopped thread's registers show the call that it is in, and
whether that was interrupted or has returned.

Numbers in, a L{Call} out; knows nothing of processes and of what a call means.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Callable, Sequence

from attrs import frozen

from chanproxy.adopt.calls import callNames

Read = Callable[[int, int], bytes]
"""Reads so many bytes at an address of the process; raises OSError."""

INTERRUPTED = frozenset(
    # The last four are include/linux/errno.h: ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND and
    # ERESTART_RESTARTBLOCK; no program ever sees them.
    -number
    for number in (errno.EINTR, 512, 513, 514, 516)
)
"""Results of a call that was still waiting when its thread was stopped."""


class UnknownProgram(Exception):
    """The thread is of a kind whose calls are not known; the text says which."""


@frozen
class Call:
    """
    A call that waits.

    @ivar name: C{call 999} for one that is not known.
    @ivar arguments: six, unsigned.
    @ivar lost: the first argument is not known any more.
    @ivar at: the address of the instruction that makes it.
    """

    name: str
    arguments: tuple[int, ...]
    at: int
    lost: bool = False


class Processor:
    """
    One kind.

    @ivar names: of calls, by their numbers.
    @ivar forgetful: C{/proc/PID/task/TID/syscall} does not name the call of a frozen thread.
    """

    names: dict[int, str]
    forgetful = False

    def interrupted(self, words: Sequence[int], read: Read) -> Call | None:
        """
        The call that a stopped thread waits in.

        @param words: its registers, as C{PTRACE_GETREGSET} gives them.
        @return: None when it is in none, or that has returned already.
        @raise UnknownProgram: it is a 32-bit one.
        @raise OSError: its memory cannot be read.
        """
        raise NotImplementedError

    def loaded(self, call: Call, read: Read) -> str:
        """
        The name of a call by the instruction before it, for one that the kernel has restarted.

        @return: empty when that instruction does not say.
        """
        raise NotImplementedError

    def finished(self, words: Sequence[int], name: str, result: int) -> list[int] | None:
        """
        The registers of a stopped thread with another result of its call.

        @param name: the call that it has to be in.
        @return: None when it is in another one, or that did not end with C{EINTR}.
        """
        raise NotImplementedError

    def name(self, number: int) -> str:
        """A call's name."""
        return self.names.get(number, f"call {number}")


class X86(Processor):
    """x86-64."""

    names = callNames(0)

    def interrupted(self, words: Sequence[int], read: Read) -> Call | None:
        """See L{Processor.interrupted}."""
        # struct user_regs_struct, sys/user.h.  A 32-bit thread has 17 words of 4 bytes.
        if len(words) != 27:
            raise UnknownProgram("is a 32-bit program, whose calls are not known")
        result, number, following = _signed64(words[10]), words[15], words[16]
        if number >> 31 or result not in INTERRUPTED:
            return None
        at = following - 2
        # `syscall`; there is also an older way, int $0x80, with other numbers.
        if read(at, 2) != b"\x0f\x05":
            raise UnknownProgram("makes its calls in a way that is not known")
        arguments = (words[14], words[13], words[12], words[7], words[9], words[8])
        return Call(self.name(number), arguments, at)

    def finished(self, words: Sequence[int], name: str, result: int) -> list[int] | None:
        """See L{Processor.finished}."""
        if len(words) != 27 or words[15] >> 31 or self.name(words[15]) != name:
            return None
        if _signed64(words[10]) != -errno.EINTR:
            return None
        return [*words[:10], result & _ALL64, *words[11:]]

    def loaded(self, call: Call, read: Read) -> str:
        """See L{Processor.loaded}."""
        code = read(call.at - 5, 5)
        # `mov $number, %eax`
        return self.name(int.from_bytes(code[1:], "little")) if code[0] == 0xB8 else ""


class Arm(Processor):
    """
    arm64.

    The kernel (C{do_signal}) winds a call that is to be restarted back to its instruction before
    the thread stops; one that is not has its result where the first argument was.
    """

    names = callNames(1)
    forgetful = True

    def interrupted(self, words: Sequence[int], read: Read) -> Call | None:
        """See L{Processor.interrupted}."""
        # struct user_pt_regs, asm/ptrace.h: 31 registers, stack pointer, program counter, state.
        if len(words) != 34:
            raise UnknownProgram("is a 32-bit program, whose calls are not known")
        number, following = words[8], words[32]
        arguments = tuple(words[0:6])
        # `svc #0`
        before, after = read(following - 4, 4), read(following, 4)
        if after == b"\x01\x00\x00\xd4":
            return Call(self.name(number), arguments, following)
        if before == b"\x01\x00\x00\xd4" and _signed64(words[0]) == -errno.EINTR:
            return Call(self.name(number), arguments, following - 4, lost=True)
        return None

    def finished(self, words: Sequence[int], name: str, result: int) -> list[int] | None:
        """See L{Processor.finished}."""
        if len(words) != 34 or self.name(words[8]) != name:
            return None
        if _signed64(words[0]) != -errno.EINTR:
            return None
        return [result & _ALL64, *words[1:]]

    def loaded(self, call: Call, read: Read) -> str:
        """See L{Processor.loaded}."""
        (code,) = struct.unpack("<I", read(call.at - 4, 4))
        # `mov x8, #number`
        return self.name(code >> 5 & 0xFFFF) if code & 0xFFE0001F == 0xD2800008 else ""


_ALL64 = (1 << 64) - 1


def _signed64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


_PROCESSORS: dict[str, type[Processor]] = {"x86_64": X86, "aarch64": Arm}


def processor(machine: str = "") -> Processor | None:
    """This machine's, or the named one's; None when it is not known."""
    known = _PROCESSORS.get(machine or platform.machine())
    return None if known is None else known()
