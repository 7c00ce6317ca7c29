"""The version, kept by incremental: C{python -m incremental.update chanproxy --patch}."""

from incremental import Version

__version__ = Version("chanproxy", 0, 1, 0)
__all__ = ["__version__"]
