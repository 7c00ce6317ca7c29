"""
Ownership: that nobody but us freezes a container, as far as its freezer can see to that.

Knows nothing of when it is frozen.
"""

from __future__ import annotations

from twisted.logger import Logger

from chanproxy.interfaces import FreezerError, IExclusiveFreezer, IFreezer


class Ownership:
    """Of one container; of none where the freezer knows no others."""

    _log = Logger()

    def __init__(self, name: str, freezer: IFreezer) -> None:
        self._name = name
        self._exclusive: IExclusiveFreezer | None = IExclusiveFreezer(freezer, None)

    def take(self, stops: bool) -> None:
        """
        Keep others from freezing it, and thaw what one of us has left frozen, though no record
        names it.  What others have paused stays so.

        @param stops: it is frozen by us; else others may go on to do that.
        @raise FreezerError: it is in other hands.
        """
        if self._exclusive is None:
            return
        try:
            self._exclusive.claim()
        except FreezerError:
            if stops:
                raise
            return
        self._thawLeft(self._exclusive)
        if not stops:
            self.release()

    def _thawLeft(self, exclusive: IExclusiveFreezer) -> None:
        try:
            if exclusive.thawLeft():
                self._log.warn(
                    "{name}: left frozen by a chanproxy that died, and no record named it; thawed",
                    name=self._name,
                )
            elif exclusive.paused():
                self._log.warn("{name}: paused by somebody else, and left so", name=self._name)
        except FreezerError as error:
            self._log.error("{name}: left frozen: {error}", name=self._name, error=error)

    def release(self) -> None:
        """Others may freeze it.  Idempotent."""
        if self._exclusive is not None:
            self._exclusive.release()

    @property
    def paused(self) -> bool:
        """Whether somebody else has frozen it."""
        return self._exclusive is not None and self._exclusive.paused()
