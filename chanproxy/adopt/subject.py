"""
One process while it is looked into, and the refusal that ends a look.

Knows nothing of how a look goes.
"""

from __future__ import annotations

from attrs import define, field

from chanproxy.adopt.processors import Call
from chanproxy.adopt.threads import Gone, Memory, threadStat
from chanproxy.adopt.waits import Clock, Wait
from chanproxy.words import named


class StillBusy(Exception):
    """
    The container works, or cannot be watched; the text says which thread, and what it does.

    @ivar again: seconds after which another look makes sense; None: it is not known.
    """

    def __init__(self, text: str, again: float | None = None) -> None:
        super().__init__(text)
        self.again = again


@define(eq=False)
class Subject:
    """
    A process.

    @ivar memory: open as long as the look goes on.
    @ivar clock: nanoseconds by a clock, as the process reads it.
    @ivar threads: those of its threads that the program itself has, and that have not ended.
    @ivar waits: what each of them waits for.
    @ivar moved: those that have run between the last look before the freeze and the freeze.
    @ivar traced: threads of it have been stopped to be looked at.
    @ivar calls: the call that each of them does that in.
    """

    pid: int
    name: str
    memory: Memory
    clock: Clock
    threads: list[int] = field(factory=list)
    waits: dict[int, Wait] = field(factory=dict)
    moved: set[int] = field(factory=set)
    traced: bool = False
    calls: dict[int, Call] = field(factory=dict)

    @property
    def label(self) -> str:
        """The process, in words for people."""
        return f"{named(self.name)}[{self.pid}]"

    def labelOf(self, tid: int) -> str:
        """One of its threads, for people."""
        try:
            name = threadStat(self.pid, tid).name
        except (Gone, OSError):
            name = self.name
        return f"{named(name)}[{tid}]"

    @property
    def onlyTime(self) -> bool:
        """Each of its threads waits for nothing but a time: it has no other way on."""
        return all(wait.onlyTime and wait.within is not None for wait in self.waits.values())
