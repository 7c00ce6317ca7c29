"""
Addresses: read, listened at, dialled.

Must not know counters and containers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.endpoints.paths import SeqpacketAddressSpec as SeqpacketAddressSpec
else:
    __getattr__ = lazily(__name__, SeqpacketAddressSpec="paths")

__all__ = ["SeqpacketAddressSpec"]
