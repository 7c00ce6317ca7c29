"""
Freezers: what really stops and starts a container, made from a configuration string.

Each kind is a module of its own.  Must not know what is idle, what waits, and why it is to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.freezers.dry import DryRunFreezer as DryRunFreezer
    from chanproxy.freezers.files import Breadth as Breadth
    from chanproxy.freezers.making import checkedSpec as checkedSpec
    from chanproxy.freezers.making import isOurs as isOurs
    from chanproxy.freezers.making import makeFreezer as makeFreezer
    from chanproxy.freezers.making import stops as stops
    from chanproxy.freezers.null import NullFreezer as NullFreezer
else:
    # What commands do with a cgroup needs no reactor, and they are to stay small.
    __getattr__ = lazily(
        __name__,
        **dict.fromkeys(("checkedSpec", "isOurs", "makeFreezer", "stops"), "making"),
        Breadth="files",
        DryRunFreezer="dry",
        NullFreezer="null",
    )

__all__ = [
    "Breadth",
    "DryRunFreezer",
    "NullFreezer",
    "checkedSpec",
    "isOurs",
    "makeFreezer",
    "stops",
]
