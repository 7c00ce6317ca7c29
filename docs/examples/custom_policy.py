"""
A policy for handled: a message is handled when an equal one has come back three times.

Put this file into a directory `twisted/plugins` on Python's path, without an `__init__.py`, and
write `handled = "thrice"`.
"""

from twisted.plugin import IPlugin
from zope.interface import implementer

from chanproxy.carry import Channel
from chanproxy.interfaces import IHandledPolicy, IHandledPolicyFactory


@implementer(IHandledPolicy)
class Thrice:
    """Three messages back handle one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._owed = 0
        self._back = 0

    def counted(self, count: int) -> None:
        self._channel.ledger.activity += count
        self._owed += count

    def sending(self, waiting: int) -> None:
        pass

    def answered(self, count: int) -> None:
        self._back += count
        done = min(self._back // 3, self._owed)
        self._back -= done * 3
        self._owed -= done
        self._channel.counter.handled(done)

    def close(self) -> None:
        pass


@implementer(IPlugin, IHandledPolicyFactory)
class ThriceFactory:
    """Found by the name."""

    name = "thrice"

    def makePolicy(self, channel: Channel) -> IHandledPolicy:
        return Thrice(channel)


thrice = ThriceFactory()
