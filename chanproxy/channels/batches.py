"""
Bytes in memory as a batch: of channels that have no kernel queue to peek into.

Knows nothing of where they are from.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field


@define(eq=False)
class PieceBatch:
    """
    Bytes in memory, in pieces; each with the descriptors of its first byte.

    @ivar pieces: the descriptors are their owner's, as long as it has the bytes.
    """

    pieces: list[tuple[memoryview, list[int]]] = field(factory=list)
    ended: bool = False
    more: bool = False

    family = "bytes"

    def __len__(self) -> int:
        return sum(len(data) for data, _ in self.pieces)

    def messagesIn(self, units: int) -> int:
        """Without a framing, one accepted run of bytes is a message."""
        return 1 if units else 0

    def descriptorsIn(self, units: int) -> int:
        """How many descriptors went with so many bytes."""
        count = 0
        for data, descriptors in self.pieces:
            if units <= 0:
                break
            count += len(descriptors)
            units -= len(data)
        return count

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """Each piece with its descriptors."""
        yield from self.pieces

    def close(self) -> None:
        """Nothing was duplicated."""
