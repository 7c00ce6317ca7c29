"""
Policies and watchers: who says that a message is handled, and who is told of a container.
"""

from __future__ import annotations

from typing import Any

from zope.interface import Attribute, Interface


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

    def stateChanged(state: str, reasons: tuple[str, ...]) -> None:
        """
        The present state when it subscribes, then each change, in order.

        Must not wait.  One that raises is dropped.

        @param state: C{awake} or C{asleep}.
        @param reasons: what woke it: the names of wake sources, or words.
        """

    def dropped() -> None:
        """It is told no more: it raised, or its container is gone."""
