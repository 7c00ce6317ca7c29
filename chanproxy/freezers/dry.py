"""
DryRunFreezer: a freezer that stops nothing, in place of one that would.

For trying a configuration: everything else goes on as if it froze.  Knows nothing of what kind the
real freezer is.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from chanproxy.freezers.null import NullFreezer
from chanproxy.interfaces import FreezerNotReady, IExclusiveFreezer, IFreezer


@implementer(IFreezer)
class DryRunFreezer(NullFreezer):
    """
    Says what the real freezer says, and never stops anything.

    Its C{spec} is that of L{NullFreezer}, so that nothing is ever recorded as frozen.
    """

    def __init__(self, real: IFreezer) -> None:
        super().__init__()
        self._real = real

    def check(self) -> None:
        """Whether the real one could work."""
        self._real.check()

    def whenReady(self) -> Deferred[None]:
        """Whether the real one would have something to freeze."""
        return self._real.whenReady()

    def freeze(self) -> Deferred[None]:
        """
        Fires at once; fails with L{FreezerNotReady} where the real one would.

        Not by L{IFreezer.processes}: processes of another pid namespace are missing there, and are
        frozen all the same.
        """
        ready = self.whenReady()
        if ready.called:
            return ready
        # Nobody waits for it, so its cancellation is no failure.
        ready.addErrback(lambda _: None)
        ready.cancel()
        exclusive: IExclusiveFreezer | None = IExclusiveFreezer(self._real, None)
        paused = exclusive is not None and exclusive.paused()
        why = "paused by somebody else" if paused else "no process is in it"
        return fail(FreezerNotReady(f"{self._real.spec}: {why}"))
