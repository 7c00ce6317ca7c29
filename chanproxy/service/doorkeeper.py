"""
Doorkeeper: whether those who connect to a channel are let in, or told that its container is paused.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from chanproxy import config
from chanproxy.carry.turnedaway import TurnedAway
from chanproxy.channels.kinds import hangUp
from chanproxy.container import Container


class Doorkeeper:
    """Of one channel."""

    def __init__(
        self, clock: IReactorTime, container: Container, channel: config.Channel, name: str
    ) -> None:
        """@param name: the channel's, for people."""
        self._clock = clock
        self._container = container
        # Who dials from inside is not kept from it: that runs no more while it is paused.
        self._tells = channel.whenPaused == "tell" and channel.initiator == "remote"
        self._name = name
        self._away: set[TurnedAway] = set()

    def turnAway(self) -> TurnedAway | None:
        """What tells somebody who has connected just now; L{None}: let them in."""
        if not self._tells or self._container.suspension.paused is None:
            return None
        name = self._container.name
        self._container.lines.info(
            "{name}: turned away: {container} is paused", name=self._name, container=name
        )
        why = f"{name} is paused, and answers when that is over."
        return TurnedAway(self._clock, why, self._came, self._left)

    def _came(self, peer: TurnedAway) -> None:
        self._away.add(peer)
        self._container.dialling += 1

    def _left(self, peer: TurnedAway) -> None:
        self._away.discard(peer)
        self._container.dialling -= 1

    def stop(self) -> None:
        """Nobody is being told any more.  Idempotent."""
        for peer in list(self._away):
            hangUp(peer, abort=True)
