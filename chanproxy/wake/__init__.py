"""
What keeps a container awake or wakes it: counters, sources, locks, alarms, and their figures.

Must not know channels and freezers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.wake.counter import MessageCounter as MessageCounter
    from chanproxy.wake.source import WakeSourceError as WakeSourceError
else:
    __getattr__ = lazily(__name__, MessageCounter="counter", WakeSourceError="source")

__all__ = ["MessageCounter", "WakeSourceError"]
