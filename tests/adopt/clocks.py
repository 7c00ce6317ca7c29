"""A clock by which a test can tell the turns of a reactor apart."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock


class OneCallATurn(Clock):
    """Each delayed call is due a second later, so that an advance of one is a turn."""

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        return super().callLater(1, callable, *args, **kw)
