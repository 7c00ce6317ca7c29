"""
Pairing: whether two channels can be connected as they are.

Knows channels by their interface.
"""

from __future__ import annotations

from chanproxy.interfaces import (
    IChannel,
)


class CannotPair(Exception):
    """Two channels cannot be connected as they are; the text says why, and what could be done."""


def whyNotPaired(
    container: IChannel, remote: IChannel, refuseDescriptors: bool = False
) -> str | None:
    """
    Whether one end can carry what the other brings.

    @param refuseDescriptors: it is meant that a message with descriptors ends the connection, where
        only one end carries them.
    @return: what is wrong and what could be done, or L{None}.
    """
    if container.family != remote.family:
        return "only one end keeps message boundaries; give two ends of the same kind"
    if container.carriesDescriptors != remote.carriesDescriptors and not refuseDescriptors:
        return "only one end can carry descriptors; give two ends that can, or two that cannot"
    return None
