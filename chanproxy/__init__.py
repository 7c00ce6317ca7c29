"""
chanproxy: freeze idle containers; lose nothing; wake on the first message.

The nouns are in L{chanproxy.interfaces}; L{chanproxy.service} puts them together.
"""

from chanproxy._version import __version__ as _version

__version__: str = _version.public()
__all__ = ["__version__"]
