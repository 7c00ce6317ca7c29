"""
What the operating system is asked for: system calls, descriptors, peers, processes, polling,
closing.

Must not know any noun of ours: no channel, no container, no message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.kernel.keepalive import Keepalive as Keepalive
else:
    __getattr__ = lazily(__name__, Keepalive="keepalive")

__all__ = ["Keepalive"]
