"""
Thawing by a specification alone: at a start, and without any service.
"""

from __future__ import annotations

from typing import cast

from chanproxy.freezers import makeFreezer
from chanproxy.interfaces import ChanproxyReactor


def thawNow(spec: str, reactor: ChanproxyReactor | None = None) -> None:
    """
    Thaw by specification.

    @param reactor: nothing waits here, but making a freezer takes one; without it the global one.
    @raise FreezerError: it did not work.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast(ChanproxyReactor, installed)
    makeFreezer(spec, reactor).thawNow()
