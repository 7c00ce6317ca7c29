"""
Doorkeeper: who connects to a channel is let in, or told that its container is paused, or answered
in its name, when all that is asked is whether it is well.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chanproxy import config
from chanproxy.carry.checked import Answered, Asking, Checked, Question, isRemembered
from chanproxy.carry.noticed import Noticed
from chanproxy.carry.opening import Opening
from chanproxy.carry.turnedaway import TurnedAway
from chanproxy.channels.kinds import hangUp
from chanproxy.container import Container
from chanproxy.interfaces import IChannel

QUESTIONS = 16
"""Answers that are remembered for one channel: those to the latest questions."""


@define
class Ways:
    """
    What is done with those who are let in.

    @ivar dial: connects a protocol with the container.
    @ivar letIn: has somebody's channel be carried to it.
    """

    dial: Callable[[Asking], Deferred[object]]
    letIn: Callable[[IChannel], None]


class Doorkeeper:
    """Of one channel."""

    def __init__(
        self,
        clock: IReactorTime,
        container: Container,
        channel: config.Channel,
        name: str,
        noticed: Noticed,
        ways: Ways,
    ) -> None:
        """
        @param name: the channel's, for people.
        @param noticed: keeps the container awake while it is asked.
        """
        self._clock = clock
        self._container = container
        # Who dials from inside is not kept from it: that runs no more while it is paused.
        remote = channel.initiator == "remote"
        self._tells = channel.whenPaused == "tell" and remote
        self._checks = channel.checks if remote else ""
        self._name = name
        self._noticed = noticed
        self._ways = ways
        self._meets: set[Opening] = set()
        # By question: at which wake it was asked, and what was answered.
        self._answers: dict[bytes, tuple[int, Answered]] = {}

    def meet(self) -> Opening | None:
        """Who meets somebody who has connected just now; L{None}: let them in."""
        if self._tells and self._container.suspension.paused is not None:
            return self._turnAway()
        if self._checks:
            path = self._checks.encode() if self._checks.startswith("/") else b""
            return Checked(self._clock, path, self, self._came, self._left)
        return None

    def _turnAway(self) -> TurnedAway:
        name = self._container.name
        self._container.lines.info(
            "{name}: turned away: {container} is paused", name=self._name, container=name
        )
        why = f"{name} is paused, and answers when that is over."
        return TurnedAway(self._clock, why, self._came, self._left)

    def _came(self, peer: Opening) -> None:
        self._meets.add(peer)
        self._container.dialling += 1

    def _left(self, peer: Opening) -> None:
        self._meets.discard(peer)
        self._container.dialling -= 1

    # What is asked.

    @property
    def _wakes(self) -> int:
        return self._container.suspension.statistics.successes

    def known(self, question: Question) -> bytes | None:
        """
        See L{chanproxy.carry.checked.Keeper}: asked once at each wake, and as often as somebody
        asks while it has something else to do.
        """
        number, answer = self._answers.get(question.what, (-1, None))
        if answer is None or number != self._wakes:
            return None
        state = self._container.suspension.state
        if state == "awake" and self._container.sources.signalled():
            return None
        return answer.again(b"X-Chanproxy: " + (b"idle" if state == "awake" else b"asleep"))

    def ask(self, question: Question) -> Deferred[Answered]:
        """See L{chanproxy.carry.checked.Keeper}."""
        asking = Asking(self._clock, question)
        self._noticed.hold()
        answered = self._ways.dial(asking).addCallback(lambda _: asking.answered)
        return answered.addCallback(self._remember, question).addBoth(self._asked)

    def _remember(self, answer: Answered, question: Question) -> Answered:
        self._answers.pop(question.what, None)
        if isRemembered(answer):
            while len(self._answers) >= QUESTIONS:
                del self._answers[next(iter(self._answers))]
            self._answers[question.what] = self._wakes, answer
        return answer

    def _asked(self, result: Answered) -> Answered:
        self._noticed.release()
        return result

    def letIn(self, channel: IChannel) -> None:
        """See L{chanproxy.carry.checked.Keeper}."""
        self._ways.letIn(channel)

    def stop(self) -> None:
        """Nobody is met any more.  Idempotent."""
        for peer in list(self._meets):
            hangUp(peer, abort=True)
