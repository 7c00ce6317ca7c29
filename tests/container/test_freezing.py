"""What is said about a freeze that does not finish."""

from __future__ import annotations

import time

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from chanproxy.container import Bounds
from chanproxy.container.freezing import PATIENCE, FreezeWatch
from chanproxy.freezers.cgroup import CgroupFreezer
from chanproxy.interfaces import ChanproxyReactor, FreezeInterrupted, FreezerError
from chanproxy.testing.freezers import FakeFreezer
from support.cgroups import TemporaryCgroup, unusable
from support.processes import cannotStick, stuckProcess
from tests.shared.sides import asynchronous, until


class Setup:
    """A watch of a freezer of which one task does not stop."""

    def __init__(self, limit: float = 30, stall: float | None = None) -> None:
        self.clock = Clock()
        self.freezer = FakeFreezer()
        self.freezer.tasks = ["worker[123] in pipe_read"]
        self.ends: list[str] = []
        self.watch = FreezeWatch(
            "box",
            self.clock,
            self.freezer,
            Bounds(freezeWarning=1, freezeLimit=limit),
            self.ends.append,
            stall,
        )

    def run(self, seconds: float, step: float = 0.5) -> list[str]:
        """Let time pass; what is logged, each line with its time."""
        lines = []
        for _ in range(int(seconds / step)):
            with capturedLogs() as events:
                self.clock.advance(step)
            lines += [f"{self.clock.seconds():g}: {formatEvent(event)}" for event in events]
        return lines


def test_doublingWarnings() -> None:
    """It warns after 1, 2, 4... seconds, and at the limit it ends, once."""
    setup = Setup()
    setup.watch.start()
    setup.watch.start()
    lines = setup.run(29.5)
    assert [line.partition(":")[0] for line in lines] == ["1", "2", "4", "8", "16"]
    assert lines[0] == "1: box: not frozen after 1 s, waiting for: worker[123] in pipe_read"
    assert setup.ends == []
    assert setup.run(100) == []
    assert setup.ends == [
        "not frozen within 30 s: worker[123] in pipe_read;"
        " raise freeze-limit, or see what holds these tasks"
    ]
    assert setup.clock.getDelayedCalls() == []


@pytest.mark.parametrize("stall", [None, 0.5])
def test_endsWhenAsked(stall: float | None) -> None:
    """Whoever asks for the tasks may find out that it is over; then there is nothing to say."""
    setup = Setup(stall=stall)

    def unfrozen() -> list[str]:
        setup.watch.stop()
        return []

    setup.freezer.unfrozenTasks = unfrozen  # type: ignore[method-assign]  # as a real one may do
    setup.watch.start()
    assert setup.run(100) == []
    assert setup.ends == []
    assert setup.clock.getDelayedCalls() == []


def test_stopIsQuiet() -> None:
    """A freeze that ends in time is not spoken of; the watch serves the next one."""
    setup = Setup(limit=4)
    setup.watch.stop()
    for _ in range(2):
        setup.watch.start()
        assert setup.run(0.5) == []
        setup.watch.stop()
        setup.watch.stop()
        assert setup.clock.getDelayedCalls() == []
    setup.watch.start()
    # No warning at the limit itself: the end says it.
    assert len(setup.run(10)) == 2
    assert len(setup.ends) == 1


def test_stopWithinEnd() -> None:
    """Who is told of the end may stop and start the watch there."""
    clock = Clock()

    def expired(text: str) -> None:
        watch.stop()
        if len(ends) == 0:
            watch.start()
        ends.append(text)

    ends: list[str] = []
    freezer = FakeFreezer()
    freezer.tasks = ["worker[123] in pipe_read"]
    watch = FreezeWatch("box", clock, freezer, Bounds(freezeWarning=1, freezeLimit=1), expired)
    watch.start()
    clock.pump([1, 1, 1])
    assert len(ends) == 2


def test_manyTasks() -> None:
    """Twenty are named, and those that are alike once."""
    setup = Setup()
    setup.freezer.tasks = [f"t{number}[{number}] running" for number in range(23)]
    setup.watch.start()
    (line,) = setup.run(1)
    assert line.endswith("; t18[18] running; t19[19] running; and 3 more")
    setup.freezer.tasks = setup.freezer.tasks[:20]
    (line,) = setup.run(1)
    assert line.endswith("; t18[18] running; t19[19] running")
    setup.freezer.tasks = [*(f"t[{number}] running" for number in range(7)), "t[9] in pipe_read"]
    (line,) = setup.run(2)
    assert line.endswith("waiting for: t[0] running and 6 like it; t[9] in pipe_read")
    setup.watch.stop()


def test_patient() -> None:
    """What is to be frozen in any case has all the time, though nobody hears meanwhile."""
    setup = Setup(stall=0.05)
    setup.watch.start(patient=True)
    setup.run(1)
    assert setup.ends == []
    setup.run(30)
    assert len(setup.ends) == 1


def test_noTasks() -> None:
    """Tasks of another pid namespace are not seen."""
    setup = Setup()
    setup.freezer.tasks = []
    setup.watch.start()
    (line,) = setup.run(1)
    assert line.endswith("waiting for: no task that can be seen from here")
    setup.watch.stop()


def test_noTasksAtTheEnd() -> None:
    """At the limit it waits a little longer for nobody, and no more."""
    setup = Setup(limit=2)
    setup.freezer.tasks = []
    setup.watch.start()
    setup.run(2)
    assert setup.ends == []
    setup.clock.pump([PATIENCE] * 2)
    assert setup.ends == [
        "not frozen within 2 s: no task that can be seen from here;"
        " raise freeze-limit, or see what holds these tasks"
    ]
    assert setup.clock.getDelayedCalls() == []


def test_stall() -> None:
    """Where nobody listens, a task that is seen to hold it ends it soon, and the text says why."""
    setup = Setup(stall=0.05)
    setup.watch.start()
    assert setup.run(0.04, 0.01) == []
    assert setup.ends == []
    setup.clock.advance(0.01)
    assert setup.ends == [
        "not frozen within 0.05 s: worker[123] in pipe_read; meanwhile it hears none of its sockets"
    ]
    assert setup.clock.getDelayedCalls() == []


def test_stallOfTheReactor() -> None:
    """A freeze that is complete is waited for, though it was not heard of: the reactor was busy."""
    setup = Setup(stall=0.05)
    setup.watch.start()
    setup.freezer.tasks = []
    setup.run(1, 0.04)
    assert setup.ends == []
    setup.freezer.tasks = ["late[5] running"]
    setup.clock.advance(PATIENCE)
    (end,) = setup.ends
    assert end == (
        "not frozen within 1.05 s: late[5] running; meanwhile it hears none of its sockets"
    )


def test_stallBeyondTheLimit() -> None:
    """The shorter one of the two holds, and the text is that of the limit."""
    setup = Setup(limit=0.5, stall=60)
    setup.watch.start()
    setup.run(1)
    (end,) = setup.ends
    assert end.startswith("not frozen within 0.5 s: worker[123] in pipe_read; raise freeze-limit")


@pytest.mark.parametrize("error", [FreezerError("no such box"), OSError(24, "no such box")])
def test_cannotList(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the tasks cannot be listed, it says so, and goes on."""

    def fail() -> list[str]:
        raise error

    setup = Setup(limit=2)
    monkeypatch.setattr(setup.freezer, "unfrozenTasks", fail)
    setup.watch.start()
    (line,) = setup.run(3)
    assert "waiting for: tasks that cannot be listed (" in line
    assert "no such box" in line
    assert setup.ends[0].startswith("not frozen within 2 s: tasks that cannot be listed (")


def _unusable() -> str:
    return unusable() or cannotStick()


@pytest.mark.cgroup
@pytest.mark.skipif(bool(_unusable()), reason=_unusable() or "usable")
@asynchronous
async def test_uninterruptible(reactor: ChanproxyReactor) -> None:
    """A real task that cannot be frozen is named, with what it waits in; one that can is not."""
    texts: list[str] = []
    outcome: list[object] = []
    with TemporaryCgroup() as cgroup:
        cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, reactor)
        watch = FreezeWatch(
            "box", reactor, freezer, Bounds(freezeWarning=0.5, freezeLimit=1.5), texts.append
        )
        with stuckProcess(cgroup) as stuck, capturedLogs() as events:
            freezer.freeze().addBoth(outcome.append)
            watch.start()
            await until(reactor, lambda: texts)
            assert outcome == []
            await freezer.thaw()
        task = f"stat[{stuck.pid}] in fuse_get_req"
        assert [formatEvent(event) for event in events] == [
            f"box: not frozen after {passed} s, waiting for: {task}" for passed in ("0.5", "1")
        ]
        assert texts[0].startswith(f"not frozen within 1.5 s: {task}; ")
        (failure,) = outcome
        assert isinstance(getattr(failure, "value", None), FreezeInterrupted)


@pytest.mark.cgroup
@pytest.mark.skipif(bool(_unusable()), reason=_unusable() or "usable")
@asynchronous
async def test_busyReactor(reactor: ChanproxyReactor) -> None:
    """A reactor that is busy for longer than the stall does not lose a freeze that is complete."""
    ends: list[str] = []
    outcome: list[object] = []
    with TemporaryCgroup() as cgroup:
        for _ in range(8):
            cgroup.spawn(["sleep", "1000"])
        freezer = CgroupFreezer(cgroup.path, reactor)
        watch = FreezeWatch(
            "box",
            reactor,
            freezer,
            Bounds(freezeWarning=10, freezeLimit=10),
            ends.append,
            stall=0.02,
        )
        for _ in range(5):
            outcome.clear()
            freezer.freeze().addBoth(outcome.append)
            watch.start()
            time.sleep(0.06)
            assert cgroup.frozen()
            await until(reactor, lambda: outcome)
            watch.stop()
            assert (outcome, ends) == ([None], [])
            await freezer.thaw()
