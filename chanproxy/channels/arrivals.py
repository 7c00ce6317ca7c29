"""
Arrivals: what came by a transport and was not taken yet.

Knows neither the transport nor who takes it.
"""

from __future__ import annotations

from collections import deque

from chanproxy.channels.batches import PieceBatch
from chanproxy.interfaces import ChannelBroken
from chanproxy.kernel.foreign import closeForeign


class Arrivals:
    """
    Bytes in the pieces that they came in, each with the descriptors of its first byte.

    Owns the descriptors.

    @ivar size: how many bytes.
    """

    __slots__ = ("_early", "_offset", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[tuple[bytes, list[int]]] = deque()
        self._early: list[int] = []
        self._offset = 0
        self.size = 0

    def add(self, data: bytes) -> None:
        """Bytes came."""
        descriptors, self._early = self._early, []
        self._pieces.append((data, descriptors))
        self.size += len(data)

    def addDescriptor(self, descriptor: int) -> None:
        """A descriptor came, with the bytes that come next."""
        self._early.append(descriptor)

    def __bool__(self) -> bool:
        """Whether there is anything to peek at."""
        return bool(self._pieces)

    def peek(self, ended: bool) -> PieceBatch:
        """
        All that is there.

        @param ended: nothing will follow.
        """
        if len(self._pieces) > 1:
            self._join()
        pieces = []
        offset = self._offset
        for data, descriptors in self._pieces:
            pieces.append((memoryview(data)[offset:], [] if offset else descriptors))
            offset = 0
        return PieceBatch(pieces, ended and not pieces)

    def _join(self) -> None:
        """One piece of what came in many: each costs a call to send."""
        joined: list[tuple[list[bytes], list[int]]] = []
        first, descriptors = self._pieces[0]
        self._pieces[0] = first[self._offset :], descriptors
        self._offset = 0
        for data, descriptors in self._pieces:
            if descriptors or not joined:
                joined.append(([data], descriptors))
            else:
                joined[-1][0].append(data)
        self._pieces = deque((b"".join(pieces), fds) for pieces, fds in joined)

    def take(self, count: int) -> None:
        """Drop so many bytes from the head, and their descriptors."""
        if count > self.size:
            raise ChannelBroken(f"{count} bytes are to be taken, and there are {self.size}")
        self.size -= count
        while count:
            data, descriptors = self._pieces[0]
            closeForeign(descriptors)
            descriptors.clear()
            left = len(data) - self._offset
            if count < left:
                self._offset += count
                break
            self._pieces.popleft()
            self._offset = 0
            count -= left

    def clear(self) -> None:
        """Drop all."""
        for _, descriptors in self._pieces:
            closeForeign(descriptors)
        closeForeign(self._early)
        self._pieces.clear()
        self._early.clear()
        self.size = 0
