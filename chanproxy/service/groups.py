"""
Groups: containers that wake together, as an application and its database do.

They fall asleep each by itself.  Knows names and states; nothing of why one wakes.
"""

from __future__ import annotations

from attrs import define

from chanproxy import config
from chanproxy.container import Container
from chanproxy.container.outcomes import IStateWatcher

WOKEN = "group {}"
"""The reason for a wake, of those whom nothing else has woken."""


@define
class _Member:
    """
    One container of a service.

    @ivar group: of its table; empty: it wakes alone.
    @ivar state: told last.
    """

    container: Container
    group: str
    state: str = ""


class Groups:
    """Those of one service; of a group, whoever came first is woken first."""

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}

    def add(self, container: Container, table: config.Container) -> None:
        """One more."""
        member = _Member(container, table.group)
        self._members[table.name] = member
        container.suspension.addWatcher(self._watcher(member))

    def change(self, table: config.Container) -> None:
        """By another table from now on."""
        self._members[table.name].group = table.group

    def remove(self, name: str) -> None:
        """It leaves: it wakes nobody any more.  Idempotent."""
        member = self._members.pop(name, None)
        if member is not None:
            member.group = ""

    def _watcher(self, member: _Member) -> IStateWatcher:
        def changed(state: str, reasons: tuple[str, ...]) -> None:
            before, member.state = member.state, state
            # What only was on its way to sleep does not wake.
            if before == "asleep" and state == "resuming" and member.group:
                self._wake(member, reasons)

        return changed

    def _wake(self, member: _Member, reasons: tuple[str, ...]) -> None:
        reason = WOKEN.format(member.group)
        if reasons == (reason,):
            # Whoever has woken it wakes the others.
            return
        for each in list(self._members.values()):
            if each is not member and each.group == member.group:
                each.container.suspension.resume(reason)
