"""
The instructions of eBPF programs, those few that ours are made of.

The encoding is that of C{Documentation/bpf/standardization/instruction-set.rst}.
"""

from __future__ import annotations

import struct

from attrs import define, field

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, STACK = range(11)
"""Registers: the result; what is passed, lost in each call; what is kept; the end of the stack."""

LOOKUP, READ_KERNEL, RING_OUTPUT = 1, 113, 130
"""
C{linux/bpf.h}, C{enum bpf_func_id}: C{bpf_map_lookup_elem(map, key)},
C{bpf_probe_read_kernel(to, size, from)}, C{bpf_ringbuf_output(map, from, size, flags)}.
"""

_PSEUDO_MAP = 1
"""C{BPF_PSEUDO_MAP_FD}: the constant is a descriptor of a map."""


@define
class Program:
    """
    A program in the making.

    Jumps name a place, L{label}, that comes later: so they lead forwards only.
    """

    _code: list[tuple[int, int, int, int, int]] = field(factory=list)
    _jumps: list[tuple[int, str]] = field(factory=list)
    _labels: dict[str, int] = field(factory=dict)

    def _add(self, code: int, to: int = 0, by: int = 0, offset: int = 0, value: int = 0) -> None:
        self._code.append((code, to, by, offset, value))

    def load(self, to: int, base: int, offset: int, size: int = 8) -> None:
        """C{to = *(base + offset)}, of 4 bytes or 8."""
        self._add(0x79 if size == 8 else 0x61, to, base, offset)

    def store(self, base: int, offset: int, source: int) -> None:
        """C{*(base + offset) = source}, 8 bytes."""
        self._add(0x7B, base, source, offset)

    def storeNumber(self, base: int, offset: int, value: int) -> None:
        """C{*(base + offset) = value}, 8 bytes."""
        self._add(0x7A, base, 0, offset, value)

    def copy(self, to: int, source: int) -> None:
        """C{to = source}."""
        self._add(0xBF, to, source)

    def copyLow(self, to: int, source: int) -> None:
        """C{to = source & 0xffffffff}."""
        self._add(0xBC, to, source)

    def set(self, to: int, value: int) -> None:
        """C{to = value}, of 31 bits and a sign."""
        self._add(0xB7, to, value=value)

    def setMap(self, to: int, fd: int) -> None:
        """C{to =} a map, for a call."""
        self._add(0x18, to, _PSEUDO_MAP, value=fd)
        self._add(0)

    def add(self, to: int, value: int) -> None:
        """C{to += value}."""
        self._add(0x07, to, value=value)

    def shiftLeft(self, to: int, bits: int) -> None:
        """C{to <<= bits}."""
        self._add(0x67, to, value=bits)

    def either(self, to: int, source: int) -> None:
        """C{to |= source}."""
        self._add(0x4F, to, source)

    def call(self, function: int) -> None:
        """C{R0 = function(R1, R2, R3, R4, R5)}; what they held is lost."""
        self._add(0x85, value=function)

    def ifEqual(self, one: int, value: int, place: str) -> None:
        """Go there, if a register is a number."""
        self._jumps.append((len(self._code), place))
        self._add(0x15, one, value=value)

    def ifNot(self, one: int, value: int, place: str) -> None:
        """Go there, if a register is another number."""
        self._jumps.append((len(self._code), place))
        self._add(0x55, one, value=value)

    def ifSame(self, one: int, other: int, place: str) -> None:
        """Go there, if two registers are equal."""
        self._jumps.append((len(self._code), place))
        self._add(0x1D, one, other)

    def ifDiffer(self, one: int, other: int, place: str) -> None:
        """Go there, if two registers are not equal."""
        self._jumps.append((len(self._code), place))
        self._add(0x5D, one, other)

    def label(self, place: str) -> None:
        """Jumps lead to what comes next."""
        self._labels[place] = len(self._code)

    def end(self) -> None:
        """Return R0."""
        self._add(0x95)

    def assembled(self) -> bytes:
        """The program, for a little-endian machine."""
        code = list(self._code)
        for at, place in self._jumps:
            operation, to, source, _, value = code[at]
            code[at] = (operation, to, source, self._labels[place] - at - 1, value)
        return b"".join(_encoded(*each) for each in code)


def _encoded(code: int, to: int, source: int, offset: int, value: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)
