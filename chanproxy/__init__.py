"""
chanproxy: freeze idle containers; lose nothing; wake on the first message.

The nouns are in L{chanproxy.interfaces}; L{chanproxy.service.service} puts them together.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    # Only when asked for: chanproxy.guest has to do with the standard library alone.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from chanproxy._version import __version__ as version

    return version.public()
