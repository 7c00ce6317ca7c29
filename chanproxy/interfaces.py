"""
The nouns of chanproxy, as interfaces.

Imports nothing else of the package; everything else may import this.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IReactorCore,
    IReactorFDSet,
    IReactorTime,
)
from zope.interface import Attribute, Interface


class PollingReactor(IReactorFDSet, IReactorTime):
    """A reactor's descriptors and time: what most parts need of it."""


class ChanproxyReactor(IReactorCore, PollingReactor):
    """What chanproxy as a whole asks of a reactor: descriptors, time, start and stop."""


class Batch(Protocol):
    """
    What one L{IChannel.peek} saw: still owned by the kernel's queue, with duplicates of the
    descriptors, owned by the batch.

    C{len(batch)} is how much that is, in units, possibly 0.  There are two families: C{packets},
    whose unit is a packet, and C{bytes}, whose unit is a byte.  A batch can be sent on each channel
    of its own family; one of another family needs a framing in between.
    """

    @property
    def family(self) -> str:
        """C{packets} or C{bytes}."""

    @property
    def ended(self) -> bool:
        """Nothing will ever follow what is in this batch: end-of-file."""

    @property
    def more(self) -> bool:
        """There may be more already: worth another peek.  Otherwise an event will tell."""

    def __len__(self) -> int: ...

    def messagesIn(self, units: int) -> int:
        """How many messages the first units are: what is counted."""

    def descriptorsIn(self, units: int) -> int:
        """How many descriptors go with the first units."""

    def messages(self) -> Iterator[tuple[memoryview, list[int]]]:
        """
        What has to be sent in calls of its own: bytes, and the descriptors of the first of them.

        The bytes are valid until the next peek of any channel; the descriptors stay the batch's.
        """

    def close(self) -> None:
        """Close the duplicated descriptors.  Idempotent; the batch is not to be used afterwards."""


class ChannelClosed(Exception):
    """
    The peer of a channel no longer receives (it closed, reset, or shut down its reading).

    State afterwards: nothing of the batch was sent beyond what was reported before; what the peer
    sent earlier can still be peeked and taken.
    """


class ChannelBroken(Exception):
    """
    A channel cannot go on: a limit of the configuration is exceeded, or the kernel refused.

    The text names what was wrong and the way out.  State afterwards: nothing was sent or taken by
    the call that raised; the channel still has to be closed.
    """


class MessageRefused(ChannelBroken):
    """
    The message at the head of the queue exceeds a limit; it is still there.

    State afterwards: the way on is C{discard} of a packet channel, or closing.

    @ivar limit: which one: C{message-bytes} or C{message-descriptors}.
    """

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


class IChannel(Interface):
    """
    One end of a connected message pipe, as the pump sees it: four verbs, and no queue.

    C{peek}, C{send} and C{take} never block and never wait; L{waitReadable} and L{waitWritable}
    ask for an L{IChannelUser} event.  A channel knows nothing of counters, containers, freezers.
    """

    family = Attribute("The family of its batches: C{packets} or C{bytes}.")

    carriesDescriptors = Attribute("Whether descriptors can go with its messages.")

    showsUnread = Attribute(
        "Whether C{SIOCOUTQ} on its descriptor is 0 exactly when the peer has read everything."
    )

    def fileno() -> int:
        """The descriptor that is polled, still owned by the channel; -1 when there is none."""

    def peek() -> Batch:
        """
        Look at what is at the head of the kernel's queue and leave it there.

        @return: the batch; empty and not C{ended} when nothing is there now.
        @raise ChannelBroken: a message exceeds a limit (L{MessageRefused}), or cannot be read.
        """

    def send(batch: Batch) -> int:
        """
        Send a batch that another channel of the same family peeked, in order.

        L{take} by that other channel has to follow before anything else is peeked or sent.

        @return: how many units the kernel accepted, 0 to C{len(batch)}.  Fewer than all means: ask
            L{waitWritable}, then peek and send again.
        @raise ChannelClosed: the peer does not receive any more; none of the batch was accepted.
        @raise ChannelBroken: the message can never be sent on this channel; likewise.
        """

    def take(count: int) -> None:
        """
        Remove C{count} units, which were peeked before, from the head of the queue; 0 is allowed.

        @raise ChannelBroken: they are not there any more: somebody else reads, too.
        """

    def waitReadable(wanted: bool) -> None:
        """Turn C{channelReadable} events on or off; they repeat while something is readable."""

    def waitWritable() -> None:
        """Ask for one C{channelWritable} event, when a send is worth trying again."""

    def waitGone() -> None:
        """Ask for one C{channelReadable} event when the peer has closed both directions."""

    def finishSending() -> None:
        """Tell the peer that nothing more comes (C{SHUT_WR}); receiving goes on.  Idempotent."""

    def finishReceiving() -> None:
        """
        Nothing more will be taken: where the kind of socket can say so, the peer's sending fails
        (C{SHUT_RD}).  Sending goes on.  Idempotent.
        """

    def peerGone() -> bool:
        """Whether the peer has closed both directions: nothing that is sent can arrive."""

    def close() -> None:
        """
        Close at once.  C{connectionLost} follows in a later reactor turn.  Idempotent.

        What was sent stays readable for the peer; what was not taken is lost.
        """

    def wasReset() -> bool:
        """
        Whether the connection broke: the peer reset it, or has vanished.

        Unlike an end in order, it says that something may be missing.
        """

    def abort() -> None:
        """
        As L{close}, for what broke on the other side of a proxy: where the kind of socket can say
        so, and the peer's kernel has all that was sent, the peer is told of a reset.  Idempotent.
        """


class IByteChannel(IChannel):
    """A channel of the family C{bytes}, as a framing needs it."""

    protocol: IProtocol | None = Attribute("Who is told of its events.")

    def waitMore(wanted: bool) -> None:
        """Whether something is waited for behind what has been peeked."""

    def nothingFollows() -> bool:
        """Whether the stream ends behind what has been peeked."""


class IChannelUser(Interface):
    """The protocol of an L{IChannel}: told about it in past-tense events."""

    def channelReadable() -> None:
        """There are messages to peek, or the end of them, or the peer has gone."""

    def channelWritable() -> None:
        """A send that was refused before is worth trying again."""


class IHandledPolicy(Interface):
    """
    How it is known that the container is done with messages: one for each channel.

    Told of what the channel carries, from inside the loop that carries it: it must not wait.  One
    that has a method C{outboundEnded}, without arguments, is told once when the container sends no
    more and can still receive.
    """

    def counted(count: int) -> None:
        """
        Messages were added to the channel's counter, and go to the container next.

        The policy adds them to its container's C{ledger.activity}.
        """

    def sending(waiting: int) -> None:
        """How many counted messages the container's socket has not accepted; told on a change."""

    def answered(count: int) -> None:
        """
        Messages from the container have been accepted by the remote's socket; 0: it has sent some,
        and that socket takes none at the moment.
        """

    def close() -> None:
        """The channel has ended; its counter is closed next.  Called once."""


class IHandledPolicyFactory(Interface):
    """Makes policies of one name; a Twisted plugin of another package."""

    name = Attribute("What a configuration writes: C{handled = NAME}.")

    def makePolicy(channel: Any) -> IHandledPolicy:
        """Make one.  @param channel: a L{chanproxy.carry.policies.Channel}."""


class IWakeWatcher(Interface):
    """A subscriber told each time a container has gone asleep or is awake again."""

    def stateChanged(state: str, reason: str) -> None:
        """
        The present state when it subscribes, then each change, in order.

        Must not wait.  One that raises is dropped.

        @param state: C{awake} or C{asleep}.
        @param reason: what woke it: the names of wake sources, joined by commas, or words.
        """

    def dropped() -> None:
        """It is told no more: it raised, or its container is gone."""


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


class IFreezerFactory(Interface):
    """Makes freezers of one prefix; a Twisted plugin of another package."""

    prefix = Attribute("What a configuration writes: C{freezer = PREFIX:ARGUMENT}.")

    def makeFreezer(argument: str, reactor: ChanproxyReactor) -> IFreezer:
        """
        Make one; nothing is opened yet.

        @raise ValueError: the argument cannot be used; the text is a sentence for the user.
        """


class FreezerError(Exception):
    """A freezer cannot do its work; the text says why and what to do."""


class FreezerNotReady(FreezerError):
    """The container does not exist, or has no process."""


class FreezeInterrupted(FreezerError):
    """L{IFreezer.thaw} was called before the freeze was complete."""
