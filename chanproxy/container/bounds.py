"""
Bounds: what limits one container, and how many descriptors are left to it.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from chanproxy.adopt.adopted import Room
from chanproxy.container.watchers import WATCHERS
from chanproxy.kernel import descriptors
from chanproxy.kernel.descriptors import TooManyDescriptors
from chanproxy.kernel.fewlines import LINES
from chanproxy.wake.locks import LOCK_NAMES
from chanproxy.wake.sources import SOURCES


@frozen
class Bounds:
    """
    What limits one container, in numbers and in time.

    @ivar linger: seconds that it must have been idle before suspending.
    @ivar wakeSources: how many can be registered.
    @ivar wakeLocks: names whose figures are kept; alarms that can be set.
    @ivar wakeWatchers: who is told of it, at most.
    @ivar freezeWarning: seconds until the first warning about a freeze that does not finish.
    @ivar freezeLimit: seconds until such a freeze fails.
    @ivar signalInterval: seconds between looks for signals that wait for a frozen process, at the
        most; 0 for none.  See L{chanproxy.container.sleeping.SleepWatch}.
    @ivar watchedProcesses: how many processes are watched while frozen.
    @ivar descriptors: of this process, that it may take in all; 0: no limit.
    @ivar maxAsleep: seconds after which it is woken in any case; for one that wakes by its own
        sockets, the longest time asleep without a breath.  0: neither.
    @ivar logLines: in a minute, about its connections.
    """

    linger: float = 0.5
    wakeSources: int = SOURCES
    wakeLocks: int = LOCK_NAMES
    wakeWatchers: int = WATCHERS
    freezeWarning: float = 1.0
    freezeLimit: float = 30.0
    signalInterval: float = 2.0
    watchedProcesses: int = 256
    descriptors: int = 0
    maxAsleep: float = 0.0
    logLines: int = LINES

    def sleepsAs(self, other: Bounds) -> bool:
        """Whether they differ in nothing but when it falls asleep, and in what it may have."""
        like = evolve(
            other,
            linger=self.linger,
            wakeSources=self.wakeSources,
            wakeLocks=self.wakeLocks,
            wakeWatchers=self.wakeWatchers,
            descriptors=self.descriptors,
            logLines=self.logLines,
        )
        return self == like


class Quota:
    """
    The descriptors of one container.

    @ivar bounds: what limits it; may be changed.
    """

    def __init__(self, name: str, bounds: Bounds, taken: Callable[[], int]) -> None:
        """@param taken: how many of this process's it has now."""
        self._name = name
        self.bounds = bounds
        self._taken = taken

    def roomToAdopt(self) -> Room:
        """How many descriptors may be adopted."""
        spare, limit = descriptors.spare(), self.bounds.descriptors
        rooms = [
            Room(self.bounds.wakeSources, spare=spare),
            Room(spare, "raise the limit (ulimit -n)", spare),
        ]
        if limit:
            left = max(limit - self._taken(), 0)
            rooms.append(Room(left, "raise limits.container-descriptors", spare))
        return min(rooms, key=lambda room: room.count)

    def whyNoRoom(self, count: int, owner: bool = False) -> TooManyDescriptors | None:
        """
        What is wrong with taking so many descriptors more; nothing, if there is room.

        @param owner: for somebody who may do everything: the reserve is for such calls, too.
        """
        taken, limit = self._taken(), self.bounds.descriptors
        if limit and taken + count > limit:
            return TooManyDescriptors(
                "limits.container-descriptors",
                f"{self._name} takes {taken} descriptors, of {limit} for one container; end some "
                "of its channels, wake sources, alarms or watchers, or raise "
                "limits.container-descriptors",
            )
        if not owner and count > descriptors.spare():
            return TooManyDescriptors(
                "RLIMIT_NOFILE",
                f"{descriptors.left()} descriptors are left of {descriptors.limit()}, and are "
                "kept for wakes, connections and root; raise the limit (ulimit -n)",
            )
        return None
