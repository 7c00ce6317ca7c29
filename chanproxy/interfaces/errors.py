"""
What can go wrong with a freezer.

Without Twisted, for commands that have no reactor.
"""

from __future__ import annotations


class FreezerError(Exception):
    """A freezer cannot do its work; the text says why and what to do."""


class FreezerNotReady(FreezerError):
    """The container does not exist, or has no process."""


class FreezeInterrupted(FreezerError):
    """L{IFreezer.thaw} was called before the freeze was complete."""
