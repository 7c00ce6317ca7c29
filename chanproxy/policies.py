"""
The policies for handled by their names: those of this package, and those of plugins.

Knows how each is made; a plugin is looked for only when a name is none of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen
from zope.interface import implementer

from chanproxy._words import brief, meant
from chanproxy.counter import MessageCounter
from chanproxy.handled import SILENCE, Consumed, Explicit, Idle, Ledger
from chanproxy.interfaces import IHandledPolicy, PollingReactor
from chanproxy.replied import Replied

POLICIES = ("consumed", "explicit", "idle", "replied")
"""Those of this package."""


@frozen
class Channel:
    """
    What a policy is made for.

    @ivar counter: what the channel counts on; the policy takes off what is handled.
    @ivar descriptor: our end of the connection to the container, open until the policy is closed.
    @ivar silence: seconds, for the policy C{idle}.
    """

    reactor: PollingReactor
    ledger: Ledger
    counter: MessageCounter
    descriptor: int
    silence: float = SILENCE


def pluginNames() -> Iterable[str]:
    """The policies of other packages."""
    from chanproxy.plugins import policyFactories

    return policyFactories()


@implementer(IHandledPolicy)
class Eager:
    """
    Another policy, made to look at once, where it would look when all else is quiet.

    For a container that something else keeps awake until the first message is handled.
    """

    def __init__(self, policy: IHandledPolicy) -> None:
        self._policy = policy
        self.sending = policy.sending
        self.answered = policy.answered
        self.close = policy.close

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        self._policy.counted(count)
        # What there is to see comes from the reactor, and by then the messages have been sent.
        arm = getattr(self._policy, "arm", None)
        if arm is not None:
            arm()


def makePolicy(name: str, channel: Channel) -> IHandledPolicy:
    """
    Make the policy of one channel.

    @raise ValueError: there is no such policy; the text is a sentence for the user.
    """
    if name == "explicit":
        return Explicit(channel.ledger)
    if name == "consumed":
        return Consumed(channel.reactor, channel.ledger, channel.counter, channel.descriptor)
    if name == "idle":
        return Idle(channel.reactor, channel.ledger, channel.counter, channel.silence)
    if name == "replied":
        return Replied(channel.ledger, channel.counter)
    from chanproxy.plugins import policyFactories

    factories = policyFactories()
    if name not in factories:
        known = [*POLICIES, *factories]
        raise ValueError(f"there is no policy {brief(name)} for handled; {meant(name, known)}")
    return factories[name].makePolicy(channel)
