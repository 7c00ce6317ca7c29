"""
Freezers: what stops and starts a container.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from chanproxy.interfaces.reactors import ChanproxyReactor


class IFreezer(Interface):
    """
    What really stops and starts a container.

    All methods are called from the reactor's thread.  Suspended or not, a freezer never owns the
    decision: it does what it is told, and says what it sees.
    """

    spec = Attribute("The configuration string that makes this freezer again: C{cgroup:/x}.")

    def check() -> None:
        """
        Look whether the freezer could work, without changing anything.

        A container that does not exist yet is no error.

        @raise FreezerError: it never will, as things are: no right, the wrong kind of path, or the
            container holds chanproxy itself.  The text says what to do.
        """

    def whenReady() -> Deferred[None]:
        """
        Wait until the container exists and has at least one process.

        Cancellable.  Fires at once, if it is so already.
        """

    def freeze() -> Deferred[None]:
        """
        Stop every process of the container.

        @return: fires when all are stopped.  Fails with L{FreezerNotReady} when there is nothing to
            freeze, L{FreezeInterrupted} when L{thaw} was called meanwhile, and L{FreezerError} for
            everything else.  After a failure the container may be partly frozen: call L{thaw}.
            Cancelling only gives up the waiting; call L{thaw} then, too.
        """

    def thaw() -> Deferred[None]:
        """
        Start every process again; harmless when none is stopped; allowed while a freeze is pending.

        @return: fires when the container runs; fails with L{FreezerError}.  What is needed for the
            thaw (descriptors) was made ready by L{freeze}.  A container that is gone is thawed.
        """

    def thawNow() -> None:
        """
        Thaw, blocking, without a reactor: for the last moment of a process, and for recovery.

        What somebody else has stopped stays so, where the freezer can tell.

        @raise FreezerError: it did not work; the text says what to do.
        """

    def whenDisturbed() -> Deferred[str]:
        """
        Called while frozen: wait until the container stops being frozen without our L{thaw}:
        somebody else thawed it, or its last process was killed.

        @return: fires with the reason, in words.  Cancellable; L{thaw} cancels it as well
            (L{twisted.internet.defer.CancelledError}).
        """

    def watchStirs(stirred: Callable[[], None] | None) -> None:
        """
        While frozen, call C{stirred} each time that a process may have come into the container.

        That one is frozen as well, and whoever sent it there waits.  A call too many is harmless;
        a freezer that cannot tell never calls.  In force from the next freeze on, or from now on
        if it is frozen, until the next call of this; one at a time.

        @param stirred: must not wait, nor call the freezer; None: nobody is told.
        """

    def unfrozenTasks() -> Sequence[str]:
        """Name the tasks that are not stopped yet, C{name[pid] in function}; for warnings."""

    def processes() -> Sequence[int]:
        """
        The ids of the processes in the container now, as seen in our own pid namespace.

        Those that are not seen from there are missing.  A container that is gone has none.

        @raise FreezerError: they cannot be listed.
        """

    def hiddenProcesses() -> int:
        """
        How many processes of the container L{processes} has left out at the last list.

        @raise FreezerError: they cannot be counted.
        """

    def cpuTime() -> int:
        """
        How much the container has used the processor so far, in microseconds.

        @raise FreezerError: it is not known.
        """


class ISlicedFreezer(IFreezer):
    """A freezer for which to list processes may take long, and that need not do so at once."""

    def listing() -> Generator[None, None, Sequence[int]]:
        """
        As L{IFreezer.processes}, a part at a time.

        @return: gives L{None} where others may have their turn, and returns what was found.
        """


class IExclusiveFreezer(IFreezer):
    """
    A freezer that can tell others of its kind, in any process, that its container is taken; and
    that can tell, of what it finds frozen, whether it was one of its kind that has frozen it.
    """

    def place() -> str:
        """
        What is frozen, as a path: of two freezers with the same, or with one that is below the
        other's, one cannot be frozen without the other.

        @raise FreezerError: there can be none.
        """

    def claim() -> None:
        """
        From now on, until L{release}, nobody else may freeze this container.

        One that does not exist yet is claimed by the freeze.  Without this, each freeze claims it
        until the thaw.

        @raise FreezerError: somebody else has claimed it, or something around it or inside it.
        """

    def release() -> None:
        """Others may freeze it again.  Idempotent."""

    def thawLeft() -> bool:
        """
        Thaw what is claimed, if a freezer of this kind has left it frozen.

        @return: whether it was so.
        @raise FreezerError: it was, and could not be thawed.
        """

    def paused() -> bool:
        """
        Whether somebody else has stopped it.

        It is left so: L{freeze} fails with L{FreezerNotReady}, L{whenReady} waits for the end, and
        no thaw undoes it.
        """


class IThawedByDescriptor(Interface):
    """
    What an L{IFreezer} may provide as well: whoever has a descriptor can thaw, without it and
    without its process.
    """

    def tellFreezes(told: Callable[[int | None], None] | None) -> None:
        """
        Call C{told} right before each freeze, with a descriptor: a write of C{0} at its begin
        thaws.  It stays the freezer's, and may be duplicated.  After the thaw, call it with None.

        @param told: must not raise; None: nobody is told.
        """

    def thawedFor(why: str) -> None:
        """
        Somebody has thawed it by the descriptor, for this reason.  Harmless, and nothing, where it
        is not frozen by now, or still is.
        """


class ILocatedFreezer(Interface):
    """What an L{IFreezer} may provide as well that hears from whoever runs its container."""

    mayWait = Attribute("See L{chanproxy.interfaces.locators.ILocator}.")

    def watchdog() -> float:
        """Seconds within which somebody expects the container to say that it lives; 0: nobody."""

    def letBe(stays: Callable[[], bool]) -> None:
        """
        Ask this before it is thawed because somebody is about to do something with it.

        @param stays: whether it is to stay as it is, whoever comes.
        """


class IStartableFreezer(IFreezer):
    """A freezer that can have its container started and stopped by whoever runs it."""

    def start() -> Deferred[None]:
        """
        Have it run.  Idempotent.

        @return: fires when it runs, and is healthy, where that is known; fails with
            L{FreezerError}, which says why it does not.  Cancellable, which stops nothing.
        """

    def stop() -> Deferred[None]:
        """
        Have it end, in its own time, asleep or awake.  Idempotent.

        @return: fires when it has; fails with L{FreezerError}.
        """


class IFreezerFactory(Interface):
    """Makes freezers of one prefix; a Twisted plugin of another package."""

    prefix = Attribute("What a configuration writes: C{freezer = PREFIX:ARGUMENT}.")

    def makeFreezer(argument: str, reactor: ChanproxyReactor) -> IFreezer:
        """
        Make one; nothing is opened yet.

        @raise ValueError: the argument cannot be used; the text is a sentence for the user.
        """
