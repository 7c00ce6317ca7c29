"""
A socket object around a descriptor that stays its owner's.

Knows nothing of what it is for.
"""

from __future__ import annotations

import socket


class borrowed:
    """A socket object around a descriptor that stays its owner's, with its flags untouched."""

    def __init__(self, descriptor: int) -> None:
        # With a default timeout it would be made non-blocking, for the container, too.
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(None)
        try:
            self.socket = socket.socket(fileno=descriptor)
        finally:
            socket.setdefaulttimeout(before)

    def __enter__(self) -> borrowed:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.detach()
