"""
Ledger: what the policies of one container share.

A policy knows one counter and, where it has to look, the container's end of one channel.  It knows
nothing of freezers and of the container's life cycle.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, field

SILENCE = 10.0
"""Seconds of silence after which the policy C{idle} takes messages as handled, by default."""


LEAST_LINGER = 0.1
"""
Seconds that something counts at least, where nothing shows when it is handled: a freeze that has
begun has to see it.
"""


class Settling(Protocol):
    """Something that finds out only by looking what has been handled."""

    def settle(self) -> None:
        """Look, and take off what has been handled.  Cheap."""

    def arm(self) -> None:
        """From now on look by yourself, whenever the container reads; until all is handled."""


@define
class Ledger:
    """
    What the policies of one container share.

    @ivar activity: grows with whatever was counted; equal at two instants: nothing came between.
    @ivar unsettled: who has counted something that nobody has been seen to handle.
    """

    activity: int = 0
    unsettled: set[Settling] = field(factory=set)
