"""
What one peek saw, and the memory that all peeks share.

Knows nothing of sockets: it holds bytes and descriptors.
"""

from __future__ import annotations

from attrs import define, field

from chanproxy import _syscalls

MESSAGE_BYTES = 212992
"""C{net.core.wmem_default}: what a socket that nobody tuned can have in flight."""


class PeekBuffer:
    """
    The bounce buffer that the channels of one reactor share.

    It is used between a peek and the send that follows at once, so one serves all.

    @ivar messageBytes: the largest message carried, in bytes.
    @ivar messageDescriptors: the most descriptors on one message.
    """

    def __init__(
        self,
        messageBytes: int = MESSAGE_BYTES,
        messageDescriptors: int = _syscalls.SCM_MAX_FD,
    ) -> None:
        self.messageBytes = messageBytes
        self.messageDescriptors = messageDescriptors
        self.memory = memoryview(bytearray(min(65536, messageBytes)))

    def grow(self, size: int) -> None:
        """Make room for a message of C{size} bytes; views handed out before stay as they are."""
        self.memory = memoryview(bytearray(size))


@define(eq=False)
class PacketBatch:
    """
    At most one packet, still in its source's queue, and duplicates of its descriptors.

    @ivar data: a view of the shared buffer, valid until the next peek through it.
    """

    data: memoryview = field(factory=lambda: memoryview(b""))
    descriptors: list[int] = field(factory=list)
    count: int = 0
    ended: bool = False

    def __len__(self) -> int:
        return self.count

    def close(self) -> None:
        """Close the duplicates."""
        descriptors, self.descriptors = self.descriptors, []
        _syscalls.closeAll(descriptors)
