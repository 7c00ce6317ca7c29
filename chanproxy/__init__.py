"""
chanproxy: freeze idle containers; lose nothing; wake on the first message.

The nouns are in L{chanproxy.interfaces}; L{chanproxy.service.service} puts them together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["__version__"]

__version__: str


def lazily(room: str, **names: str) -> Callable[[str], object]:
    """
    A room's C{__getattr__}: what it offers to other programs, loaded when it is asked for.

    So that whoever uses one module of a room does not load the others.

    @param names: what is offered, and the modules of the room that have it.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f"{room}.{names[name]}"), name)

    return find


def __getattr__(name: str) -> str:
    # Only when asked for: chanproxy.guest has to do with the standard library alone.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chanproxy._version import __version__ as version

    return version.public()
