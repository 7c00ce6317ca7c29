"""
LocatedFreezer: freezes the cgroup that a locator finds, wherever that is at the time.

Knows locators by their interface, and nothing of runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from zope.interface import implementer

from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.freezers.files import Breadth
from chanproxy.freezers.runtimes.placed import Placed
from chanproxy.interfaces import (
    ChanproxyReactor,
    FreezerError,
    FreezerNotReady,
    IExclusiveFreezer,
    ILocatedFreezer,
    ISlicedFreezer,
    IThawedByDescriptor,
)
from chanproxy.interfaces.locators import IFollower, ILocator, Location

HOLDS = 0.5
"""
Seconds that it is not frozen after somebody was about to do something with it: a runtime takes 20
to 200 ms until what it starts is to be seen in the container.  Later it comes into what is frozen,
which is seen, too.
"""


@implementer(IExclusiveFreezer, ISlicedFreezer, IThawedByDescriptor, ILocatedFreezer, IFollower)
class LocatedFreezer:
    """
    One container, by its name.

    It is followed from L{claim} or L{whenReady} on, until L{release}.  What is frozen is never left
    so: if the container is somewhere else by now, its old cgroup is thawed all the same.

    @ivar spec: the locator's.
    @ivar mayWait: likewise.
    """

    def __init__(
        self, locator: ILocator, reactor: ChanproxyReactor, breadth: Breadth | None = None
    ) -> None:
        self.spec: str = locator.spec
        self.mayWait: bool = locator.mayWait
        self._locator = locator
        self._reactor = reactor
        self._follows = False
        self._placed = Placed(self.spec, reactor, breadth)
        # Whether it is frozen, or about to be.
        self._stopped = False
        self._waits: list[Deferred[None]] = []
        self._ready: Deferred[None] | None = None
        self._disturbed: Deferred[str] | None = None
        self._held = ""
        self._holding: IDelayedCall | None = None
        self._stays: Callable[[], bool] = lambda: False

    @property
    def _inner(self) -> CgroupFreezer | None:
        return self._placed.freezer

    # What the locator says.

    def moved(self, location: Location) -> None:
        """See L{IFollower.moved}."""
        self._placed.location = location
        if not self._stopped:
            self._placed.settle()
            self._wait()

    def expected(self, what: str) -> None:
        """See L{IFollower.expected}: it runs now, and is let run for a while."""
        if not self._follows or self._stays():
            return
        if self._holding is not None:
            self._holding.cancel()
        self._held = what
        self._holding = self._reactor.callLater(HOLDS, self._letGo)
        disturbed, self._disturbed = self._disturbed, None
        if self._stopped and self._inner is not None:
            # First: whoever comes looks soon whether it is frozen.
            self._stopped = False
            self._inner.thaw().addErrback(lambda _: None)
        if disturbed is not None:
            disturbed.callback(what)

    def _letGo(self) -> None:
        self._holding, self._held = None, ""
        self._wait()

    def _follow(self) -> None:
        if not self._follows:
            self._follows = True
            self._locator.follow(self)

    def find(self) -> None:
        """
        Look where it is now, and wait for that.

        @raise FreezerError: it is not known where it is.
        """
        self.moved(self._locator.locate())

    # IFreezer

    def check(self) -> None:
        """See L{IFreezer.check}."""
        self._locator.check()

    def whenReady(self) -> Deferred[None]:
        """See L{IFreezer.whenReady}: also until it is found, and nobody is about to use it."""
        self._follow()
        waits: Deferred[None] = Deferred(self._waits.remove)
        self._waits.append(waits)
        self._wait()
        return waits

    def _wait(self) -> None:
        """Wait for the cgroup, if somebody waits for us."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.cancel()
        if not self._waits or self._inner is None or self._held:
            return
        self._ready = ready = self._inner.whenReady()
        ready.addBoth(self._isReady, ready)

    def _isReady(self, result: object, ready: Deferred[None]) -> None:
        if self._ready is not ready:
            # It was cancelled.
            return
        self._ready = None
        waits, self._waits = self._waits, []
        for each in waits:
            each.callback(result)  # type: ignore[arg-type]  # None, or why it never will

    def freeze(self) -> Deferred[None]:
        """See L{IFreezer.freeze}."""
        if self._held:
            return fail(FreezerNotReady(f"{self.spec}: busy: {self._held}"))
        self._placed.settle()
        if self._inner is None:
            return fail(self._placed.nowhere())
        self._stopped = True
        return self._inner.freeze().addErrback(self._notFrozen)

    def _notFrozen(self, failure: Failure) -> Failure:
        # In between somebody has come.
        if self._held and failure.check(FreezerError):
            return Failure(FreezerNotReady(f"{self.spec}: busy: {self._held}"))
        return failure

    def thaw(self) -> Deferred[None]:
        """See L{IFreezer.thaw}."""
        self._stopped = False
        disturbed, self._disturbed = self._disturbed, None
        done = succeed(None) if self._inner is None else self._inner.thaw()
        if disturbed is not None:
            disturbed.cancel()
        self._placed.settle()
        return done

    def thawNow(self) -> None:
        """See L{IFreezer.thawNow}."""
        if not self._follows:
            self.find()
        if self._inner is not None:
            self._inner.thawNow()

    def whenDisturbed(self) -> Deferred[str]:
        """See L{IFreezer.whenDisturbed}."""
        if self._inner is None:
            return succeed("is not there")
        within = self._inner.whenDisturbed()
        disturbed: Deferred[str] = Deferred(lambda _: within.cancel())
        self._disturbed = disturbed

        def said(reason: str) -> None:
            if self._disturbed is disturbed:
                self._disturbed = None
                disturbed.callback(reason)

        def failed(failure: Failure) -> None:
            if self._disturbed is disturbed:
                self._disturbed = None
                disturbed.errback(failure)

        within.addCallbacks(said, failed)
        return disturbed

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        """See L{IFreezer.watchStirs}."""
        self._placed.watchStirs(stirred)

    def unfrozenTasks(self) -> Sequence[str]:
        """See L{IFreezer.unfrozenTasks}."""
        return [] if self._inner is None else self._inner.unfrozenTasks()

    def processes(self) -> Sequence[int]:
        """See L{IFreezer.processes}."""
        return [] if self._inner is None else self._inner.processes()

    def listing(self) -> Generator[None, None, Sequence[int]]:
        """See L{ISlicedFreezer.listing}."""
        if self._inner is None:
            return []
        return (yield from self._inner.listing())

    def hiddenProcesses(self) -> int:
        """See L{IFreezer.hiddenProcesses}."""
        return 0 if self._inner is None else self._inner.hiddenProcesses()

    def cpuTime(self) -> int:
        """See L{IFreezer.cpuTime}."""
        if self._inner is None:
            raise self._placed.nowhere()
        return self._inner.cpuTime()

    # IExclusiveFreezer

    def place(self) -> str:
        """See L{IExclusiveFreezer.place}: its name, for it may be anywhere."""
        return self.spec

    def claim(self) -> None:
        """See L{IExclusiveFreezer.claim}: wherever it is, from now on."""
        self._placed.claim()
        self._follow()

    def release(self) -> None:
        """See L{IExclusiveFreezer.release}."""
        if self._follows:
            self._follows = False
            self._locator.leave()
        if self._holding is not None:
            self._holding.cancel()
            self._holding, self._held = None, ""
        self._placed.release()

    def thawLeft(self) -> bool:
        """See L{IExclusiveFreezer.thawLeft}; what is found later is looked at then."""
        return self._inner is not None and self._inner.thawLeft()

    def paused(self) -> bool:
        """See L{IExclusiveFreezer.paused}."""
        return self._inner is not None and self._inner.paused()

    # ILocatedFreezer

    def watchdog(self) -> float:
        """See L{ILocatedFreezer.watchdog}."""
        return self._placed.location.watchdog

    def letBe(self, stays: Callable[[], bool]) -> None:
        """See L{ILocatedFreezer.letBe}."""
        self._stays = stays

    # IThawedByDescriptor

    def tellFreezes(self, told: Callable[[int | None], None] | None) -> None:
        """See L{IThawedByDescriptor.tellFreezes}."""
        self._placed.tellFreezes(told)

    def thawedFor(self, why: str) -> None:
        """See L{IThawedByDescriptor.thawedFor}: somebody is about to do something with it."""
        if self._inner is not None:
            # What they do to it by now is theirs, and not undone by a thaw.
            self._inner.thawedFor(why)
        self.expected(why)
