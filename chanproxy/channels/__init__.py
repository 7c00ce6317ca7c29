"""
Message pipes of each kind behind four verbs: peek, send, take, wait.

Must not know counters and addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.channels.transport import MessageProtocol as MessageProtocol
else:
    __getattr__ = lazily(__name__, MessageProtocol="transport")

__all__ = ["MessageProtocol"]
