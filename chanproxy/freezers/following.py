"""
Following: what becomes of a freeze, as C{cgroup.events} tells it.

All waiting is by event: the kernel has an EPOLLPRI for each change of that file.  Knows neither how
a freeze is made nor how it is undone.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFDSet

from chanproxy.freezers.files import GONE, Events, Kept
from chanproxy.freezers.marks import unmark
from chanproxy.freezers.writes import writesOf
from chanproxy.interfaces import FreezeInterrupted, FreezerNotReady
from chanproxy.kernel.poller import Poller

_TAKEN = "paused by somebody else"


class Following:
    """
    One freeze after the other of one cgroup, and who waits for what becomes of it.

    @ivar kept: what is frozen, or about to be; None: nothing is.
    @ivar taken: somebody else has frozen it as well, since that.
    @ivar undone: somebody else has thawed it, since that.
    """

    def __init__(self, spec: str, reactor: IReactorFDSet) -> None:
        self._spec = spec
        self._reactor = reactor
        self._watch = 0
        self._poller = Poller(reactor)
        self.kept: Kept | None = None
        self.taken = self.undone = False
        self._pending: Deferred[None] | None = None
        self._disturbed: list[Deferred[str]] = []
        self._stirred: Callable[[], None] | None = None

    @property
    def pending(self) -> bool:
        """Whether a freeze is waited for."""
        return self._pending is not None

    def whenFrozen(self) -> Deferred[None]:
        """
        What is kept was told to freeze: fires when it has.

        @raise OSError: that cannot be seen; nobody waits for it then.
        """
        pending: Deferred[None] = Deferred(self._freezeCancelled)
        self._pending = pending
        try:
            self._changed()
            self._rewatch()
        except OSError:
            self._pending = None
            raise
        return pending

    def _freezeCancelled(self, _: Deferred[None]) -> None:
        self._pending = None
        self._rewatch()

    def whenDisturbed(self) -> Deferred[str]:
        """
        See L{IFreezer.whenDisturbed}.

        @return: fails with L{FreezerNotReady} if nothing is frozen.
        @raise OSError: it cannot be watched.
        """
        if self.kept is None:
            return fail(FreezerNotReady(f"{self._spec}: is not frozen"))
        if self.taken:
            return succeed(_TAKEN)
        waiting: Deferred[str] = Deferred(self._disturbedCancelled)
        self._disturbed.append(waiting)
        try:
            # What has changed before is not read yet, and is told as if it came now.
            self._rewatch()
        except OSError:
            if waiting in self._disturbed:
                self._disturbed.remove(waiting)
            raise
        return waiting

    def _disturbedCancelled(self, waiting: Deferred[str]) -> None:
        if waiting in self._disturbed:
            self._disturbed.remove(waiting)
            self._rewatch()

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        """See L{IFreezer.watchStirs}."""
        self._stirred = stirred
        # Without a descriptor for it nobody is told; what needs one more fails loudly.
        with contextlib.suppress(OSError):
            self._rewatch()

    def _rewatch(self) -> None:
        """Watch C{cgroup.events} exactly while somebody waits for it."""
        if self.kept is None:
            return
        if self._pending is None and not self._disturbed and self._stirred is None:
            self._poller.unwatch(self.kept.events)
        else:
            # The kernel repeats EPOLLPRI until the change was read: none is lost in between.
            self._poller.watch(self.kept.events, select.EPOLLPRI, self._polled)

    def _polled(self, _: int) -> None:
        freezing = self.pending
        self._changed()
        # Whoever is moved in is not stopped yet, so `frozen` falls, and rises again.
        if not freezing and self.kept is not None and self._stirred is not None:
            self._stirred()

    def _changed(self) -> None:
        """Read the state of the cgroup, and tell those who wait for it."""
        kept = self.kept
        if kept is None:
            return
        events = Events.read(kept.events)
        pending = self._pending
        if pending is not None and (events.frozen or not events.populated):
            self._pending = None
            self._rewatch()
            if events.populated:
                pending.callback(None)
            else:
                pending.errback(FreezerNotReady(f"{self._spec}: its last process ended"))
        elif pending is None and self._disturbed:
            if not events.populated:
                self._disturb("its last process ended")
            elif not events.frozen:
                self.undo("thawed by somebody else")

    def undo(self, why: str) -> None:
        """Whoever waits is told why it is thawed, if it is, and not by us."""
        if self.kept is None or self.kept.wanted():
            return
        self.undone = True
        if not self.givenUp():
            self._disturb(why)

    def watchWrites(self) -> None:
        """What is kept was told to freeze: see whether others tell it so as well."""
        # Without a watch, a pause of what sleeps is not seen, and ends with that.
        with contextlib.suppress(OSError):
            if self.kept is not None:
                watch = writesOf(self._reactor).watch(self.kept.freeze, self._written)
                if watch != self._watch:
                    # Of a cgroup that was made anew.
                    self.forgetWrites()
                    self._watch = watch

    def isTaken(self) -> bool:
        """Whether somebody else has frozen it as well, until now."""
        # What comes at the same time as the reason of a thaw may not be read yet.
        if self._watch and not self.taken:
            writesOf(self._reactor).look()
        return self.taken

    def thawOurs(self) -> bool:
        """
        Thaw what is kept.

        @return: whether it was ours to thaw: or it is gone, or somebody else has frozen it as well,
            and it is theirs.
        @raise OSError: it cannot be written to.
        """
        if self.kept is None or self.isTaken():
            return False
        try:
            # Who has thawed it may have a use for it frozen by now.
            if not self.undone:
                os.pwrite(self.kept.freeze, b"0", 0)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False
        return True

    def ignoreWrites(self) -> None:
        """Those from now on are our own, and so are those that are not told of yet."""
        if self._watch and self.kept is not None:
            writesOf(self._reactor).hush(self._watch, self.kept.freeze)

    def forgetWrites(self) -> None:
        """Give the watch back.  Idempotent."""
        watch, self._watch = self._watch, 0
        if watch:
            writesOf(self._reactor).unwatch(watch)

    def _written(self) -> None:
        """Somebody has written to C{cgroup.freeze}; a thaw is told of by C{cgroup.events}."""
        if self.kept is not None and self.kept.wanted():
            self.taken = True
            unmark(self.kept.freeze)
            self._disturb(_TAKEN)

    def _disturb(self, reason: str) -> None:
        disturbed, self._disturbed = self._disturbed, []
        self._rewatch()
        for waiting in disturbed:
            waiting.callback(reason)

    def givenUp(self) -> bool:
        """
        Whether a freeze is waited for that somebody has undone meanwhile; who waited is told.

        The kernel tells of a thaw only if there was a freeze; so whoever asks finds out.
        """
        pending, kept = self._pending, self.kept
        if pending is None or kept is None or kept.wanted():
            return False
        self._pending = None
        self._rewatch()
        pending.errback(FreezeInterrupted(f"{self._spec}: thawed by somebody else meanwhile"))
        return True

    def thawed(self, again: bool) -> None:
        """
        It was thawed by us: nobody has to wait any more.

        @param again: it will be frozen again.
        """
        self.ignoreWrites()
        if not again:
            self.forgetWrites()
        pending, self._pending = self._pending, None
        disturbed, self._disturbed = self._disturbed, []
        self.drop()
        if pending is not None:
            pending.errback(FreezeInterrupted(f"{self._spec}: thawed before it was frozen"))
        for waiting in disturbed:
            waiting.cancel()

    def drop(self) -> None:
        """Give back the descriptors.  Idempotent."""
        kept, self.kept = self.kept, None
        self.taken = self.undone = False
        if kept is not None:
            self._poller.unwatch(kept.events)
            kept.close()
