"""
Telling: the one who follows a container hears where it is when that changes, and not otherwise.
"""

from __future__ import annotations

from chanproxy.interfaces.locators import IFollower, Location


class Telling:
    """
    @ivar said: what was told last; None: nothing yet.
    """

    def __init__(self) -> None:
        self._follower: IFollower | None = None
        self.said: Location | None = None

    @property
    def goes(self) -> bool:
        """Whether somebody follows."""
        return self._follower is not None

    def begin(self, follower: IFollower) -> None:
        """Tell this one from now on."""
        self._follower, self.said = follower, None

    def end(self) -> None:
        """Tell nobody.  Idempotent."""
        self._follower = None

    def say(self, location: Location) -> None:
        """It is there, or nowhere, by now."""
        if self._follower is not None and location != self.said:
            self.said = location
            self._follower.moved(location)
