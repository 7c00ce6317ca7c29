"""
Carries messages from one channel to another, counts them in, and knows by a policy when they are
handled.

Must not know kinds of sockets and freezers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.carry.ledger import Ledger as Ledger
    from chanproxy.carry.policies import Channel as Channel
else:
    __getattr__ = lazily(__name__, Channel="policies", Ledger="ledger")

__all__ = ["Channel", "Ledger"]
