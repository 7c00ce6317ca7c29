"""
Departures: what is given to a transport, as much as fits there.

Knows the transport as something to write to; knows nothing of what comes from there.
"""

from __future__ import annotations

import os
from typing import Any

from chanproxy.interfaces import Batch, ChannelBroken
from chanproxy.kernel.foreign import closeForeign

_PIECE = 65536
"""C{twisted.internet.abstract.FileDescriptor.bufferSize}: from there on a transport is full."""


class Departures:
    """
    One transport's.

    @ivar full: it has enough for now.
    @ivar lent: duplicates that it has not sent yet, or not said so; owned here.
    """

    __slots__ = ("_carriesDescriptors", "_most", "_over", "_transport", "full", "lent")

    def __init__(self, transport: Any, most: int, carriesDescriptors: bool) -> None:
        """
        @param most: bytes that are given to it at once.
        @param carriesDescriptors: it does.
        """
        self._transport = transport
        self._most = most
        self._carriesDescriptors = carriesDescriptors
        self._over = False
        self.full = False
        self.lent: list[int] = []

    def send(self, batch: Batch) -> int:
        """
        Give it the head of a batch.

        @return: how many bytes it has accepted.
        @raise ChannelBroken: the descriptors can never be sent.
        """
        if not self._carriesDescriptors and batch.descriptorsIn(len(batch)):
            raise ChannelBroken("descriptors came, and this kind of connection carries none")
        sent = 0
        for data, descriptors in batch.messages():
            if sent and descriptors:
                # They take what is sent next: so all before them has to be gone.
                break
            if descriptors and not self._sendDescriptors(len(data), descriptors):
                break
            written = self._write(data, self._most - sent)
            sent += written
            if written < len(data):
                break
        if self._carriesDescriptors and sent:
            self.full = True
        return sent

    def _write(self, data: memoryview, most: int) -> int:
        written = 0
        while not self.full and not self._over and written < min(len(data), most):
            piece = bytes(data[written : written + min(_PIECE, most - written)])
            # Before, so that a transport that is full at once can say so.
            written += len(piece)
            self._transport.write(piece)
        return written

    def _sendDescriptors(self, size: int, descriptors: list[int]) -> bool:
        if self.full:
            return False
        if len(descriptors) > size:
            raise ChannelBroken(
                f"{len(descriptors)} descriptors came with {size} bytes; Twisted's transport needs "
                "a byte for each"
            )
        for fd in descriptors:
            # The transport sends it later, and does not say when.
            self.lent.append(os.dup(fd))
            self._transport.sendFileDescriptor(self.lent[-1])
        return True

    def left(self) -> None:
        """It has sent what it had."""
        self.full = False
        self._giveBack()

    def lost(self) -> None:
        """It sends nothing any more."""
        self._over = True
        self._giveBack()

    def _giveBack(self) -> None:
        lent, self.lent = self.lent, []
        closeForeign(lent)
