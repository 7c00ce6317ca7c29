"""
Adopting: wake sources found in a frozen container, not given.

While a container is frozen nothing in it changes, so what each of its threads waits for can be read
off exactly, and the descriptors among that can be duplicated and polled.  A thread that waits for
nothing was working, and its container is thawed.

Must not know how a container is frozen, nor when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chanproxy import lazily

if TYPE_CHECKING:
    from chanproxy.adopt.settings import Adoption as Adoption
else:
    __getattr__ = lazily(__name__, Adoption="settings")

__all__ = ["Adoption"]
