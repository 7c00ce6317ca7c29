"""
Thawing by a specification alone: at a start, and without any service.
"""

from __future__ import annotations

from chanproxy.freezers import makeFreezer
from chanproxy.interfaces import AnyReactor


def thawNow(spec: str, reactor: AnyReactor | None = None) -> None:
    """
    Thaw by specification.

    @param reactor: nothing waits here, but making a freezer takes one; without it the global one.
    @raise FreezerError: it did not work.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    makeFreezer(spec, reactor).thawNow()
