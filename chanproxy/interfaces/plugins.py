"""
What goes wrong with what other packages add.
"""

from __future__ import annotations


class PluginError(ValueError):
    """
    A plugin cannot be used; the text names it, and what it lacks or how it failed.

    State afterwards: nothing of it is left.
    """
