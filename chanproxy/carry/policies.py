"""
The policies for handled by their names: those of this package, and those of plugins.

Knows how each is made; a plugin is looked for only when a name is none of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import frozen
from zope.interface import implementer

from chanproxy.carry.answered import UNANSWERED, Answered
from chanproxy.carry.consumed import Consumed
from chanproxy.carry.explicit import Explicit
from chanproxy.carry.ledger import LEAST_LINGER, SILENCE, Ledger
from chanproxy.carry.silent import Idle
from chanproxy.interfaces import IHandledPolicy, PollingReactor
from chanproxy.wake.counter import MessageCounter
from chanproxy.words import brief, meant

DEFAULT = "answered"
"""The one that a channel has when nothing else is said."""


@frozen
class Channel:
    """
    What a policy is made for.

    @ivar counter: what the channel counts on; the policy takes off what is handled.
    @ivar descriptor: our end of the connection to the container, open until the policy is closed.
    @ivar silence: seconds, for the policy C{idle}.
    @ivar unanswered: seconds, for the policy C{answered}.
    @ivar linger: seconds; what is handled after the linger time, because nothing shows when it is.
    @ivar showsUnread: see L{IChannel}; of the connection to the container.
    @ivar packets: whether that keeps message boundaries.
    """

    reactor: PollingReactor
    ledger: Ledger
    counter: MessageCounter
    descriptor: int
    silence: float = SILENCE
    unanswered: float = UNANSWERED
    linger: float = 0.5
    showsUnread: bool = True
    packets: bool = True

    def consumed(self) -> Consumed:
        """Handled when it is read."""
        return Consumed(self.reactor, self.ledger, self.counter, self.descriptor)

    def read(self) -> Consumed | Idle:
        """Likewise; or after the linger time, where nothing shows what is read."""
        if self.showsUnread:
            return self.consumed()
        silence = max(self.linger, LEAST_LINGER)
        return Idle(self.reactor, self.ledger, self.counter, silence)


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
        self.outboundEnded = getattr(policy, "outboundEnded", _nothing)

    def counted(self, count: int) -> None:
        """Messages were added to the counter."""
        self._policy.counted(count)
        # What there is to see comes from the reactor, and by then the messages have been sent.
        arm = getattr(self._policy, "arm", None)
        if arm is not None:
            arm()


def _nothing() -> None:
    """Most policies do not mind."""


def _answered(channel: Channel) -> IHandledPolicy:
    if not channel.unanswered:
        return channel.read()
    return Answered(
        *(channel.reactor, channel.ledger, channel.counter, channel.read),
        channel.descriptor if channel.showsUnread else None,
        channel.packets,
        channel.unanswered,
    )


_OURS: Mapping[str, Callable[[Channel], IHandledPolicy]] = {
    "answered": _answered,
    "consumed": Channel.consumed,
    "idle": lambda channel: Idle(channel.reactor, channel.ledger, channel.counter, channel.silence),
    "explicit": lambda channel: Explicit(channel.ledger),
}

POLICIES = tuple(_OURS)
"""Those of this package."""


def makePolicy(name: str, channel: Channel) -> IHandledPolicy:
    """
    Make the policy of one channel.

    @raise PluginError: what the plugin makes is no policy; the text is a sentence for the user.
    @raise ValueError: there is no such policy; likewise.
    """
    if name in _OURS:
        return _OURS[name](channel)
    from chanproxy import plugins

    factories = plugins.policyFactories()
    if name not in factories:
        known = [*POLICIES, *factories]
        raise ValueError(f"there is no policy {brief(name)} for handled; {meant(name, known)}")
    return plugins.makePolicy(factories[name], channel)
