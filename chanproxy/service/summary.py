"""
Summary: how many containers a service has, and how many of them sleep, in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable

from chanproxy.container import Container


class Summary:
    """
    Of one service.

    @ivar onChange: called with the sentence whenever it is another one.
    """

    def __init__(self) -> None:
        self._states: dict[Container, str] = {}
        self._asleep = 0
        self.onChange: Callable[[str], None] = lambda text: None

    @property
    def text(self) -> str:
        """For example C{3 containers, 2 asleep}."""
        count = len(self._states)
        return f"{count} container{'' if count == 1 else 's'}, {self._asleep} asleep"

    def add(self, container: Container) -> None:
        """One more, until L{remove}."""
        self._states[container] = "awake"
        container.suspension.addWatcher(lambda state, reasons: self._changed(container, state))
        self.onChange(self.text)

    def remove(self, container: Container) -> None:
        """It is gone; one that was not added is none of ours."""
        if container in self._states:
            self._changed(container, "awake")
            del self._states[container]
            self.onChange(self.text)

    def _changed(self, container: Container, state: str) -> None:
        before = self._states.get(container)
        if before is None or state not in ("awake", "asleep") or state == before:
            return
        self._states[container] = state
        self._asleep += 1 if state == "asleep" else -1
        self.onChange(self.text)
