"""
The manager: what can be asked of a running service by its control socket, and who may.

Must not know how a service starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.manager.client import ManagerClient as ManagerClient
    from chanproxy.manager.errors import VarlinkError as VarlinkError
else:
    __getattr__ = lazily(__name__, ManagerClient="client", VarlinkError="errors")

__all__ = ["ManagerClient", "VarlinkError"]
