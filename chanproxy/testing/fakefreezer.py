"""
For tests: a freezer that stops nothing and does what the test says.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from chanproxy.interfaces import FreezeInterrupted, FreezerError, FreezerNotReady, IFreezer


@implementer(IFreezer)
class FakeFreezer:
    """
    A freezer under the test's control, without a reactor.

    @ivar ready: whether the container has a process; change it with L{becomeReady} to fire
        C{whenReady}.
    @ivar frozen: whether everything is stopped.
    @ivar calls: the names of the methods that were called, in order.
    @ivar manual: C{freeze} waits for L{finishFreeze} or L{failFreeze}.
    @ivar thawError: when set, C{thaw} and C{thawNow} fail with it and change nothing.
    @ivar checkError: when set, C{check} raises it.
    @ivar tasks: what C{unfrozenTasks} says while not frozen.
    @ivar processList: what C{processes} says.
    @ivar hidden: what C{hiddenProcesses} says.
    @ivar cpu: what C{cpuTime} says, microseconds.
    """

    def __init__(self, spec: str = "fake", ready: bool = True, manual: bool = False) -> None:
        self.spec = spec
        self.ready = ready
        self.manual = manual
        self.frozen = False
        self.calls: list[str] = []
        self.thawError: FreezerError | None = None
        self.checkError: FreezerError | None = None
        self.tasks: list[str] = []
        self.processList: list[int] = []
        self.hidden = 0
        self.cpu = 0
        self._pending: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        self._disturbed: list[Deferred[str]] = []
        self._stirred: Callable[[], None] | None = None

    @property
    def freezing(self) -> bool:
        """Whether a freeze is pending."""
        return self._pending is not None

    def becomeReady(self) -> None:
        """The container gets its first process."""
        self.ready = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def finishFreeze(self) -> None:
        """The pending freeze is complete."""
        self.frozen = True
        self._takePending().callback(None)

    def failFreeze(self, reason: str) -> None:
        """The pending freeze fails."""
        self._takePending().errback(FreezerError(reason))

    def disturb(self, reason: str) -> None:
        """The container stops being frozen, for a reason from outside."""
        self.frozen = False
        disturbed, self._disturbed = self._disturbed, []
        for each in disturbed:
            each.callback(reason)

    def moveIn(self, pid: int) -> None:
        """A process comes in."""
        self.processList.append(pid)
        if self.frozen and self._stirred is not None:
            self._stirred()

    def _takePending(self) -> Deferred[None]:
        pending, self._pending = self._pending, None
        if pending is None:
            raise AssertionError("no freeze is pending")
        return pending

    def check(self) -> None:
        """See L{IFreezer.check}."""
        self.calls.append("check")
        if self.checkError is not None:
            raise self.checkError

    def whenReady(self) -> Deferred[None]:
        """See L{IFreezer.whenReady}."""
        self.calls.append("whenReady")
        if self.ready:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def freeze(self) -> Deferred[None]:
        """See L{IFreezer.freeze}."""
        self.calls.append("freeze")
        if self._pending is not None:
            return fail(FreezerError(f"{self.spec}: a freeze is pending already"))
        if not self.ready:
            return fail(FreezerNotReady(f"{self.spec}: no process is in it"))
        pending: Deferred[None] = Deferred(self._freezeCancelled)
        self._pending = pending
        if not self.manual:
            self.finishFreeze()
        return pending

    def _freezeCancelled(self, _: Deferred[None]) -> None:
        self._pending = None

    def thaw(self) -> Deferred[None]:
        """See L{IFreezer.thaw}."""
        self.calls.append("thaw")
        if self.thawError is not None:
            return fail(self.thawError)
        self.frozen = False
        disturbed, self._disturbed = self._disturbed, []
        if self._pending is not None:
            self._takePending().errback(FreezeInterrupted(f"{self.spec}: thawed before frozen"))
        for each in disturbed:
            each.cancel()
        return succeed(None)

    def thawNow(self) -> None:
        """See L{IFreezer.thawNow}."""
        self.calls.append("thawNow")
        if self.thawError is not None:
            raise self.thawError
        self.frozen = False

    def whenDisturbed(self) -> Deferred[str]:
        """See L{IFreezer.whenDisturbed}."""
        self.calls.append("whenDisturbed")
        if not self.frozen:
            return fail(FreezerNotReady(f"{self.spec}: is not frozen"))
        waiting: Deferred[str] = Deferred(self._forgetDisturbed)
        self._disturbed.append(waiting)
        return waiting

    def _forgetDisturbed(self, waiting: Deferred[str]) -> None:
        if waiting in self._disturbed:
            self._disturbed.remove(waiting)

    def watchStirs(self, stirred: Callable[[], None] | None) -> None:
        """See L{IFreezer.watchStirs}."""
        self._stirred = stirred

    def unfrozenTasks(self) -> list[str]:
        """See L{IFreezer.unfrozenTasks}."""
        return [] if self.frozen else list(self.tasks)

    def processes(self) -> list[int]:
        """See L{IFreezer.processes}."""
        return list(self.processList)

    def hiddenProcesses(self) -> int:
        """See L{IFreezer.hiddenProcesses}."""
        return self.hidden

    def cpuTime(self) -> int:
        """See L{IFreezer.cpuTime}."""
        return self.cpu
