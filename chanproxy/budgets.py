"""
Budgets: how much of a processor somebody may take, so many seconds at once and a share of all that
pass.

Numbers in, numbers out; knows no clock.
"""

from __future__ import annotations

from attrs import define, field


@define
class Budget:
    """
    Seconds of a processor, as they come again.

    @ivar share: of all that pass.
    @ivar burst: that may be taken before that is looked at.
    """

    share: float
    burst: float
    # When all that was taken is paid for, had nothing been there to begin with.
    _paid: float = field(default=0.0, init=False)

    def charge(self, now: float, seconds: float) -> None:
        """So many were taken."""
        self._paid = max(self._paid, now) + seconds / self.share

    def owes(self, now: float) -> float:
        """Seconds until more may be taken."""
        owed = self._paid - now - self.burst / self.share
        # Less is lost in rounding, and would be waited for again and again.
        return owed if owed > 1e-6 else 0.0
