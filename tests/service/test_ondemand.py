"""When a container is started and stopped: by who connects, and by how long it has slept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chanproxy import config
from chanproxy.interfaces import FreezerError
from chanproxy.service.ondemand import AGAIN, PAUSE, OnDemand

TABLE = config.load(
    """
[containers.web]
freezer = "docker:web"
on-demand = "start"
start-limit = 10
stop-after = 20
[containers.web.channels.c]
listen = "tcp:8080"
connect = "docker:web:80"
handled = "answered"
"""
).containers[0]


class Freezer:
    """What starts when the test says so."""

    spec = "docker:web"

    def __init__(self) -> None:
        self.runs = False
        self.starts: list[Deferred[None]] = []
        self.stops = 0
        self.cancelled = 0
        self.stopping: Deferred[None] = succeed(None)

    def processes(self) -> list[int]:
        return [1] if self.runs else []

    def start(self) -> Deferred[None]:
        def cancelled(_: Deferred[None]) -> None:
            self.cancelled += 1

        self.starts.append(Deferred(cancelled))
        return self.starts[-1]

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return self.stopping


class Container:
    """Its states, as they are told."""

    name = "web"
    paused: Any = None

    def __init__(self) -> None:
        self.watchers: list[Callable[[str, tuple[str, ...]], None]] = []
        self.addWatcher, self.removeWatcher = self.watchers.append, self.watchers.remove

    @property
    def suspension(self) -> Any:
        return self

    def becomes(self, state: str) -> None:
        for watcher in list(self.watchers):
            watcher(state, ())


class OnDemandTests(SynchronousTestCase):
    """By a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.freezer, self.container = Freezer(), Container()
        made: Any = self.freezer, self.container
        self.demand = OnDemand(self.clock, made[1], made[0], TABLE)
        self.listens = False
        self.tries = 0

    def connect(self) -> Deferred[str]:
        self.tries += 1
        return succeed("connected") if self.listens else fail(ConnectError(111))

    def reach(self) -> Deferred[str]:
        return Deferred.fromCoroutine(self.demand.reach(self.connect))

    def fails(self, result: Deferred[Any], *kinds: type[Exception]) -> Any:
        """How it has."""
        return self.failureResultOf(result, *kinds)  # type: ignore[no-untyped-call]

    def begins(self) -> None:
        """The start that was asked for is done."""
        self.clock.advance(0)
        self.freezer.runs = True
        self.freezer.starts[-1].callback(None)

    def test_runs(self) -> None:
        """What runs is not started; and what does not listen there is said at once."""
        self.freezer.runs = self.listens = True
        assert self.successResultOf(self.reach()) == "connected"
        self.listens = False
        self.fails(self.reach(), ConnectError)
        assert self.freezer.starts == []

    def test_started(self) -> None:
        """Once for all who wait; they are connected when it listens."""
        reached = [self.reach() for _ in range(5)]
        self.begins()
        assert len(self.freezer.starts) == 1
        for each in reached:
            assert not each.called
        self.listens = True
        self.clock.advance(AGAIN)
        for each in reached:
            assert self.successResultOf(each) == "connected"
        assert self.clock.getDelayedCalls() == []

    def test_refused(self) -> None:
        """All who wait are told why it cannot be, and the next tries again, but not at once."""
        one, other = self.reach(), self.reach()
        self.clock.advance(0)
        self.freezer.starts[-1].errback(FreezerError("docker:web: no"))
        for each in (one, other):
            assert str(self.fails(each, FreezerError).value) == "docker:web: no"
        again = self.reach()
        self.clock.advance(PAUSE / 2)
        assert len(self.freezer.starts) == 1
        self.clock.advance(PAUSE / 2)
        assert len(self.freezer.starts) == 2
        self.listens = True
        self.begins()
        assert self.successResultOf(again) == "connected"

    def test_tooLate(self) -> None:
        """It is not waited for longer than is said: for the start, and for who listens."""
        reached = self.reach()
        self.clock.pump([1] * 10)
        why = self.fails(reached, FreezerError).getErrorMessage()
        assert "it does not run, or is not healthy, within 10 s" in why
        assert self.freezer.cancelled == 1
        reached = self.reach()
        self.begins()
        self.clock.pump([AGAIN] * 300)
        self.fails(reached, ConnectError)
        assert self.clock.getDelayedCalls() == []

    def test_endsMeanwhile(self) -> None:
        """One that ends before it listens is started again, some time later."""
        reached = self.reach()
        self.begins()
        self.freezer.runs = False
        self.clock.advance(AGAIN)
        assert len(self.freezer.starts) == 1
        self.clock.advance(PAUSE)
        assert len(self.freezer.starts) == 2
        self.listens = True
        self.begins()
        assert self.successResultOf(reached) == "connected"

    def test_givenUp(self) -> None:
        """Who leaves is not waited for; the start goes on for others."""
        one, other = self.reach(), self.reach()
        one.addErrback(lambda _: None)
        one.cancel()
        self.listens = True
        self.begins()
        assert self.successResultOf(other) == "connected"

    def test_stopped(self) -> None:
        """After the time asleep, and not when it has woken meanwhile, or is paused."""
        self.container.becomes("asleep")
        self.clock.advance(19)
        self.container.becomes("awake")
        self.clock.advance(100)
        self.container.becomes("asleep")
        self.container.paused = "by somebody"
        self.clock.advance(20)
        assert self.freezer.stops == 0
        self.container.paused = None
        self.container.becomes("awake")
        self.container.becomes("asleep")
        self.clock.advance(20)
        assert self.freezer.stops == 1

    def test_whileItIsStopped(self) -> None:
        """Who comes while it is stopped waits for that, and has it started again."""
        for result in (None, Failure(FreezerError("docker:web: no"))):
            self.freezer.runs, self.freezer.stopping = True, Deferred()
            self.container.becomes("asleep")
            self.clock.advance(20)
            reached = self.reach()
            before = self.tries
            self.clock.advance(PAUSE)
            assert (self.tries, len(self.freezer.starts)) == (before, self.freezer.stops - 1)
            self.listens, self.freezer.runs = True, False
            self.freezer.stopping.callback(result)
            self.begins()
            assert self.successResultOf(reached) == "connected"
            self.container.becomes("awake")

    def test_endedMeanwhile(self) -> None:
        """Its container leaves in that time."""
        self.freezer.stopping = Deferred()
        self.container.becomes("asleep")
        self.clock.advance(20)
        reached = self.reach()
        self.demand.end()
        self.fails(reached, CancelledError)
        self.freezer.stopping.callback(None)
        assert self.freezer.starts == []

    def test_changed(self) -> None:
        """By another table it starts and stops no more."""
        self.demand.table = evolve(TABLE, onDemand="off")
        self.fails(self.reach(), ConnectError)
        self.container.becomes("asleep")
        assert self.clock.getDelayedCalls() == []
        assert self.freezer.starts == []

    def test_ended(self) -> None:
        """When its container leaves nothing is left of it."""
        self.container.becomes("asleep")
        reached = self.reach()
        self.clock.advance(0)
        self.demand.end()
        self.fails(reached)
        assert self.clock.getDelayedCalls() == []
        assert self.container.watchers == []
