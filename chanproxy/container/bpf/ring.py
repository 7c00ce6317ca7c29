"""
What a C{BPF_MAP_TYPE_RINGBUF} holds, read where the kernel has written it.

The layout is that of C{kernel/bpf/ringbuf.c}: a page with the consumer's position, one with the
producer's, and the data, mapped twice in a row, so that no record is ever in two parts.
"""

from __future__ import annotations

import mmap
import os
import platform
from collections.abc import Callable, Iterator

_BUSY, _DISCARD = 1 << 31, 1 << 30
"""C{linux/bpf.h}: flags in the length of a record."""

_HEADER = 8
"""Bytes before each record: its length and flags, and what is the kernel's own."""


def _inOrder() -> None:
    """Whatever is read from here on is read after what was read before."""


fence: Callable[[], None] = os.sched_yield if platform.machine() == "aarch64" else _inOrder
"""
Python has no barriers.  x86 needs none: it does not reorder loads.  On arm64 each run of the
scheduler is a full barrier (C{smp_mb__after_spinlock} in C{__schedule}); it is rare enough here.
"""


class Ring:
    """
    The records of one ring, for its only reader.

    @ivar size: bytes of data.
    """

    def __init__(self, consumer: memoryview, producer: memoryview, data: memoryview) -> None:
        """
        @param consumer: the position up to which it is read; 8 bytes that can be written.
        @param producer: the position up to which it is filled; 8 bytes.
        @param data: all of it, twice in a row.
        """
        # As whole words: each is read and written at once, never in halves.
        self._consumer = consumer.cast("B").cast("Q")
        self._producer = producer.cast("B").cast("Q")
        self._words = data.cast("B").cast("I")
        self._data = data
        self.size = len(data) // 2

    def __len__(self) -> int:
        """Bytes that are not read yet."""
        return self._producer[0] - self._consumer[0]

    def read(self, most: int) -> Iterator[bytes]:
        """The next records, at most so many; what has been returned is not kept any longer."""
        position, end = self._consumer[0], self._producer[0]
        fence()
        while most > 0 and position < end:
            at = position & (self.size - 1)
            length = self._words[at // 4]
            if length & _BUSY:
                # Another processor is about to finish it, and that is an event of its own.
                return
            fence()
            discarded, length = length & _DISCARD, length & ~_DISCARD
            record = bytes(self._data[at + _HEADER : at + _HEADER + length])
            position += (_HEADER + length + 7) & -8
            # From here on the kernel may write there.  A store is never ahead of loads whose
            # values have been decided upon, as the length's is.
            self._consumer[0] = position
            if not discarded:
                most -= 1
                yield record

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        for view in (self._consumer, self._producer, self._words, self._data):
            view.release()


class MappedRing(Ring):
    """A ring of the kernel's."""

    def __init__(self, fd: int, size: int) -> None:
        """
        @param fd: of the map; stays the caller's.
        @param size: bytes of data, as the map was made with.
        @raise OSError: it cannot be mapped.
        """
        # Each mapping keeps a descriptor of its own, until it is closed.
        page = mmap.PAGESIZE
        self._maps = [mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)]
        try:
            # The kernel lets nobody write here.
            length = page + 2 * size
            rest = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError:
            self._maps[0].close()
            raise
        self._maps.append(rest)
        with memoryview(self._maps[0]) as mine, memoryview(rest) as others:
            super().__init__(mine[:8], others[:8], others[page:])

    def close(self) -> None:
        """Unmap it.  Idempotent."""
        self.release()
        for each in self._maps:
            each.close()
