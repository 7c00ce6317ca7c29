"""
The reactors that are needed: Twisted's, with what of them is used.
"""

from __future__ import annotations

from typing import TypeAlias, cast

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorTime,
)


class PollingReactor(IReactorFDSet, IReactorTime):
    """A reactor's descriptors and time: what most parts need of it."""


class ChanproxyReactor(IReactorCore, PollingReactor):
    """What chanproxy as a whole asks of a reactor: descriptors, time, start and stop."""


AnyReactor: TypeAlias = "IReactorCore | IReactorTime | IReactorFDSet"
"""
A reactor in a program's own types, C{from twisted.internet import reactor} as well: it provides all
that is needed, and no type of Twisted's says so.
"""


def expectReactor(given: AnyReactor) -> ChanproxyReactor:
    """
    A reactor of whatever type, as the one that it is.

    @raise TypeError: it has no descriptors, or no time, as a C{Clock} of a test has none.
    """
    lacking = [
        each.__name__ for each in (IReactorTime, IReactorFDSet) if not each.providedBy(given)
    ]
    if lacking:
        raise TypeError(
            f"{type(given).__name__} is no reactor that chanproxy can use: it does not provide "
            f"{' and '.join(lacking)}; give it one of Twisted's, or in a test "
            "chanproxy.testing.reactor.FakeReactor"
        )
    return cast(ChanproxyReactor, given)
