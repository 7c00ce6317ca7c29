"""
In flight: a container for which somebody waits is not to be frozen.

Knows connections by what is said of them; knows nothing of freezing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from chanproxy.adopt.connections import Connections, Watched
from chanproxy.adopt.subject import StillBusy

AGAIN = 0.25
"""Seconds after which it is looked again whether the answer has been given."""


def refuseAwaited(
    connections: Connections, watched: Iterable[Watched]
) -> Generator[None, None, None]:
    """
    Look at what processes wait on.

    Gives L{None} where others may have their turn.

    @raise StillBusy: somebody waits; the text says who, and for how long.
    """
    found = yield from connections.look(watched)
    if found is not None:
        raise StillBusy(found.why, min(found.again, AGAIN))
