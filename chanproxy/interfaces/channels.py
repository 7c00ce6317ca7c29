"""
Channels: message pipes behind four verbs, and who is told of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from twisted.internet.interfaces import (
    IProtocol,
)
from zope.interface import Attribute, Interface


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
        """
        Whether the peer has closed both directions, or this end is closed: nothing that is sent can
        arrive.
        """

    def close() -> None:
        """
        Close at once.  C{connectionLost} follows in a later reactor turn.  Idempotent.  Afterwards
        nothing is there to peek, and whatever else is asked for does nothing.

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
