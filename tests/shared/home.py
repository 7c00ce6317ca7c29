"""A container that wakes by its own sockets, in this process, around a program in a real cgroup."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from chanproxy.adopt.settings import Adoption
from chanproxy.container import Bounds, Container, Surroundings
from chanproxy.container.outcomes import NotIdle, Resumed
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor
from support.cgroups import TemporaryCgroup
from support.live import PATIENCE
from tests.shared.frozen import Subject
from tests.shared.sides import until


class Home:
    """
    A container around programs.

    @ivar results: how its suspends ended.
    """

    def __init__(
        self,
        reactor: ChanproxyReactor,
        cgroup: TemporaryCgroup,
        mode: str = "manual",
        longest: float | None = None,
        **more: Any,
    ) -> None:
        self.reactor = reactor
        self.cgroup = cgroup
        self.results: list[object] = []
        self.container = Container(
            reactor,
            "web",
            CgroupFreezer(cgroup.path, reactor),
            mode,
            around=Surroundings(recorded=False),
            bounds=Bounds(linger=0.02, signalInterval=0.1, maxAsleep=longest or 0),
            adoption=Adoption(**more),
        )

    @property
    def state(self) -> str:
        """Of the container."""
        return self.container.suspension.state

    @property
    def last(self) -> object:
        """How the last suspend ended."""
        result = self.results[-1]
        return result.value if isinstance(result, Failure) else result

    @property
    def reason(self) -> str:
        """What woke it last."""
        assert isinstance(self.last, Resumed)
        return self.last.reason

    def suspend(self) -> None:
        """Try once."""
        self.container.suspend().addBoth(self.results.append)

    async def sleep(self) -> None:
        """Until it is asleep: programs take a moment until they wait again."""
        deadline = self.reactor.seconds() + PATIENCE
        while self.state != "asleep":
            assert self.reactor.seconds() < deadline, self.last
            if self.state == "awake":
                await deferLater(self.reactor, 0.002)
                self.suspend()
            else:
                await deferLater(self.reactor, 0.0005)

    async def woken(self) -> None:
        """Until it is awake."""
        await until(self.reactor, lambda: self.state == "awake")

    async def refused(self) -> str:
        """Why it is not suspended."""
        before = len(self.results)
        self.suspend()
        await until(self.reactor, lambda: len(self.results) > before)
        assert isinstance(self.last, NotIdle)
        return str(self.last)

    async def fails(self, why: str) -> None:
        """Until a suspend fails for that: programs take a moment until they wait again."""
        deadline = self.reactor.seconds() + PATIENCE
        said = ""
        while said != why:
            assert self.reactor.seconds() < deadline, said
            self.results.clear()
            self.suspend()
            await until(self.reactor, lambda: bool(self.results))
            said = str(self.last)

    def close(self) -> None:
        """Let it run."""
        self.container.stop()


@pytest.fixture
def stack() -> Any:
    """Closed at the end, before leaks are looked for."""
    with contextlib.ExitStack() as stack:
        yield stack


def home(
    stack: contextlib.ExitStack,
    reactor: ChanproxyReactor,
    subject: Subject,
    mode: str = "manual",
    **more: Any,
) -> Home:
    """A container around a program that is about to wait."""
    stack.enter_context(subject)
    assert subject.line() == "ready"
    made = Home(reactor, subject.cgroup, mode, **more)
    stack.callback(made.close)
    return made
