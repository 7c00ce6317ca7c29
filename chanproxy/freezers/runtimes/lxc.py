"""
Containers of LXC, by their names, which their cgroups have.

LXC tells of nothing that can be waited for; so it is looked for, while it is not there.
"""

from __future__ import annotations

import os
import re

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from chanproxy.freezers.runtimes.places import byName
from chanproxy.freezers.runtimes.telling import Telling
from chanproxy.interfaces import ChanproxyReactor, FreezerError
from chanproxy.interfaces.locators import IFollower, ILocator, Location

LOOKS = 2.0
"""Seconds between looks for one that is not there; it takes some milliseconds."""


@implementer(ILocator)
class LxcLocator:
    """One container."""

    mayWait = True

    def __init__(self, name: str, reactor: ChanproxyReactor) -> None:
        self.spec = f"lxc:{name}"
        # Of one that is started while its old cgroup is still there, the second one is C{NAME-1}.
        self._pattern = re.compile(rf"lxc\.payload\.{re.escape(name)}(?:-\d+)?")
        self._reactor = reactor
        self._telling = Telling()
        self._call: IDelayedCall | None = None

    def check(self) -> None:
        """See L{ILocator.check}."""

    def follow(self, follower: IFollower) -> None:
        """See L{ILocator.follow}."""
        self._telling.begin(follower)
        self._look()

    def leave(self) -> None:
        """See L{ILocator.leave}."""
        self._telling.end()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def locate(self) -> Location:
        """See L{ILocator.locate}."""
        cgroup = byName(lambda name: bool(self._pattern.fullmatch(name)))
        return Location(cgroup, "" if cgroup else "is not running")

    def _look(self) -> None:
        self._call = None
        said = self._telling.said
        if said is None or not said.cgroup or not os.path.isdir(said.cgroup):
            try:
                location = self.locate()
            except FreezerError as error:
                location = Location(why=str(error))
            self._telling.say(location)
        if self._telling.goes:
            # Whoever was told may have left.
            self._call = self._reactor.callLater(LOOKS, self._look)
