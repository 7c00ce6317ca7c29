"""
The reactors that are needed: Twisted's, with what of them is used.
"""

from __future__ import annotations

from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorTime,
)


class PollingReactor(IReactorFDSet, IReactorTime):
    """A reactor's descriptors and time: what most parts need of it."""


class ChanproxyReactor(IReactorCore, PollingReactor):
    """What chanproxy as a whole asks of a reactor: descriptors, time, start and stop."""
