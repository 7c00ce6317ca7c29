"""
Arrays of C{struct mmsghdr} and C{struct iovec}, built once and used for each call.

Lengths are read and copied many at a time, by strided slices over 64-bit words, so that a packet
costs no Python of its own.  Knows neither sockets nor what the arrays are for.
"""

from __future__ import annotations

import ctypes
import sys

if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
    raise ImportError("chanproxy needs a 64-bit little-endian machine: its headers are laid out so")

HEADER_BYTES = 64
"""C{struct mmsghdr}, C{sendmmsg(2)}: on 64 bits, eight words."""

IOVEC_BYTES = 16
"""C{struct iovec}: two words, the address and the length."""

# Words of a header.  Lengths of 32 bits lie in the lower half of theirs; the kernel leaves the
# padding in the upper half alone, and it is 0 from the start.
_IOVEC, _IOVECS, _CONTROL, _CONTROL_LENGTH, _FLAGS, _LENGTH = 2, 3, 4, 5, 6, 7
_WORDS = 8

UNSET = 0xFFFFFFFF
"""A length that no call stores: 4 GiB less one byte is more than a socket can have in flight."""


def addressOf(memory: memoryview) -> int:
    """Where writable memory lies; it must not be given back while the address is used."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Headers:
    """
    Headers, each with one iovec of its own, in memory that is given.

    @ivar address: of the first header; C{pointer}: the same, as calls take it.
    @ivar lengths: of the messages, as the kernel stores them (C{msg_len}).
    @ivar sizes: of the iovecs, as the kernel reads them (C{iov_len}).
    @ivar controls: the lengths of the control messages, as the kernel reads and stores them.
    @ivar flags: as the kernel stores them.
    """

    __slots__ = (
        *("_iovecs", "_words", "address", "controls", "count", "flags", "lengths", "pointer"),
        "sizes",
    )

    def __init__(self, memory: memoryview, count: int) -> None:
        """@param memory: zeroed, L{size} bytes of it are used; it has to outlive this object."""
        self.count = count
        self.address = addressOf(memory)
        self.pointer = ctypes.c_void_p(self.address)
        iovecs = count * HEADER_BYTES
        self._words = memory[:iovecs].cast("Q")
        self._iovecs = memory[iovecs : iovecs + count * IOVEC_BYTES].cast("Q")
        self.lengths = self._words[_LENGTH::_WORDS]
        self.controls = self._words[_CONTROL_LENGTH::_WORDS]
        self.flags = self._words[_FLAGS::_WORDS]
        self.sizes = self._iovecs[1::2]

    @staticmethod
    def size(count: int) -> int:
        """The memory that so many need, in bytes."""
        return count * (HEADER_BYTES + IOVEC_BYTES)

    def at(self, index: int) -> ctypes.c_void_p:
        """The address of a header."""
        return ctypes.c_void_p(self.address + index * HEADER_BYTES) if index else self.pointer

    def link(self, index: int, data: int, control: int = 0) -> None:
        """Say where a message's bytes and its control messages lie."""
        iovec = self.address + self.count * HEADER_BYTES + index * IOVEC_BYTES
        words, first = self._words, index * _WORDS
        words[first + _IOVEC], words[first + _IOVECS] = iovec, 1
        words[first + _CONTROL] = control
        self._iovecs[2 * index] = data

    def trap(self, index: int, data: int) -> None:
        """
        Two iovecs: the bytes, and where nothing can be written.  Takes the next index's iovec.

        Its length, in L{sizes}, is that of the trap.
        """
        self.link(index, data)
        self._words[index * _WORDS + _IOVECS] = 2
        self._iovecs[2 * index + 2] = 0

    def unlink(self, index: int) -> None:
        """No bytes and no control messages: what is received there is dropped by the kernel."""
        words, first = self._words, index * _WORDS
        words[first + _IOVEC] = words[first + _IOVECS] = words[first + _CONTROL] = 0

    def stored(self, count: int) -> list[int]:
        """The lengths that a call stored among the first C{count}, before the first unset one."""
        lengths: list[int] = self.lengths[:count].tolist()
        return lengths[: lengths.index(UNSET)] if UNSET in lengths else lengths
